package evidence

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
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
	mu        sync.Mutex
	slots     map[eligibility.Key]*slot    // key → fetches under way; guarded by mu
	coolDowns map[eligibility.Key]coolDown // key → qualifications that failed lately; guarded by mu
}

// coolDown says that a facet failed and, where it is not needed, is not asked for
// again yet. It is no evidence: no decision rests on it.
type coolDown struct {
	until time.Time // on the monotonic clock
	err   error
}

// maxCoolDowns bounds the rests of a shard; beyond, failures are asked for again.
const maxCoolDowns = 1024

type slot struct {
	running *flight
	next    *flight // nil unless somebody needs a later start
}

// flight is one fetch, by this replica or by another that it waits for. Its
// result is written before done is closed and read after.
type flight struct {
	ctx    context.Context   //nolint:containedctx // its own life: the values of who asked for it first, without an end
	span   trace.Span        // its own, below that of who asked for it first
	asking trace.SpanContext // of who asked for it first

	done     chan struct{}
	sent     chan struct{} // closed when this replica is about to send the first request
	sending  sync.Once     // closes sent
	priority *Priority
	account  *flight   // the fetch of the account, if this one must not send before it
	bound    recency   // what it promises; guarded by the shard's mutex
	here     bool      // this replica makes the fetch itself; guarded by the shard's mutex
	created  time.Time // on the monotonic clock

	evidence *eligibility.Evidence
	tier     eligibility.Tier      // where the evidence is from
	rival    *eligibility.Evidence // dated later, and fetched by another replica; mostly nil
	lost     bool                  // another replica announced a later fetch, whose evidence is out of reach
	call     eligibility.Call
	err      error
}

// recency is how recent evidence must be, by who fetches it: no clock but this
// process's own is exact.
type recency struct {
	// started bounds the start of a fetch by this process. It may carry a
	// monotonic reading.
	started time.Time
	// dated bounds the FetchTime of a fetch by another replica.
	dated time.Time
}

// serves reports whether f satisfies bound. The shard's lock is held.
func (f *flight) serves(bound recency) bool {
	return !f.bound.started.Before(bound.started) && (f.here || !f.bound.dated.Before(bound.dated))
}

// extend makes f, which has not been started, satisfy bound as well. The shard's
// lock is held.
func (f *flight) extend(bound recency) {
	f.bound = recency{started: latest(f.bound.started, bound.started), dated: latest(f.bound.dated, bound.dated)}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// send notes that the first request is about to be sent.
func (f *flight) send() { f.sending.Do(func() { close(f.sent) }) }

// isSent reports whether the first request has left the queue.
func (f *flight) isSent() bool {
	select {
	case <-f.sent:
		return true
	default:
		return false
	}
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
		f.shards[i].slots = make(map[eligibility.Key]*slot)
		f.shards[i].coolDowns = make(map[eligibility.Key]coolDown)
	}
	return f
}

func (f *flights) shard(key eligibility.Key) *flightShard {
	return &f.shards[key.CustomerID[15]%flightShards]
}

// order is what a caller asks of a fetch.
type order struct {
	eligibility.Key

	bound recency // its times must not lie in the future by this process's clock
	level Level
	// account, if set, is the fetch that must have sent its request before this
	// one does, unless this one leaves LevelSpare.
	account *flight
	// enough reports whether no fetch is needed any more, since one has ended
	// while the caller was on its way.
	enough func() bool
}

