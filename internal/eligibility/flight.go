package eligibility

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// flightShards spreads the keys so that callers for different customers rarely
// meet in a lock.
const flightShards = 64

// flights lets concurrent callers share one fetch per key. A caller that needs
// evidence newer than the running fetch's start shares the next one, which
// starts when the running one ends: callers who insist on fresh evidence at
// once cost at most two fetches.
type flights struct {
	shards [flightShards]flightShard
}

type flightShard struct {
	mu    sync.Mutex
	slots map[Key]*slot // key → fetches under way; guarded by mu
}

type slot struct {
	running *flight
	next    *flight // nil unless somebody needs a later start
}

// flight is one fetch. Its fields but done are written before done is closed
// and read after.
type flight struct {
	done     chan struct{}
	urgent   chan struct{} // closed by the first caller who waits for this one customer
	isUrgent bool          // urgent is closed; guarded by the shard's mutex
	start    time.Time     // when it started; guarded by the shard's mutex until done
	evidence *Evidence
	call     Call
	err      error
}

// landed is the flight's done channel; nil, which blocks, where there is none.
func (f *flight) landed() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.done
}

func newFlights() *flights {
	f := new(flights)
	for i := range f.shards {
		f.shards[i].slots = make(map[Key]*slot)
	}
	return f
}

func (f *flights) shard(key Key) *flightShard {
	return &f.shards[key.CustomerID[15]%flightShards]
}

// lane says how urgent a fetch is.
type lane bool

const (
	// background is for batches and renewals.
	background lane = false
	// interactive is for callers who wait for one customer.
	interactive lane = true
)

// fetch returns a flight that starts, or started, no earlier than notBefore,
// which must not lie in the future. The flight outlives ctx, whose values it
// keeps. A flight in the background becomes urgent with the first interactive
// caller who joins it.
func (s *Service) fetch(ctx context.Context, key Key, notBefore time.Time, in lane) *flight {
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f := s.flightFor(ctx, shard, key, notBefore)
	if in == interactive && !f.isUrgent {
		f.isUrgent = true
		close(f.urgent)
	}
	return f
}

// flightFor finds or starts the flight. The shard's lock is held.
func (s *Service) flightFor(ctx context.Context, shard *flightShard, key Key, notBefore time.Time) *flight {
	under := shard.slots[key]
	if under == nil {
		under = &slot{running: newFlight()}
		under.running.start = s.now()
		shard.slots[key] = under
		s.fly(ctx, key, under.running)
		return under.running
	}
	if !under.running.start.Before(notBefore) {
		return under.running
	}
	if under.next == nil {
		under.next = newFlight()
	}
	return under.next
}

func newFlight() *flight { return &flight{done: make(chan struct{}), urgent: make(chan struct{})} }

// fly makes the fetch of f in the background, tells its waiters, hands over to
// the next flight for the key and then shares what was learnt. The caller holds
// the lock of the key's shard.
func (s *Service) fly(ctx context.Context, key Key, f *flight) {
	ctx = context.WithoutCancel(ctx)
	flying := s.spawn(func() {
		s.fetchFacet(ctx, key, f)
		if f.err != nil {
			close(f.done)
			s.handOver(ctx, key)
			return
		}
		usableUntil := s.ages.lifetimeOf(key, f.evidence, s.notReadyAllowed).usableUntil
		s.store.Keep(key, f.evidence, usableUntil)
		close(f.done)
		s.handOver(ctx, key)

		ctx, cancel := context.WithTimeout(ctx, shareTimeout)
		defer cancel()
		s.store.Share(ctx, key, f.evidence, usableUntil)
	})
	if !flying {
		f.err = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Err: errClosed}
		close(f.done)
		delete(s.flights.shard(key).slots, key)
	}
}

// errClosed is why nothing is fetched any more.
var errClosed = errors.New("service is shutting down")

// fetchFacet fills f. A panicking source is an internal error: nobody may wait
// forever for a flight that crashed.
func (s *Service) fetchFacet(ctx context.Context, key Key, f *flight) {
	defer func() {
		if r := recover(); r != nil {
			f.err = &Error{Kind: KindInternal, Err: fmt.Errorf("fetch %s: panic: %v", key.Facet, r)}
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	defer context.AfterFunc(s.open, cancel)()

	evidence, call, err := s.source.Fetch(ctx, Query{Key: key, Urgent: f.urgent})
	f.call = call
	if err != nil {
		f.err = err
		return
	}
	evidence.Facet = key.Facet
	evidence.FetchTime = f.start
	f.evidence = &evidence
}

// handOver starts the next flight for key, if anybody waits for one, or forgets
// the key.
func (s *Service) handOver(ctx context.Context, key Key) {
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	under := shard.slots[key]
	if under.next == nil {
		delete(shard.slots, key)
		return
	}
	under.running, under.next = under.next, nil
	under.running.start = s.now()
	s.fly(ctx, key, under.running)
}
