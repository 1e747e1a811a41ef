package main

import (
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// The command lists who is under review, as a table or as JSON, and reports a partner
// that does not exist.
func TestReviewsCommand(t *testing.T) {
	t.Parallel()
	const underReview = "a0000000-0000-4000-8000-000000000002"
	p := startDev(t, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+cachetest.StartRedis(t).Address)
	if code, out, failure := runCommand(t, "", "reviews", "--address", p.GRPC); code != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("nobody: %d, %s%s", code, out, failure)
	}
	runCommand(t, "", "check", "--address", p.GRPC, underReview)
	listed := ""
	eventually(t, "the customer is listed", func() bool { // its evidence is stored off the caller's path
		_, listed, _ = runCommand(t, "", "reviews", "--address", p.GRPC)
		return strings.Contains(listed, underReview)
	})
	if !strings.Contains(listed, "account  UnderReview") {
		t.Errorf("%s", listed)
	}
	if code, out, _ := runCommand(t, "", "reviews", "--address", p.GRPC, "--json"); code != 0 || !strings.HasPrefix(out, "{") ||
		!strings.Contains(out, underReview) || !strings.Contains(out, "FACET_ACCOUNT") {
		t.Errorf("%d, %s", code, out)
	}
	if code, _, failure := runCommand(t, "", "reviews", "--address", p.GRPC, "--partner", "nobody"); code != exitUndecided || !strings.Contains(failure, "partner") {
		t.Errorf("%d, %s", code, failure)
	}
	if code, _, _ := runCommand(t, "", "reviews", "--address", "nohost"); code != exitUsage {
		t.Errorf("a wrong address: %d", code)
	}
}
