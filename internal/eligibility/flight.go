package eligibility

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
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
	rests map[Key]rest  // key → qualifications that failed lately; guarded by mu
}

// rest says that a facet failed and, where it is not needed, is not asked for
// again yet. It is no evidence: no decision rests on it.
type rest struct {
	until time.Time
	err   error
}

// maxRests bounds the rests of a shard; beyond, failures are asked for again.
const maxRests = 1024

type slot struct {
	running *flight
	next    *flight // nil unless somebody needs a later start
}

// flight is one fetch, by this replica or by another that it waits for. What it
// brought is written before done is closed and read after.
type flight struct {
	ctx    context.Context   //nolint:containedctx // its own life: the values of who asked for it first, without an end
	span   trace.Span        // its own, below that of who asked for it first
	asking trace.SpanContext // of who asked for it first

	done      chan struct{}
	priority  *Priority
	notBefore time.Time // its evidence is no older than that; guarded by the shard's mutex
	created   time.Time
	evidence  *Evidence
	tier      Tier // where the evidence is from
	call      Call
	err       error
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
		f.shards[i].rests = make(map[Key]rest)
	}
	return f
}

func (f *flights) shard(key Key) *flightShard {
	return &f.shards[key.CustomerID[15]%flightShards]
}

// fetch returns a flight whose fetch starts, or started, no earlier than
// notBefore, which must not lie in the future; nil if no fetch is under way and enough says
// that none is needed, since one has landed while the caller was on its way. The
// flight outlives ctx, whose values it keeps. It has the lane of its most urgent
// caller.
func (s *Service) fetch(ctx context.Context, key Key, notBefore time.Time, in Lane, enough func() bool) *flight {
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f := s.flightFor(ctx, shard, key, notBefore, in, enough)
	if f != nil {
		f.priority.Raise(in)
		f.joined(ctx)
	}
	return f
}

// flightFor finds or starts the flight. The shard's lock is held: what landed
// before is in the store, and what lands next still has its slot.
func (s *Service) flightFor(ctx context.Context, shard *flightShard, key Key, notBefore time.Time, in Lane, enough func() bool) *flight {
	under := shard.slots[key]
	if under == nil {
		if enough() {
			return nil
		}
		under = &slot{running: s.newFlight(ctx, key, in)}
		under.running.notBefore = notBefore
		shard.slots[key] = under
		s.fly(key, under.running)
		return under.running
	}
	if !under.running.notBefore.Before(notBefore) {
		s.metrics.joined.Inc()
		return under.running
	}
	if under.next == nil {
		under.next = s.newFlight(ctx, key, in)
	} else {
		s.metrics.joined.Inc()
	}
	if under.next.notBefore.Before(notBefore) {
		under.next.notBefore = notBefore
	}
	return under.next
}

// newFlight returns a flight that the caller of ctx asks for.
func (s *Service) newFlight(ctx context.Context, key Key, in Lane) *flight {
	f := &flight{
		done: make(chan struct{}), priority: NewPriority(in), created: s.now(),
		asking: trace.SpanContextFromContext(ctx),
	}
	f.ctx, f.span = startFetch(context.WithoutCancel(ctx), key)
	return f
}

// fly makes the fetch of f in the background, tells its waiters, hands over to
// the next flight for the key and then shares what was learnt. The caller holds
// the lock of the key's shard.
func (s *Service) fly(key Key, f *flight) {
	oldest := f.notBefore
	flying := s.spawn(func() {
		fetched, led := s.land(f.ctx, key, oldest, f)
		f.endSpan()
		close(f.done)
		s.handOver(key, f)
		if led {
			s.share(f.ctx, key, fetched, f.err)
		}
	})
	if !flying {
		f.err = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Err: errClosed}
		f.endSpan()
		close(f.done)
		delete(s.flights.shard(key).slots, key)
	}
}

// errClosed is why nothing is fetched any more.
var errClosed = errors.New("service is shutting down")

