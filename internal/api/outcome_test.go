package api_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// A Partner Center that hangs is an outage, although every caller ends its call itself:
// only those that waited for no time are to blame.
func TestCallersThatWaitedInVainAreCounted(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Silent()})
	// Connected first: a request that is late for its deadline is never sent.
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask("no ID")); err == nil {
		t.Error("an answer about no ID")
	}
	for _, granted := range []time.Duration{200 * time.Millisecond, 600 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(t.Context(), granted)
		if _, err := run.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA)); err == nil {
			t.Errorf("an answer within %v", granted)
		}
		cancel()
	}
	leaving, leave := context.WithCancel(t.Context())
	time.AfterFunc(600*time.Millisecond, leave) // in a client's own time, which it does not send
	if _, err := run.Client.CheckEligibility(leaving, apitest.Ask(apitest.CustomerA)); err == nil {
		t.Error("an answer to a caller that left")
	}
	want := map[string]string{"abandoned": "1", "timed_out": "2", "decided": "0", "failed": "0", "rejected": "1", "undecided": "0"}
	got := map[string]string{}
	deadline := time.Now().Add(10 * time.Second)
	for { // the service notices after the client that it left
		for _, line := range run.Scrape(t, "eligibility_questions_total{") {
			name, count, _ := strings.Cut(strings.TrimPrefix(line, `eligibility_questions_total{outcome="`), `"} `)
			got[name] = count
		}
		if cmp.Equal(want, got) || time.Now().After(deadline) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
	if got := run.Scrape(t, `eligibility_check_duration_seconds_count{tier="none"} 2`); len(got) != 1 {
		t.Errorf("durations:\n%s", strings.Join(run.Scrape(t, "eligibility_check_duration_seconds_count"), "\n"))
	}
}
