package evidence_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// stepped is a clock that can be set back: its wall reading steps, its monotonic
// reading does not, as that of a real one. A bubble's own clock has only one.
type stepped struct {
	born time.Time
	back atomic.Int64 // seconds
}

func newStepped() *stepped { return &stepped{born: time.Now().Round(0)} }

func (s *stepped) now() time.Time {
	since := time.Now().Round(0).Sub(s.born)
	now := s.born.Add(since - time.Duration(s.back.Load())*time.Second)
	// The time package offers no way to choose both readings, so that its layout is
	// used: a flag, the seconds since 1885, the nanoseconds; then the monotonic ones.
	epoch := time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	words := (*[2]uint64)(unsafe.Pointer(&now))                                //nolint:gosec // see above
	words[0] = 1<<63 | uint64(now.Unix()-epoch)<<30 | uint64(now.Nanosecond()) //nolint:gosec // not negative
	words[1] = uint64(since) + 1                                               //nolint:gosec // not negative
	return now
}

// steppedBubble runs test on a service whose clock can be set back.
func steppedBubble(t *testing.T, test func(t *testing.T, service *evidence.Service, source *scripted, store *memory, clock *stepped)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source, store, clock := &scripted{}, newMemory(), newStepped()
		service, stop := serve(t, source, store, evidence.Config{Now: clock.now})
		defer stop()
		test(t, service, source, store, clock)
	})
}

func TestTheSteppedClockKeepsItsMonotonicReading(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		clock := newStepped()
		before := clock.now()
		if !before.Round(0).Equal(time.Now()) {
			t.Fatalf("it shows %v at %v", before, time.Now())
		}
		time.Sleep(1500 * time.Millisecond)
		clock.back.Store(3600)
		after := clock.now()
		if mono := after.Sub(before); mono != 1500*time.Millisecond {
			t.Errorf("%v by the monotonic clock", mono)
		}
		if wall := after.Round(0).Sub(before.Round(0)); wall != 1500*time.Millisecond-time.Hour {
			t.Errorf("%v by the wall clock", wall)
		}
	})
}

// A customer that is known from before the clock was set back is fetched again and
// answered, at once and from then on.
func TestAClockSetBackTurnsNoCustomerAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source, clock := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}, newStepped()
		store, err := cache.New(cache.Config{Now: clock.now})
		if err != nil {
			t.Fatal(err)
		}
		service, stop := serve(t, source, store, evidence.Config{Now: clock.now})
		defer stop()
		mustCheck(t, service, education())
		clock.back.Store(3600)
		source.set(status(eligibility.AccountStatusUnderReview), holding())
		for i := range 3 {
			answer := mustCheck(t, service, education())
			if answer.Stale || answer.Account.Status != eligibility.AccountStatusUnderReview || answer.EvidenceTime.After(clock.now()) {
				t.Errorf("check %d: %+v at %v", i, answer, clock.now())
			}
			time.Sleep(time.Second)
		}
		if n := source.count(eligibility.FacetAccount); n != 2 {
			t.Errorf("%d fetches, want one before and one after", n)
		}
	})
}

// A fetch that is in flight when the clock is set back answers, by the new clock.
func TestAFetchAnswersAlthoughTheClockIsSetBackMeanwhile(t *testing.T) {
	steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
		source.set(status(eligibility.AccountStatusAllowed).after(2*time.Second), holding())
		time.AfterFunc(time.Second, func() { clock.back.Store(3600) })
		for range 2 {
			answer := mustCheck(t, service, commercial)
			if age := clock.now().Round(0).Sub(answer.EvidenceTime); answer.Stale || age < 2*time.Second || age > 2*time.Second+time.Millisecond {
				t.Errorf("evidence is %v old: %+v", age, answer)
			}
		}
		if n := source.count(eligibility.FacetAccount); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

// Evidence does not become younger because the clock is set back: its age counts on
// by the monotonic clock.
func TestAClockSetBackNeverUnderReportsAnAge(t *testing.T) {
	steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		clock.back.Store(3600)
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		// The wall clock shows the time of the fetch again; the evidence is an hour old.
		time.Sleep(time.Hour)
		_, err := service.Check(t.Context(), commercial)
		wantKind(t, err, eligibility.KindUnavailable)
	})
}

// max_age is counted by both clocks.
func TestMaxAgeHoldsAlthoughTheClockIsSetBack(t *testing.T) {
	steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		time.Sleep(10 * time.Second)
		clock.back.Store(9) // the evidence seems to be a second old
		source.set(status(eligibility.AccountStatusNotAllowed), holding())
		req := commercial
		req.MaxAge, req.MaxAgeSet = 5*time.Second, true
		if answer := mustCheck(t, service, req); answer.Decision != eligibility.DecisionBlocked {
			t.Error("evidence of ten seconds answers for max_age=5s")
		}
	})
}

// A caller who joins after the clock was set back does not get a fetch that began
// before it asked.
func TestFreshEvidenceIsFreshAlthoughTheClockIsSetBack(t *testing.T) {
	steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
		source.set(status(eligibility.AccountStatusAllowed).after(2*time.Second), holding())
		go func() { _, _ = service.Check(t.Context(), commercial) }()
		time.Sleep(time.Second)
		clock.back.Store(3600)
		source.set(status(eligibility.AccountStatusNotAllowed), holding())
		req := commercial
		req.MaxAgeSet = true
		if answer := mustCheck(t, service, req); answer.Decision != eligibility.DecisionBlocked {
			t.Error("max_age=0s was answered by a fetch from before the question")
		}
	})
}

// Qualifications that failed are fetched again after their cool-down, although the clock
// shows an earlier time.
func TestARestEndsAlthoughTheClockIsSetBack(t *testing.T) {
	steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
		source.set(status(eligibility.AccountStatusAllowed), failing(eligibility.KindUnavailable))
		mustCheck(t, service, commercial)
		clock.back.Store(3600)
		time.Sleep(time.Minute)
		source.set(status(eligibility.AccountStatusAllowed), holding())
		mustCheck(t, service, commercial)
		synctest.Wait()
		if n := source.count(eligibility.FacetQualifications); n != 2 {
			t.Errorf("%d fetches of the qualifications, want 2", n)
		}
	})
}

// Nobody waits for a moment that is an hour away because the clock was set back.
func TestNoCheckWaitsForTheClockToCatchUp(t *testing.T) {
	steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
		source.set(status(eligibility.AccountStatusAllowed), holding())
		req := commercial
		req.MinEvidenceTime = clock.now().Round(0)
		clock.back.Store(3600)
		began := time.Now()
		_, err := service.Check(t.Context(), req)
		wantKind(t, err, eligibility.KindUnavailable)
		if took := time.Since(began); took > time.Second {
			t.Errorf("waited %v for a moment that is an hour away", took)
		}
	})
}

// The age of fetches is measured by the monotonic clock: no alert because the wall
// clock was set.
func TestTheOldestFetchIsMeasuredByTheMonotonicClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry, source, clock := prometheus.NewRegistry(), &scripted{}, newStepped()
		service, stop := serve(t, source, newMemory(), evidence.Config{Now: clock.now, Registerer: registry})
		defer stop()
		source.set(status(eligibility.AccountStatusAllowed).after(5*time.Second), holding())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		clock.back.Store(3600)
		_, _ = service.Check(ctx, commercial)
		clock.back.Store(0) // the wall clock goes forward by an hour
		if age := exported(t, registry)["eligibility_oldest_flight_seconds"]; age != 1 {
			t.Errorf("%v s, want 1", age)
		}
	})
}
