package main

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// day is what is simulated.
type day struct {
	name            string
	customers       int
	exponent        float64 // of the Zipf law
	checksPerSecond float64 // mean over the day
	replicas        int
	shared          bool // they share a Redis
	budgetPerMinute int  // of each replica; 0 is none
	ages            eligibility.Ages
}

// minute is what happened in one.
type minute struct{ checks, waited, stale, failed, calls, reads int }

func (m *minute) add(other minute) {
	m.checks += other.checks
	m.waited += other.waited
	m.stale += other.stale
	m.failed += other.failed
	m.calls += other.calls
	m.reads += other.reads
}

// clock is the simulated time.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

// fleet is the replicas of a day, made of the service's own parts.
type fleet struct {
	clock    *clock
	calls    atomic.Int64
	shared   *sharedTier // nil where they share none
	services []*eligibility.Service
}

// newFleet builds the replicas at midnight; storeOf gives each its store.
func newFleet(d day, storeOf func(*clock) (eligibility.Store, error)) (*fleet, error) {
	f := &fleet{clock: new(clock)}
	f.clock.ns.Store(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC).UnixNano())
	for range d.replicas {
		store, err := storeOf(f.clock)
		if err != nil {
			return nil, err
		}
		source := newPartnerCenter(f.clock.now, &f.calls, d.budgetPerMinute)
		service, err := eligibility.New(source, store, eligibility.Config{Ages: d.ages, Now: f.clock.now})
		if err != nil {
			return nil, err
		}
		f.services = append(f.services, service)
	}
	return f, nil
}

// simulate plays the day from its midnight on, after an hour that fills the
// caches and is not counted.
func simulate(d day, length time.Duration) ([]minute, error) {
	var shared *sharedTier
	fleet, err := newFleet(d, func(clock *clock) (eligibility.Store, error) {
		local, err := localStore(clock)
		if err != nil || !d.shared {
			return local, err
		}
		if shared == nil {
			shared = newSharedTier(clock.now)
		}
		return shared.join(local), nil
	})
	if err != nil {
		return nil, err
	}
	fleet.shared = shared
	return fleet.play(d, time.Hour, length), nil
}

// localStore is a local tier alone.
func localStore(clock *clock) (*cache.Store, error) { return cache.New(cache.Config{Now: clock.now}) }

// play asks as callers of that day do.
func (f *fleet) play(d day, warmUp, length time.Duration) []minute {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same day each time
	drawn := newCustomers(d.customers, d.exponent)
	minutes := make([]minute, int(length/time.Minute))
	idle := runtime.NumGoroutine()
	var passed time.Duration
	for {
		rate := d.checksPerSecond * curve(passed-warmUp)
		gap := time.Duration(random.ExpFloat64() / rate * float64(time.Second))
		passed += gap
		f.clock.advance(gap)
		if passed >= warmUp+length {
			return minutes
		}
		request := eligibility.Request{CustomerID: idOf(drawn.draw(random))}
		if random.IntN(5) == 0 {
			request.Segment = eligibility.SegmentEducation
		}
		happened := f.check(f.services[random.IntN(len(f.services))], request, idle)
		if passed >= warmUp {
			minutes[int((passed-warmUp)/time.Minute)].add(happened)
		}
	}
}

// check asks and lets all end that this began: renewals, and what goes to the
// shared tier. Time stands still meanwhile.
func (f *fleet) check(service *eligibility.Service, request eligibility.Request, idle int) minute {
	calls, reads := f.calls.Load(), f.reads()
	answer, err := service.Check(context.Background(), request)
	for limit := 0; runtime.NumGoroutine() > idle && limit < 1e6; limit++ {
		runtime.Gosched()
	}
	happened := minute{checks: 1, calls: int(f.calls.Load() - calls), reads: f.reads() - reads}
	switch {
	case err != nil:
		happened.failed = 1
	case answer.Stale:
		happened.stale = 1
	case answer.Tier == eligibility.TierPartnerCenter:
		happened.waited = 1
	}
	return happened
}

func (f *fleet) reads() int {
	if f.shared == nil {
		return 0
	}
	f.shared.mu.Lock()
	defer f.shared.mu.Unlock()
	return f.shared.reads
}
