//go:build !race

package evidence_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// TestAllocationsOfALocalHit holds a question that the local tier answers to no
// allocation, in both halves of the evidence's fresh age: the early refresh
// is scheduled once. The race detector allocates, so it is built without.
func TestAllocationsOfALocalHit(t *testing.T) {
	var age atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(age.Load())) }
	store, err := cache.New(cache.Config{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
	service, stop := serve(t, source, store, evidence.Config{Now: now})
	defer stop()
	check := func() {
		if _, err := service.Check(context.Background(), commercial); err != nil {
			t.Fatal(err)
		}
	}
	check()
	for _, minutes := range []int{0, 6} {
		age.Store(int64(minutes) * int64(time.Minute))
		check()
		if got := testing.AllocsPerRun(1000, check); got > 0 {
			t.Errorf("after %d minutes: %v allocations, want none", minutes, got)
		}
	}
	if n := service.RefreshesScheduled(); n != 1 {
		t.Errorf("%d early refreshes are scheduled, want one", n)
	}
}