// land fills f: with what another replica fetches no earlier than oldest, or
// with what this one does, which then leads and has fetched that evidence, nil
// if it failed. A panic is an internal error: nobody may wait forever for a
// flight that crashed.
func (s *Service) land(ctx context.Context, key Key, oldest time.Time, f *flight) (fetched *Evidence, led bool) {
	defer func() {
		if r := recover(); r != nil {
			f.evidence, f.err = nil, s.panicked(r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	defer context.AfterFunc(s.open, cancel)()

	if s.landElsewhere(ctx, key, oldest, f) {
		s.metrics.shared.Inc()
		return nil, false
	}
	s.metrics.led.Inc()
	led = true
	started := s.begin(key, f)
	evidence, call, err := s.source.Fetch(ctx, Query{Key: key, Priority: f.priority})
	f.call, f.tier, f.err = call, TierPartnerCenter, err
	if err != nil {
		return nil, led
	}
	fetched = &evidence
	fetched.Facet = key.Facet
	fetched.FetchTime = started
	if f.evidence = s.newest(ctx, key, fetched); f.evidence == nil {
		f.err = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Call: call, Err: errSuperseded}
	}
	return fetched, led
}

// landElsewhere waits while another replica fetches, and reports whether that
// fills f.
func (s *Service) landElsewhere(ctx context.Context, key Key, oldest time.Time, f *flight) bool {
	for {
		lead := s.store.Lead(ctx, Claim{Key: key, NotBefore: oldest, Priority: f.priority})
		if lead.Evidence == nil {
			f.err = lead.Err
			return lead.Err != nil
		}
		// What lies there may have been fetched long ago.
		life := s.ages.lifetimeOf(key, lead.Evidence, s.notReadyAllowed)
		if s.now().Before(life.freshUntil) {
			f.evidence, f.tier = lead.Evidence, TierRedis
			return true
		}
		oldest = lead.Evidence.FetchTime.Add(1)
	}
}

// begin lets everybody join who has asked by now, and returns the time that the
// evidence will bear.
func (s *Service) begin(key Key, f *flight) time.Time {
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f.notBefore = s.now()
	return f.notBefore
}

// errSuperseded is why evidence that was just fetched is not used: another
// replica's fetch started later, and what it brought cannot be read here or is no
// longer usable.
var errSuperseded = errors.New("another replica knows newer evidence, which is out of reach or too old")

// newest keeps fetched in this process. Where another replica has announced a
// later fetch, it returns what that one brought; nil if it is out of reach.
func (s *Service) newest(ctx context.Context, key Key, fetched *Evidence) *Evidence {
	known := s.store.Keep(key, fetched)
	if known == nil {
		if known = s.store.Load(ctx, []Key{key})[0].Evidence; known == nil || !known.FetchTime.After(fetched.FetchTime) {
			return nil
		}
	}
	if known.FetchTime.After(fetched.FetchTime) {
		return known
	}
	return fetched
}

// share ends this replica's lead, off the callers' path: it writes what was
// fetched to the shared tier, or says why nothing was.
func (s *Service) share(ctx context.Context, key Key, fetched *Evidence, failure error) {
	defer func() {
		if r := recover(); r != nil {
			_ = s.panicked(r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	if s.open.Err() != nil {
		failure = nil // it concerns nobody else that this replica ends
	}
	if fetched == nil {
		s.store.Yield(ctx, key, failure)
		return
	}
	s.store.Share(ctx, key, fetched, s.ages.keepUntil(fetched))
}

// handOver starts the next flight for key, if anybody waits for one, or forgets
// the key; the outcome of the one that landed decides whether the key rests.
func (s *Service) handOver(key Key, landed *flight) {
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.rest(key, landed.err, s.now())
	under := shard.slots[key]
	if under.next == nil {
		delete(shard.slots, key)
		return
	}
	under.running, under.next = under.next, nil
	s.fly(key, under.running)
}

// rest notes the outcome of a fetch of qualifications. The shard's lock is held.
func (shard *flightShard) rest(key Key, err error, now time.Time) {
	if key.Facet != FacetQualifications {
		return
	}
	if err == nil {
		delete(shard.rests, key)
		return
	}
	if len(shard.rests) >= maxRests {
		for other, r := range shard.rests {
			if !now.Before(r.until) {
				delete(shard.rests, other)
			}
		}
		if len(shard.rests) >= maxRests {
			return
		}
	}
	pause := restAfterFailure
	if known, ok := errors.AsType[*Error](err); ok && known.RetryAfter > 0 {
		pause = min(known.RetryAfter, maxRest)
	}
	shard.rests[key] = rest{until: now.Add(pause), err: err}
}

// restingBecause returns why the key is not asked for again yet, or nil.
func (f *flights) restingBecause(key Key, now time.Time) error {
	shard := f.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if r, rests := shard.rests[key]; rests && now.Before(r.until) {
		return r.err
	}
	return nil
}
