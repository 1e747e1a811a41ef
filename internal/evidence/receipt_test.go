package evidence_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// storages are how clients keep a time, with every rounding that is in use.
func storages() map[string]func(time.Time) time.Time {
	ceil := func(unit time.Duration) func(time.Time) time.Time {
		return func(t time.Time) time.Time { return t.Add(unit - 1).Truncate(unit) }
	}
	nearest := func(unit time.Duration) func(time.Time) time.Time {
		return func(t time.Time) time.Time { return t.Round(unit) }
	}
	return map[string]func(time.Time) time.Time{
		"milliseconds, rounded up":      ceil(time.Millisecond),
		"milliseconds, rounded down":    func(t time.Time) time.Time { return t.Truncate(time.Millisecond) },
		"milliseconds, rounded nearest": nearest(time.Millisecond),
		"microseconds, rounded up":      ceil(time.Microsecond),
		"microseconds, rounded nearest": nearest(time.Microsecond),
		"ticks of 100 ns, rounded up":   ceil(100 * time.Nanosecond),
		"seconds, rounded down":         func(t time.Time) time.Time { return t.Truncate(time.Second) },
	}
}

// However a client stores the receipt, it gets the evidence that it was shown.
func TestReceiptsSurviveTheStorageOfClients(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		start, began := time.Unix(1_800_000_000, int64(rapid.IntRange(0, 1e9-1).Draw(rt, "ns"))), time.Now()
		source, store := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}, newMemory()
		service, stop := serve(t, source, store, evidence.Config{Now: func() time.Time { return start.Add(time.Since(began)) }})
		defer stop()
		shown := mustCheck(t, service, education())
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		for name, stored := range storages() {
			req := education()
			req.MinEvidenceTime = stored(shown.EvidenceTime)
			answer, err := service.Check(t.Context(), req)
			if err != nil || !answer.EvidenceTime.Equal(shown.EvidenceTime) {
				rt.Fatalf("in %s: %v is refused the evidence of %v: %v", name, req.MinEvidenceTime, shown.EvidenceTime, err)
			}
		}
	})
}

// An age is never under-reported: the fetch time is rounded down.
func TestEvidenceTimeIsRoundedDownToMilliseconds(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		time.Sleep(1999 * time.Microsecond)
		started := time.Now()
		if answer := mustCheck(t, service, commercial); !answer.EvidenceTime.Equal(started.Truncate(time.Millisecond)) {
			t.Errorf("evidence time %v of a fetch that started at %v", answer.EvidenceTime, started)
		}
	})
}

// Rounding must not merge two fetches of one millisecond: the second one's answer
// counts.
func TestTwoFetchesOfAMillisecondAreTwo(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		req := commercial
		req.MaxAgeSet = true
		first := mustCheck(t, service, req)
		time.Sleep(100 * time.Microsecond)
		source.set(status(eligibility.AccountStatusNotAllowed), holding())
		second := mustCheck(t, service, req)
		if second.Decision != eligibility.DecisionBlocked || !second.EvidenceTime.After(first.EvidenceTime) {
			t.Errorf("%+v: want the second fetch's answer, dated after %v", second, first.EvidenceTime)
		}
		source.set(failing(eligibility.KindUnavailable), holding())
		req.MaxAge = time.Minute
		if kept := mustCheck(t, service, req); kept.Decision != eligibility.DecisionBlocked {
			t.Error("the first fetch's answer was kept")
		}
	})
}

// A bound within the current millisecond is met by a fetch of the next one.
func TestMinEvidenceTimeOfThisVeryMomentIsMet(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory) {
		source.set(status(eligibility.AccountStatusAllowed).after(50*time.Millisecond), holding().after(50*time.Millisecond))
		for range 20 {
			time.Sleep(1234567 * time.Nanosecond)
			req := commercial
			req.MinEvidenceTime = time.Now()
			if answer := mustCheck(t, service, req); answer.EvidenceTime.Before(req.MinEvidenceTime) || answer.Stale {
				t.Errorf("evidence of %v for %v", answer.EvidenceTime, req.MinEvidenceTime)
			}
		}
	})
}

// Callers of one millisecond share as callers of one second do: the fetch under
// way when they arrive is not theirs, and the next one is for all of them.
func TestFreshCallersWithinAMillisecondCostTwoFetches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := make(chan time.Time, 100)
		source := fetchFunc(func(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
			query.Started()
			if query.Facet == eligibility.FacetAccount {
				began <- time.Now()
			}
			time.Sleep(300 * time.Microsecond)
			return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{}, nil
		})
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		defer stop()
		req := commercial
		req.MaxAgeSet = true
		var callers sync.WaitGroup
		for range 29 {
			callers.Go(func() { mustCheck(t, service, req) })
			time.Sleep(10 * time.Microsecond)
		}
		last := time.Now().Add(-10 * time.Microsecond)
		callers.Wait()
		close(began)
		var fetches []time.Time
		for at := range began {
			fetches = append(fetches, at)
		}
		if len(fetches) != 2 || fetches[1].Before(last) {
			t.Errorf("fetches at %v, want two, the second after %v", fetches, last)
		}
	})
}
