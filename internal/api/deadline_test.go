package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestTheDefaultDeadlineOfABatch compares the deadlines of handlers whose callers
// set none.
func TestTheDefaultDeadlineOfABatch(t *testing.T) {
	t.Parallel()
	chain := &Chain{cfg: withDefaults(Config{})}
	for method, want := range map[string]time.Duration{
		eligibilityv1.EligibilityService_CheckEligibility_FullMethodName:      2 * time.Second,
		eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName: 30 * time.Second,
	} {
		c := &call{lazyContext: lazyContext{Context: metadata.NewIncomingContext(t.Context(), nil)}, start: time.Now()}
		chain.bound(c, method)
		if left := time.Until(c.deadline); left > want || left < want-time.Second {
			t.Errorf("%s: %v, want %v", method, left, want)
		}
	}
}

func TestTheReserveOfABatchLeavesHalfOfItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // no time passes
		for left, want := range map[time.Duration]time.Duration{
			10 * time.Second: 9900 * time.Millisecond, 100 * time.Millisecond: 50 * time.Millisecond, -time.Second: -time.Second,
		} {
			parent, cancel := context.WithTimeout(t.Context(), left)
			ctx := withReserve(parent, 100*time.Millisecond)
			deadline, _ := ctx.Deadline()
			if got := time.Until(deadline); got != want {
				t.Errorf("of %v, %v are left, want %v", left, got, want)
			}
			ctx.end()
			cancel()
		}
		if _, ok := withReserve(t.Context(), time.Second).Deadline(); ok {
			t.Error("a context without a deadline gets one")
		}
	})
}
