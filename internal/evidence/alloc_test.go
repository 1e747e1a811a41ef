//go:build !race

package evidence_test

import (
	"context"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// TestAllocationsOfALocalHit holds a question that the local tier answers to its
// list of reasons. The race detector allocates, so it is built without.
func TestAllocationsOfALocalHit(t *testing.T) {
	store, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
	service, stop := serve(t, source, store, evidence.Config{})
	defer stop()
	if _, err := service.Check(context.Background(), commercial); err != nil {
		t.Fatal(err)
	}
	got := testing.AllocsPerRun(1000, func() {
		if _, err := service.Check(context.Background(), commercial); err != nil {
			t.Fatal(err)
		}
	})
	if got > 1 {
		t.Errorf("%v allocations, want one", got)
	}
}
