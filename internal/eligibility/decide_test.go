package eligibility_test

import (
	"errors"
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
	answer, err := eligibility.Decide(eligibility.Policy{}, eligibility.SegmentEducation, account, eligibility.Held{}, now)
	if failure, ok := errors.AsType[*eligibility.Error](err); !ok || failure.Kind != eligibility.KindUnavailable || failure.RetryAfter <= 0 {
		t.Errorf("answer %+v, error %v; want an unavailable error with a time to retry", answer, err)
	}
}
