package api

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// A flood of requests without a valid caller is slowed down; a valid caller is not.
func TestAFloodOfRefusedRequestsIsSlowedDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		partners, err := NewPartners(map[string]*evidence.Service{"eu": new(evidence.Service)}, "")
		if err != nil {
			t.Fatal(err)
		}
		chain, err := New(partners, Config{Access: apitest.EachRight()})
		if err != nil {
			t.Fatal(err)
		}
		const flood = 10_000
		began := time.Now()
		took := make([]time.Duration, flood)
		var refused sync.WaitGroup
		for i := range flood {
			refused.Go(func() {
				_, err := chain.Begin(t.Context(), eligibilityv1.EligibilityService_CheckEligibility_FullMethodName)
				took[i] = time.Since(began)
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("%v", err)
				}
			})
		}
		synctest.Wait()
		if waiting := chain.paused.Load(); waiting != maxPaused {
			t.Errorf("%d requests wait, want %d", waiting, maxPaused)
		}
		refused.Wait()
		at, later := 0, 0
		for _, d := range took {
			switch {
			case d == 0:
				at++
			case d >= refusalPause && d <= 2*refusalPause:
				later++
			default:
				t.Errorf("a request was refused after %v", d)
			}
		}
		if later != maxPaused || at != flood-maxPaused {
			t.Errorf("%d refused at once, %d later", at, later)
		}
	})
}