// fetch returns a flight that satisfies the order, or nil if none is in flight and
// none is needed. The flight outlives ctx, whose values it keeps. It has the level
// of its most urgent caller.
func (s *Service) fetch(ctx context.Context, o order) *flight {
	shard := s.flights.shard(o.Key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f := s.flightFor(ctx, shard, o)
	if f != nil {
		f.priority.Raise(o.level)
		f.joined(ctx)
	}
	return f
}

// flightFor finds or starts the flight. The shard's lock is held: what landed
// before is in the store, and what lands next still has its slot.
func (s *Service) flightFor(ctx context.Context, shard *flightShard, o order) *flight {
	under := shard.slots[o.Key]
	if under == nil {
		if o.enough() {
			return nil
		}
		under = &slot{running: s.newFlight(ctx, o)}
		shard.slots[o.Key] = under
		s.fly(o.Key, under.running)
		return under.running
	}
	if under.running.serves(o.bound) {
		s.metrics.joined.Inc()
		return under.running
	}
	if under.next == nil {
		under.next = s.newFlight(ctx, o)
	} else {
		s.metrics.joined.Inc()
		under.next.extend(o.bound)
	}
	return under.next
}

// newFlight returns a flight that the caller of ctx asks for.
func (s *Service) newFlight(ctx context.Context, o order) *flight {
	f := &flight{
		done: make(chan struct{}), sent: make(chan struct{}), priority: NewPriority(o.level),
		account: o.account, bound: o.bound, created: time.Now(), asking: trace.SpanContextFromContext(ctx),
	}
	f.ctx, f.span = startFetch(context.WithoutCancel(ctx), o.Key)
	return f
}

// fly makes the fetch of f in the background, tells its waiters, hands over to
// the next flight for the key and then shares what was learnt. The caller holds
// the lock of the key's shard.
func (s *Service) fly(key eligibility.Key, f *flight) {
	oldest := f.bound.dated
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
		f.err = closedError(f.call)
		f.endSpan()
		close(f.done)
		delete(s.flights.shard(key).slots, key)
	}
}

// errClosed is why nothing is fetched any more.
var errClosed = errors.New("service is shutting down")

// closedError is the error of a fetch that the shutdown ended. Partner Center did
// not fail, so it is not KindUnavailable.
func closedError(call eligibility.Call) error {
	return &eligibility.Error{Kind: eligibility.KindOverloaded, RetryAfter: leftEarlyRetry, Call: call, Err: errClosed}
}

