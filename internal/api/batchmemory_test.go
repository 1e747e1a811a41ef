package api_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestBatchesShareNoAnswers asks batches of many sizes, with faulty items, at the same
// time, and compares each result with the single answer to its question. Batches that are
// refused come between them.
func TestBatchesShareNoAnswers(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Absent(eligibility.AbsenceNotFound), API: api.Config{MaxConcurrent: 1000}})
	now := time.Now().Add(-time.Second)
	const customers = 60
	questions := make([]*eligibilityv1.CheckEligibilityRequest, customers)
	want := make([]*eligibilityv1.BatchCheckEligibilityResult, customers)
	for i := range customers {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		questions[i] = apitest.Ask(id)
		evidence := eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", CorrelationID: id}
		switch i % 5 {
		case 1:
			evidence.Status, evidence.StatusText = eligibility.AccountStatusNotAllowed, "NotAllowed"
		case 2:
			questions[i].CustomerId = "no GUID"
		case 3: // not known to Partner Center
			continue
		}
		run.Store.Hold(id, eligibility.FacetAccount, evidence, now)
		run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, now)
	}
	ask := func(of []*eligibilityv1.CheckEligibilityRequest) []*eligibilityv1.BatchCheckEligibilityResult {
		resp, err := run.Client.BatchCheckEligibility(t.Context(), &eligibilityv1.BatchCheckEligibilityRequest{Requests: of})
		if err != nil {
			t.Error(err)
		}
		return resp.GetResults()
	}
	for i := range questions {
		want[i] = ask(questions[i : i+1])[0]
	}
	ignored := protocmp.IgnoreFields(&eligibilityv1.BatchCheckEligibilityError{}, "message") // has the place
	var asking sync.WaitGroup
	for worker := range 8 {
		asking.Go(func() {
			for round := range 20 {
				if round%4 == 0 {
					refused := &eligibilityv1.BatchCheckEligibilityRequest{Requests: slices.Repeat(questions[:1], api.MaxBatch+1)}
					if _, err := run.Client.BatchCheckEligibility(t.Context(), refused); status.Code(err) != codes.InvalidArgument {
						t.Error(err)
					}
				}
				from := (worker*7 + round*3) % customers
				to := from + (round*11+worker)%(customers-from) + 1
				if diff := cmp.Diff(want[from:to], ask(questions[from:to]), protocmp.Transform(), ignored); diff != "" {
					t.Errorf("questions %d to %d (-want +got):\n%s", from, to, diff)
					return
				}
			}
		})
	}
	asking.Wait()
}
