package evidence_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// An impatient caller is not an outage, under either policy; a fetch that exceeds
// the service's own limit is.
func TestACallersDeadlineIsNoFailureOfPartnerCenter(t *testing.T) {
	t.Parallel()
	for _, block := range []bool{false, true} {
		bubbleOf(t, evidence.Config{Policy: eligibility.Policy{BlockUndecidable: block}}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
			source.set(status(eligibility.AccountStatusAllowed).after(time.Hour), holding().after(time.Hour))
			within := func(patience time.Duration, req eligibility.Request) (eligibility.Answer, error) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				return service.Check(ctx, req)
			}
			for _, patience := range []time.Duration{0, 10 * time.Millisecond, 2 * time.Second} {
				_, err := within(patience, commercial)
				wantKind(t, err, eligibility.KindDeadlineExceeded)
				if wait := retryAfter(t, err); wait != time.Second {
					t.Errorf("retry after %v, want 1s", wait)
				}
			}
			if result := checkBatch(shortly(t), service, []eligibility.Request{commercial}); result[0].err == nil {
				t.Error("a batch answered without evidence")
			} else {
				wantKind(t, result[0].err, eligibility.KindDeadlineExceeded)
			}

			// The fetch's own limit of ten seconds ends it while the caller waits.
			answer, err := within(time.Minute, eligibility.Request{CustomerID: eligibility.CustomerID{9}})
			if block {
				if err != nil || !answer.Reasons[0].Blocks {
					t.Errorf("%+v, %v: want a block", answer, err)
				}
			} else {
				wantKind(t, err, eligibility.KindUnavailable)
			}

			// Usable evidence is better than the error.
			store.held[accountKey] = elsewhere(eligibility.AccountStatusAllowed, time.Now().Add(-30*time.Minute))
			if answer, err := within(time.Second, commercial); err != nil || !answer.Stale {
				t.Errorf("%+v, %v: want stale evidence", answer, err)
			}
		})
	}
}

func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A batch returns what it has: what is decided stays decided, although it took most
// of the deadline, and what is open has an error of its own.
func TestABatchReturnsWhatItHasWhenItsDeadlineEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newMemory()
		var mu sync.Mutex
		next := time.Now()
		permit := func() <-chan time.Time { // six a second
			mu.Lock()
			defer mu.Unlock()
			next = next.Add(time.Second / 6)
			return time.After(time.Until(next))
		}
		source := fetchFunc(func(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
			if query.Facet == eligibility.FacetAccount {
				select {
				case <-permit():
				case <-ctx.Done():
					return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: time.Second}
				}
				query.Started()
				return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{Attempts: 1}, nil
			}
			<-ctx.Done() // no permit is spare
			return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: time.Second}
		})
		service, stop := serve(t, source, store, evidence.Config{})
		defer stop()
		reqs := make([]eligibility.Request, 1000)
		for i := range reqs {
			reqs[i].CustomerID = eligibility.CustomerID{byte(i), byte(i >> 8)}
			if i%10 == 0 {
				store.shared[eligibility.Key{CustomerID: reqs[i].CustomerID}] = elsewhere(eligibility.AccountStatusNotAllowed, time.Now())
			}
		}
		const deadline = 30 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		decided, longest := 0, time.Duration(0)
		for i, result := range checkBatch(ctx, service, reqs) {
			if result.err == nil {
				decided++
				continue
			}
			wantKind(t, result.err, eligibility.KindDeadlineExceeded)
			wait := retryAfter(t, result.err)
			if wait < longest {
				t.Errorf("item %d may be asked for before its turn: after %v, the one before it after %v", i, wait, longest)
			}
			longest = wait
		}
		if ctx.Err() != nil {
			t.Error("the batch left no time to send its answer")
		}
		if decided < 100+170 || decided > 100+181 {
			t.Errorf("%d decided, want the 100 of the shared tier and six a second", decided)
		}
		// 720 are open at six a second.
		if longest < 115*time.Second || longest > 125*time.Second {
			t.Errorf("the last one is to wait for %v, want two minutes", longest)
		}
	})
}

// Evidence that arrives while a batch waits for other customers counts at its end.
func TestABatchDecidesAtItsEnd(t *testing.T) {
	bubble(t, evidence.Config{BatchConcurrency: 2}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding())
		reqs := []eligibility.Request{{CustomerID: customer}, {CustomerID: eligibility.CustomerID{9}}, {CustomerID: eligibility.CustomerID{10}}, {CustomerID: eligibility.CustomerID{11}}, {CustomerID: eligibility.CustomerID{12}}}
		time.AfterFunc(2500*time.Millisecond, func() {
			store.mu.Lock()
			defer store.mu.Unlock()
			store.held[accountKey] = elsewhere(eligibility.AccountStatusNotAllowed, time.Now())
		})
		results := checkBatch(t.Context(), service, reqs)
		if results[0].err != nil || results[0].answer.Decision != eligibility.DecisionBlocked {
			t.Errorf("%+v, %v: want the block that was announced before the batch ended", results[0].answer, results[0].err)
		}
		for _, result := range results[1:] {
			if result.err != nil || result.answer.Decision != eligibility.DecisionAllowed || result.answer.Tier != eligibility.TierPartnerCenter {
				t.Errorf("%+v, %v", result.answer, result.err)
			}
		}
	})
}

// The cause of an undecided answer is what left it undecided, not another failure
// that it survived.
func TestAnUndecidedAnswerNamesItsCause(t *testing.T) {
	bubble(t, evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		store.held[accountKey] = elsewhere(eligibility.AccountStatusAllowed, time.Now().Add(-30*time.Minute))
		source.set(failing(eligibility.KindThrottled), failing(eligibility.KindInvalidResponse))
		answer := mustCheck(t, service, education())
		cause, ok := errors.AsType[*eligibility.Error](answer.Cause)
		if !ok || cause.Kind != eligibility.KindInvalidResponse || answer.Decision != eligibility.DecisionBlocked {
			t.Errorf("%+v: caused by %v, want the qualifications' failure", answer, answer.Cause)
		}
	})
}