// land fills f: with what another replica fetches no earlier than oldest, or
// with what this one does, which then leads and has fetched that evidence, nil
// if it failed. A panic is an internal error: nobody may wait forever for a
// flight that crashed.
func (s *Service) land(ctx context.Context, key eligibility.Key, oldest time.Time, f *flight) (fetched *eligibility.Evidence, led bool) {
	defer func() {
		switch r := recover(); {
		case r != nil:
			f.evidence, f.err = nil, s.panicked(r)
		case f.err != nil && s.open.Err() != nil:
			f.err = closedError(f.call)
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
	f.letAccountSend(ctx)
	started := s.begin(ctx, key, f)
	began := time.Now()
	evidence, call, err := s.source.Fetch(ctx, Query{Key: key, Priority: f.priority, Started: f.send})
	f.call, f.tier, f.err = call, eligibility.TierPartnerCenter, err
	if err != nil {
		return nil, led
	}
	fetched = &evidence
	fetched.Facet = key.Facet
	fetched.SetFetchTime(s.startedBy(started, time.Since(began)))
	f.evidence = fetched
	f.rival, f.lost = s.later(ctx, key, fetched)
	return fetched, led
}

// startedBy returns when a fetch started by the clock as it is now, if the clock
// was set back since: a time ahead of the clock would not be accepted.
func (s *Service) startedBy(started time.Time, elapsed time.Duration) time.Time {
	if start := s.now().Add(-elapsed); started.Round(0).After(start.Add(eligibility.ClockTolerance)) {
		return start
	}
	return started
}

// landElsewhere waits while another replica fetches, and reports whether that
// fills f.
func (s *Service) landElsewhere(ctx context.Context, key eligibility.Key, oldest time.Time, f *flight) bool {
	for {
		lead := s.store.Acquire(ctx, Claim{Key: key, NotBefore: oldest, Priority: f.priority})
		if lead.Evidence == nil {
			f.err = lead.Err
			return lead.Err != nil
		}
		// It may have been fetched long ago.
		now := s.now()
		if now.Before(s.ages.LifetimeOf(key, lead.Evidence, s.policy, now).FreshUntil) {
			f.evidence, f.tier = lead.Evidence, eligibility.TierRedis
			return true
		}
		oldest = lead.Evidence.FetchTime.Add(1)
	}
}

// letAccountSend waits until the account's fetch has sent its request or has
// ended, so that a permit that is left goes to the account. It does not wait once
// a decision needs f.
func (f *flight) letAccountSend(ctx context.Context) {
	for f.account != nil {
		level, raised := f.priority.Watch()
		if level > LevelSpare {
			return
		}
		select {
		case <-f.account.sent:
			return
		case <-f.account.done:
			return
		case <-ctx.Done():
			return
		case <-raised:
		}
	}
}

// begin lets everybody join who has asked by now, and returns the time at which
// the fetch starts. It is in a later millisecond than the evidence held, as two
// fetches of one millisecond would count as one.
func (s *Service) begin(ctx context.Context, key eligibility.Key, f *flight) time.Time {
	now := s.now()
	if held := s.store.Peek(key, now).Evidence; held != nil && held.FetchTime.Equal(now.Truncate(time.Millisecond)) {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f.bound.started, f.here = s.now(), true
	return f.bound.started
}

// later returns the evidence that another replica has fetched after evidence, by
// its date, and keeps evidence in this process if there is none. lost reports that
// there is some, which is out of reach.
func (s *Service) later(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence) (later *eligibility.Evidence, lost bool) {
	known := s.store.Put(key, evidence)
	if known == nil {
		known = s.store.Load(ctx, []eligibility.Key{key})[0].Evidence
		lost = known == nil || !known.FetchTime.After(evidence.FetchTime)
	}
	if lost || !known.FetchTime.After(evidence.FetchTime) {
		return nil, lost
	}
	return known, false
}

// share ends this replica's lead, off the callers' path: it writes what was
// fetched to the shared tier, or says why nothing was.
func (s *Service) share(ctx context.Context, key eligibility.Key, fetched *eligibility.Evidence, failure error) {
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
		s.store.Release(ctx, key, failure)
		return
	}
	s.store.Share(ctx, key, fetched, s.ages.KeepUntil(fetched))
}

// handOver starts the next flight for key, if anybody waits for one, or forgets
// the key; the outcome of the one that landed decides whether the key rests.
func (s *Service) handOver(key eligibility.Key, landed *flight) {
	shard := s.flights.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	shard.recordOutcome(key, landed.err, s.now())
	under := shard.slots[key]
	if under.next == nil {
		delete(shard.slots, key)
		return
	}
	under.running, under.next = under.next, nil
	s.fly(key, under.running)
}

// recordOutcome notes the outcome of a fetch of qualifications. The shard's lock is held.
func (shard *flightShard) recordOutcome(key eligibility.Key, err error, now time.Time) {
	if key.Facet != eligibility.FacetQualifications {
		return
	}
	if err == nil {
		delete(shard.coolDowns, key)
		return
	}
	if len(shard.coolDowns) >= maxCoolDowns {
		for other, r := range shard.coolDowns {
			if !now.Before(r.until) {
				delete(shard.coolDowns, other)
			}
		}
		if len(shard.coolDowns) >= maxCoolDowns {
			return
		}
	}
	pause := coolDownDefault
	if known, ok := errors.AsType[*eligibility.Error](err); ok && known.RetryAfter > 0 {
		pause = min(known.RetryAfter, maxCoolDown)
	}
	shard.coolDowns[key] = coolDown{until: now.Add(pause), err: err}
}

// coolingDown returns why the key is not asked for again yet, or nil.
func (f *flights) coolingDown(key eligibility.Key, now time.Time) error {
	shard := f.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if r, cooling := shard.coolDowns[key]; cooling && now.Before(r.until) {
		return r.err
	}
	return nil
}
