package eligibility_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestDecideReportsNeededQualificationsThatNobodyWaitedForAsUnavailable(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	account := eligibility.Held{
		Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, FetchTime: now},
		Lifetime: eligibility.Lifetime{FreshUntil: now.Add(time.Minute), UsableUntil: now.Add(time.Minute)},
		Fresh:    true,
	}
	answer, err := eligibility.Decide(eligibility.Policy{}, eligibility.SegmentEducation, eligibility.OperationPurchase, account, eligibility.Held{}, now)
	if failure, ok := errors.AsType[*eligibility.Error](err); !ok || failure.Kind != eligibility.KindUnavailable || failure.RetryAfter <= 0 {
		t.Errorf("answer %+v, error %v; want an unavailable error with a time to retry", answer, err)
	}
}

// Every operation with every status under both policies: a review that exempts an
// order lets exactly three operations pass, without a qualification, and changes
// nothing else.
func TestDecideOverEveryOperation(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	life := eligibility.Lifetime{FreshUntil: now.Add(time.Minute), UsableUntil: now.Add(time.Minute)}
	passing := []eligibility.Operation{eligibility.OperationRenewal, eligibility.OperationSeatReduction, eligibility.OperationCancellation}
	for status := range eligibility.AccountStatusUnrecognized + 2 {
		account := eligibility.Held{Evidence: &eligibility.Evidence{Status: status, FetchTime: now}, Lifetime: life, Fresh: true}
		missing := eligibility.Held{Evidence: &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: now}, Lifetime: life, Fresh: true}
		for operation := range eligibility.OperationCancellation + 2 {
			for _, policy := range []eligibility.Policy{{}, {NotReadyAllowed: true}, {AllowReducing: true}, {NotReadyAllowed: true, AllowReducing: true}} {
				for segment := range eligibility.SegmentNonprofit + 1 {
					answer, err := eligibility.Decide(policy, segment, operation, account, missing, now)
					if err != nil {
						t.Fatal(err)
					}
					exempt := policy.AllowReducing && slices.Contains(passing, operation)
					passes := status == eligibility.AccountStatusAllowed || status == eligibility.AccountStatusNone ||
						status == eligibility.AccountStatusNotReady && policy.NotReadyAllowed ||
						status == eligibility.AccountStatusUnderReview && exempt
					want := passes && (exempt || segment == eligibility.SegmentCommercial)
					if got := answer.Decision == eligibility.DecisionAllowed; got != want {
						t.Errorf("status %d, %v, segment %d, %+v: %+v", status, operation, segment, policy, answer)
					}
					if given := answer.Reasons[0].Code == eligibility.ReasonAccountReviewExempt; given != (exempt && status == eligibility.AccountStatusUnderReview) {
						t.Errorf("status %d, %v, %+v: %+v", status, operation, policy, answer.Reasons)
					}
				}
			}
		}
	}
}
