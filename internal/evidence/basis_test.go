package evidence_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// From its basis, each answer can be derived again: fetched, cached, stale, expired
// while the caller waited, or failed.
func TestTheBasisDerivesTheAnswerAgain(t *testing.T) {
	ages := eligibility.DefaultAges()
	ages.Allowed = eligibility.Age{Fresh: 10 * time.Second, Usable: time.Minute}
	bubble(t, evidence.Config{Ages: ages}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		check := func(name string, req eligibility.Request, patience time.Duration) {
			t.Helper()
			var basis eligibility.Basis
			req.Basis = &basis
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			answer, err := service.Check(ctx, req)
			wantSameAgain(t, name, req, basis, answer, err)
		}
		source.set(status(eligibility.AccountStatusAllowed), holding())
		check("fetched", commercial, time.Second)
		check("local", commercial, time.Second)
		check("for a segment", education(), time.Second)
		failing := outcome{err: &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: time.Minute}}
		source.set(failing, failing)
		time.Sleep(20 * time.Second)
		check("stale", commercial, time.Second)
		time.Sleep(30 * time.Second)
		source.set(status(eligibility.AccountStatusAllowed).after(30*time.Second), holding())
		check("expired meanwhile", commercial, 25*time.Second)
		other := commercial
		other.CustomerID[3]++
		check("out of time", other, time.Millisecond)
	})
}

// The questions of one group share a basis, which is that of the answer when it is
// handed over.
func TestABatchFillsTheBasisOfEachAnswer(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		mustCheck(t, service, commercial)
		var basis eligibility.Basis
		reqs := make([]eligibility.Request, 20)
		for i := range reqs {
			reqs[i].CustomerID = commercial.CustomerID
			if i > 0 {
				reqs[i].CustomerID[0] += byte(i / 2)
			}
			reqs[i].Segment = eligibility.Segment(i % 2)
			reqs[i].Basis = &basis
		}
		answered := 0
		service.CheckBatch(context.Background(), reqs, func(place int, answer *eligibility.Answer, err error) {
			answered++
			wantSameAgain(t, "batch", reqs[place], basis, *answer, err)
			basis = eligibility.Basis{}
		})
		if answered != len(reqs) {
			t.Errorf("%d answers, want %d", answered, len(reqs))
		}
	})
}

func wantSameAgain(t *testing.T, name string, req eligibility.Request, basis eligibility.Basis, answer eligibility.Answer, err error) {
	t.Helper()
	if basis.Time.IsZero() {
		t.Errorf("%s: the basis was not filled", name)
	}
	again, failed := eligibility.Decide(eligibility.Policy{}, req.Segment, req.Operation, basis.Account, basis.Qualifications, basis.Time)
	if !reflect.DeepEqual(again, answer) || !errors.Is(failed, err) {
		t.Errorf("%s:\n%+v, %v, again\n%+v, %v", name, answer, err, again, failed)
	}
}
