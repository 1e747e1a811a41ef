package evidence_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestBatchAnswersInOrderAndAsksOnceForARepeatedCustomer(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
		store.shared[eligibility.Key{CustomerID: eligibility.CustomerID{7}}] = &eligibility.Evidence{
			Status: eligibility.AccountStatusNotAllowed, FetchTime: time.Now(),
		}
		reqs := []eligibility.Request{
			{CustomerID: eligibility.CustomerID{1}},
			{CustomerID: eligibility.CustomerID{7}},
			{CustomerID: eligibility.CustomerID{1}, Segment: eligibility.SegmentEducation},
			{CustomerID: eligibility.CustomerID{1}},
		}
		results := checkBatch(context.Background(), service, reqs)
		for i, want := range []eligibility.Decision{
			eligibility.DecisionAllowed, eligibility.DecisionBlocked, eligibility.DecisionBlocked, eligibility.DecisionAllowed,
		} {
			if results[i].err != nil || results[i].answer.Decision != want {
				t.Errorf("result %d: %+v, want decision %d", i, results[i], want)
			}
		}
		if n := source.count(eligibility.FacetAccount); n != 1 {
			t.Errorf("%d account fetches, want 1", n)
		}
		if store.loads != 1 {
			t.Errorf("the shared tier was asked %d times, want once", store.loads)
		}
	})
}

func TestBatchAsksAboutFewCustomersAtOnceAndMarksTheRest(t *testing.T) {
	bubble(t, evidence.Config{BatchConcurrency: 10}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
		reqs := make([]eligibility.Request, 100)
		for i := range reqs {
			reqs[i].CustomerID = eligibility.CustomerID{byte(i)}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3500*time.Millisecond)
		defer cancel()
		began := time.Now()
		results := checkBatch(ctx, service, reqs)
		if took := time.Since(began); took > 3500*time.Millisecond || took < 3200*time.Millisecond {
			t.Errorf("the batch took %v, want most of its deadline", took)
		}
		allowed := 0
		for i, result := range results {
			if result.err == nil && result.answer.Decision == eligibility.DecisionAllowed {
				allowed++
				continue
			}
			wantKind(t, result.err, eligibility.KindDeadlineExceeded)
			// 30 in 3.25 s: the batch would have come to this one then.
			want := max(time.Duration(math.Ceil(float64(i-30)*3.25/30))*time.Second, time.Second)
			if got := retryAfter(t, result.err); got != want {
				t.Errorf("item %d: retry after %v, want %v", i, got, want)
			}
		}
		if allowed != 30 {
			t.Errorf("%d answered within the deadline, want 30", allowed)
		}
		synctest.Wait()
		if n := source.count(eligibility.FacetAccount); n != 40 {
			t.Errorf("%d fetches began, want 40: none after the deadline", n)
		}
	})
}

func retryAfter(t *testing.T, err error) time.Duration {
	t.Helper()
	known, ok := errors.AsType[*eligibility.Error](err)
	if !ok {
		t.Fatalf("error %v", err)
	}
	return known.RetryAfter
}

func TestBatchAnswersFromUsableEvidenceWhenTimeIsUp(t *testing.T) {
	bubble(t, evidence.Config{BatchConcurrency: 1}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		reqs := make([]eligibility.Request, 5)
		for i := range reqs {
			reqs[i].CustomerID = eligibility.CustomerID{byte(i)}
		}
		checkBatch(context.Background(), service, reqs)
		time.Sleep(20 * time.Minute)
		source.set(status(eligibility.AccountStatusAllowed).after(time.Minute), holding().after(time.Minute))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for i, result := range checkBatch(ctx, service, reqs) {
			if result.err != nil || !result.answer.Stale {
				t.Errorf("result %d: %+v, want the old evidence, flagged stale", i, result)
			}
		}
	})
}
