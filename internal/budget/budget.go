// Package budget admits the calls to Partner Center of one partner: within the
// budget that all replicas share, in the order of their lanes, and not in a pause
// that a 429 asked for.
//
// The state is one arrival time (GCRA), the adapted part of the configured budget
// and the pause, see [State]. It is shared through the port [Shared]. While that is
// unavailable, each replica continues with its part of the budget.
package budget

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// DefaultPerMinute is the budget if none is configured.
	DefaultPerMinute = 400
	// maxBooking is the longest wait of a call in LaneCheckout. A caller behind a
	// longer queue does better to come back.
	maxBooking = time.Second
	// minAttempt is the least time worth starting an attempt with.
	minAttempt = 250 * time.Millisecond
	// fetchLife is how long a fetch may wait for the budget, and reviewLife that of a
	// review, of which more are made as soon as there is room.
	fetchLife  = 10 * time.Second
	reviewLife = 2 * time.Second
	// longBooking is the wait after which a call looks again for a pause.
	longBooking = 50 * time.Millisecond
	// maxAsking bounds how many checkouts ask at the same time: more would wait for
	// each other's replies so long that the shared budget seemed to be out of reach.
	// It is fewer than the failures that open the circuit breaker of package cache, so
	// that a moment in which a busy process gets no reply does not.
	maxAsking = 4
	// recheck is the longest time for which a lane relies on the wait that the
	// shared budget has stated, and localRecheck that of the local share, after
	// which the shared budget may be back.
	recheck      = 5 * time.Second
	localRecheck = time.Second
	// checkoutRecheck is that of checkouts: as soon as a pause has to apply.
	checkoutRecheck = 100 * time.Millisecond
	// seenLately is how recent the last contact with the shared state must be for
	// its absence to be a loss. It is shorter than the state lives unused.
	seenLately = 10 * time.Minute
	// firstPenalty bounds what is added to the second Retry-After in a row;
	// to each further one up to twice as much.
	firstPenalty = 5 * time.Second
)

// Shared is the budget that replicas share.
type Shared interface {
	// Do makes one step on the shared state, atomically. It fails if the state is
	// out of reach, within a short time.
	Do(ctx context.Context, step Step) (Reply, error)
	// Announce records this replica and returns the fleet of now.
	Announce(ctx context.Context, replica Replica) (Fleet, error)
}

// Config tunes a [Budget].
type Config struct {
	// PerMinute is how many calls a minute all replicas that share Shared may make
	// together. Zero means DefaultPerMinute.
	PerMinute int
	// ReviewShare is the part of the budget in force that calls in LaneReview may
	// have; 0 is all.
	ReviewShare float64
	// Shared is the budget that replicas share; nil means that this process has the
	// budget alone.
	Shared Shared
	// Replica is how this process announces itself to the others.
	Replica Replica
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Registerer registers the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Budget admits the calls to Partner Center of one partner. It is safe for
// concurrent use.
type Budget struct {
	perMinute float64
	reviews   float64 // Config.ReviewShare
	shared    Shared  // nil without
	replica   Replica
	metrics   *metrics
	lanes     [evidence.Lanes]queue
	asking    chan struct{} // has room for the checkouts that ask
	now       func() time.Time

	mu      sync.Mutex
	origin  time.Time // of the times below; guarded by mu
	last    float64   // the last reading of the clock; guarded by mu
	strikes int       // 429s in a row, those within one pause counted once; guarded by mu
	// share is this replica's part of the budget: all of it without Shared.
	// Every call is charged to it, so that it is known when it is needed. It has
	// the factor and the pause that are known here. Guarded by mu.
	share State
	// guard is the configured budget, which this process alone never exceeds,
	// whatever Shared admits. Guarded by mu.
	guard State
	fleet Fleet // in the last minute of contact; guarded by mu
	// announced is when fleet was last known; zero: never. Guarded by mu.
	announced time.Time
	alone     bool    // Shared was out of reach when last asked; guarded by mu
	contact   float64 // when the shared state was last seen; 0: never; guarded by mu
	unstored  bool    // Shared does not have the pause; guarded by mu
	seen      Reply   // the last one; guarded by mu
	seenAt    float64 // guarded by mu
}

// queue makes the calls of a lane wait in order. One of them asks; the others wait
// for its place. Checkouts wait for places that they have booked, and have no head.
type queue struct {
	head    chan struct{} // has room for the one that asks
	waiting atomic.Int32  // calls in the queue, the head included
	// No call of the lane can be made before ready, as far as is known. That holds until
	// ask. Guarded by the budget's mu.
	ready, ask float64
}

// New returns a Budget. It fails only if a metric's name is taken.
func New(cfg Config) (*Budget, error) {
	if cfg.PerMinute == 0 {
		cfg.PerMinute = DefaultPerMinute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Budget{
		perMinute: float64(cfg.PerMinute), reviews: cfg.ReviewShare, shared: cfg.Shared, replica: cfg.Replica, now: cfg.Now, origin: cfg.Now(),
		share: State{window: window}, guard: State{window: guardWindow}, fleet: Fleet{Size: 1, Replicas: []Replica{cfg.Replica}},
		asking: make(chan struct{}, maxAsking),
	}
	for i := range b.lanes {
		b.lanes[i].head = make(chan struct{}, 1)
	}
	b.seen = b.share.Do(0, Step{PerMinute: b.perMinute})
	b.guard.Do(0, Step{PerMinute: b.perMinute})
	var err error
	b.metrics, err = newMetrics(cfg.Registerer, b)
	return b, err
}

// Admission is the result of [Budget.Take].
type Admission struct {
	// Granted reports that the call may be made now.
	Granted bool
	// Paused reports that a pause is the reason why not.
	Paused bool
	// Wait is how long until the call may be granted.
	Wait time.Duration
	// Lane is the lane in which the call was granted or refused.
	Lane evidence.Lane
	// Waited reports that the budget delayed the call or refused it.
	Waited bool
}

// Take takes one call. In LaneCheckout it waits for up to a second. In a lower
// lane it waits as long as ctx, or until the lane rises, unless atOnce is set.
func (b *Budget) Take(ctx context.Context, priority *evidence.Priority, atOnce bool) Admission {
	began := time.Now()
	admission := b.take(ctx, priority, atOnce)
	b.metrics.took(admission, time.Since(began))
	return admission
}

func (b *Budget) take(ctx context.Context, priority *evidence.Priority, atOnce bool) Admission {
	waited := false
	for {
		lane, raised := priority.Watch()
		var admission Admission
		done := true
		switch {
		case atOnce:
			admission = b.ask(ctx, lane, 0)
		case lane == evidence.LaneCheckout:
			admission = b.book(ctx)
		default:
			admission, done = b.queue(ctx, lane, raised)
		}
		admission.Waited = admission.Waited || waited
		if done {
			return admission
		}
		waited = true
	}
}

// book takes one call in LaneCheckout and waits for its place.
func (b *Budget) book(ctx context.Context) Admission {
	q := &b.lanes[evidence.LaneCheckout]
	q.waiting.Add(1)
	defer q.waiting.Add(-1)
	longest := maxBooking
	if deadline, limited := ctx.Deadline(); limited {
		longest = min(longest, time.Until(deadline)-minAttempt)
	}
	return b.ask(ctx, evidence.LaneCheckout, max(longest, 0))
}

// queue takes one call in a lower lane. done is false if the lane rises first.
func (b *Budget) queue(ctx context.Context, lane evidence.Lane, raised <-chan struct{}) (a Admission, done bool) {
	q := &b.lanes[lane]
	q.waiting.Add(1)
	defer q.waiting.Add(-1)
	waited := false
	select {
	case q.head <- struct{}{}:
	default:
		waited = true
		select {
		case q.head <- struct{}{}:
		case <-raised:
			return a, false
		case <-ctx.Done():
			return Admission{Lane: lane, Waited: true, Wait: b.laneWait(lane) + b.queueWait(lane)}, true
		}
	}
	defer func() { <-q.head }()
	for {
		a = b.askInTurn(ctx, lane)
		a.Waited = a.Waited || waited
		if a.Granted || a.Paused || !TimeFor(ctx, a.Wait) {
			return a, true
		}
		waited = true
		if !sleep(ctx, min(a.Wait, b.nextAsk(lane)), raised) && ctx.Err() == nil {
			return a, false
		}
	}
}

// askInTurn is ask, unless the lane's last refusal still holds.
func (b *Budget) askInTurn(ctx context.Context, lane evidence.Lane) Admission {
	if b.nextAsk(lane) > 0 {
		if paused := b.Paused(); paused > 0 {
			return Admission{Lane: lane, Paused: true, Wait: paused}
		}
		return Admission{Lane: lane, Waited: true, Wait: b.laneWait(lane)}
	}
	a := b.ask(ctx, lane, 0)
	b.mu.Lock()
	defer b.mu.Unlock()
	now, limit := b.time(), recheck
	if b.alone {
		limit = localRecheck
	}
	q := &b.lanes[lane]
	q.ready, q.ask = 0, 0
	if !a.Granted && !a.Paused {
		q.ready, q.ask = now+micros(a.Wait), now+micros(min(a.Wait, limit))
	}
	return a
}

// laneWait is how long the next call of the lane waits at least, as far as is known,
// and nextAsk how long until it asks again.
func (b *Budget) laneWait(lane evidence.Lane) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(duration(b.lanes[lane].ready-b.time()), time.Millisecond)
}

// queueWait is how long the calls that wait in a lane will take.
func (b *Budget) queueWait(lane evidence.Lane) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return duration(float64(b.lanes[lane].waiting.Load()) * b.limits(b.seen).interval)
}

func (b *Budget) nextAsk(lane evidence.Lane) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(duration(b.lanes[lane].ask-b.time()), 0)
}

// ask asks once for one call, and waits for its place if that is no further ahead
// than longest.
func (b *Budget) ask(ctx context.Context, lane evidence.Lane, longest time.Duration) Admission {
	if ctx.Err() != nil {
		return Admission{Lane: lane, Waited: true, Wait: b.laneWait(lane)}
	}
	step := Step{Kind: KindTake, Lane: lane, Book: longest}
	var reply Reply
	if lane == evidence.LaneCheckout {
		reply = b.checkout(ctx, step)
	} else {
		reply = b.do(ctx, step)
	}
	waited := reply.Wait > 0
	if reply.Granted && waited {
		reply.Granted = sleep(ctx, reply.Wait, nil)
		if reply.Wait > longBooking { // a pause that has begun holds for the call, too
			reply.Paused = b.do(ctx, Step{Kind: KindLook}).Paused
		}
	}
	switch {
	case reply.Paused > 0:
		return Admission{Lane: lane, Paused: true, Wait: reply.Paused}
	case reply.Granted:
		return Admission{Lane: lane, Granted: true, Waited: waited}
	default:
		return Admission{Lane: lane, Waited: true, Wait: max(reply.Wait, time.Millisecond)}
	}
}

// checkout makes the step of one call in LaneCheckout, unless it is known that no
// place is free that is near enough. A rush makes few steps at the same time; the wait
// for a turn is part of the longest wait.
func (b *Budget) checkout(ctx context.Context, step Step) Reply {
	longest, began := cmp.Or(step.Book, maxBooking), time.Now()
	if reply, known := b.refusal(longest); known {
		return reply
	}
	if !b.awaitTurn(ctx, longest) {
		return Reply{Wait: b.laneWait(evidence.LaneCheckout)}
	}
	defer func() { <-b.asking }()
	waited := time.Since(began)
	if reply, known := b.refusal(longest - waited); known {
		return reply
	}
	step.Book = max(step.Book-waited, 0)
	reply := b.do(ctx, step)
	b.learn(reply)
	return reply
}

// awaitTurn waits until a checkout may ask. Then it has to leave asking afterwards.
func (b *Budget) awaitTurn(ctx context.Context, longest time.Duration) bool {
	late := time.NewTimer(longest)
	defer late.Stop()
	select {
	case b.asking <- struct{}{}:
		return true
	case <-late.C:
	case <-ctx.Done():
	}
	return false
}

// refusal is what a checkout gets without asking, if it is known that it would have
// to wait for longer than longest. Only the excess counts: the places within longest
// are taken by then, so no call that could be made is lost.
func (b *Budget) refusal(longest time.Duration) (reply Reply, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q, now := &b.lanes[evidence.LaneCheckout], b.time()
	switch {
	case q.ask <= now || q.ready-now <= micros(longest):
		return reply, false
	case b.share.pause > now:
		return Reply{Paused: duration(b.share.pause - now)}, true
	default:
		return Reply{Wait: duration(q.ready - now)}, true
	}
}

// learn records what the reply to a checkout shows of the next one.
func (b *Budget) learn(reply Reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, next := b.time(), micros(reply.Wait)
	if reply.Granted {
		l := b.limits(reply)
		next = micros(reply.Debt) + l.interval - l.depth
	}
	if q := &b.lanes[evidence.LaneCheckout]; q.ask <= now || q.ready < now+next {
		q.ready, q.ask = now+next, now+min(next, micros(checkoutRecheck))
	}
}

// do makes a step: on the shared state, or if that is out of reach on this
// replica's share.
func (b *Budget) do(ctx context.Context, step Step) Reply {
	step.PerMinute, step.ReviewShare = b.perMinute, b.reviews
	if b.shared == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		reply := b.share.Do(b.time(), step)
		b.see(reply)
		return reply
	}
	b.mu.Lock()
	paused := duration(max(b.share.pause-b.time(), 0))
	step.Seed = b.seed()
	b.mu.Unlock()
	if paused > 0 && step.Kind == KindTake {
		return Reply{Paused: paused}
	}
	reply, err := b.shared.Do(ctx, step)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.adopt(step, reply)
	case hasLeft(ctx): // Shared may have granted the call nevertheless
		return Reply{Factor: int(b.share.factor)}
	default:
		reply = b.doAlone(step)
	}
	b.see(reply)
	if reply.Granted {
		return b.guarded(reply, step)
	}
	return reply
}

// guarded delays or refuses what would exceed the configured budget by this
// process alone. b.mu is held.
func (b *Budget) guarded(reply Reply, step Step) Reply {
	longest := maxBooking
	if step.Lane == evidence.LaneCheckout {
		longest = step.Book
	}
	own := b.guard.at(b.time()+micros(reply.Wait), Step{
		Kind: KindTake, PerMinute: b.perMinute, Lane: evidence.LaneCheckout, Book: longest - reply.Wait,
	})
	reply.Granted = own.Granted
	reply.Wait += own.Wait
	return reply
}

// seed is what is known here of the shared state. b.mu is held.
func (b *Budget) seed() Seed {
	now := b.time()
	return Seed{
		Lost:   b.contact > 0 && now-b.contact < micros(seenLately),
		Factor: int(b.share.factor),
		Pause:  duration(max(b.share.pause-now, 0)),
	}
}

// adopt records the reply of Shared to step, and charges a call to the replica's
// share. b.mu is held.
func (b *Budget) adopt(step Step, reply Reply) {
	now := b.time()
	b.alone, b.contact = false, max(now, 1)
	b.share.factor = toFactor(reply.Factor)
	if reply.Paused > 0 {
		b.share.pause = max(b.share.pause, now+micros(min(reply.Paused, MaxPause)))
		b.share.arrival = max(b.share.arrival, b.share.pause+limitsOf(b.part(), b.share.factor, window).depth)
	}
	switch {
	case reply.Granted:
		b.share.Do(now, Step{Kind: KindCharge, PerMinute: b.part(), ReviewShare: b.reviews, Lane: step.Lane, Calls: 1})
	case step.Kind == KindCharge:
		b.share.Do(now, Step{Kind: KindCharge, PerMinute: b.part(), ReviewShare: b.reviews, Lane: step.Lane, Calls: step.Calls})
	}
}

// doAlone makes a step on this replica's share. b.mu is held.
func (b *Budget) doAlone(step Step) Reply {
	now := b.time()
	step.PerMinute = b.part()
	if !b.alone && b.fleet.Size > 1 {
		// The burst of a share is at least one call, so that of many shares would be
		// more than the budget's. They begin one after the other instead, at equal
		// distances.
		turn := (float64(b.fleet.Place) + 0.5) / float64(b.fleet.Size)
		if l := limitsOf(step.PerMinute, b.share.factor, window); l.depth == l.interval {
			b.share.arrival = max(b.share.arrival, now+math.Floor(turn*l.interval))
		}
		reviews := reviewLimits(step, b.share.factor, window)
		b.share.review = max(b.share.review, now+reviews.depth-reviews.interval+math.Floor(turn*reviews.interval))
	}
	b.alone = true
	return b.share.Do(now, step)
}

// part is this replica's part of the budget. b.mu is held.
func (b *Budget) part() float64 { return b.perMinute / float64(b.fleet.Size) }

// time is the time since the origin, in microseconds. It does not go back: if the
// clock was set back, it continues from the last reading, so that no wait gets
// longer. b.mu is held.
func (b *Budget) time() float64 {
	now := b.now()
	at := micros(now.Sub(b.origin))
	if at < b.last {
		b.origin, at = now.Add(-duration(b.last)), b.last
	}
	b.last = at
	return at
}

// Throttled starts the pause that a 429 asked for and returns how long it is. A
// running pause is never shortened. If a 429 comes right after a pause, waiting was
// not enough: then the pause grows exponentially, with full jitter.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/api-throttling-guidance
// (read 2026-11-21)
func (b *Budget) Throttled(ctx context.Context, asked time.Duration) time.Duration {
	b.mu.Lock()
	if b.share.pause <= b.time() {
		b.strikes++
		if b.strikes > 1 {
			asked = min(asked+rand.N(firstPenalty<<min(b.strikes-2, 7)), MaxPause) //nolint:gosec // spreads load, keeps no secret
		}
	}
	reply := b.share.Do(b.time(), Step{Kind: KindPause, PerMinute: b.part(), ReviewShare: b.reviews, Pause: asked})
	b.see(reply)
	b.unstored = b.shared != nil
	b.mu.Unlock()
	b.store(ctx)
	return reply.Paused
}

// store stores the known pause in Shared, unless that has it.
func (b *Budget) store(ctx context.Context) {
	b.mu.Lock()
	left := duration(max(b.share.pause-b.time(), 0))
	step := Step{Kind: KindPause, PerMinute: b.perMinute, ReviewShare: b.reviews, Pause: left, Seed: b.seed()}
	due := b.unstored && left > 0
	b.unstored = due
	b.mu.Unlock()
	if !due {
		return
	}
	reply, err := b.shared.Do(context.WithoutCancel(ctx), step)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unstored = false
	b.adopt(step, reply)
	b.see(reply)
}

// Answered records that Partner Center answered without throttling.
func (b *Budget) Answered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.share.pause <= b.time() {
		b.strikes = 0
	}
}

// Paused returns how much is left of the pause that is known here.
func (b *Budget) Paused() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return duration(max(b.share.pause-b.time(), 0))
}

// Charge takes calls that were already made from the budget.
func (b *Budget) Charge(ctx context.Context, calls int) {
	b.do(context.WithoutCancel(ctx), Step{Kind: KindCharge, Calls: calls})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.guard.at(b.time(), Step{Kind: KindCharge, PerMinute: b.perMinute, Calls: calls})
}

// Room returns how many calls of lane the budget would admit within the life of a
// fetch from now on. In LaneReview, of which all replicas make as many as they can,
// it is this replica's part of those of the next 2 seconds, rounded up.
func (b *Budget) Room(ctx context.Context, lane evidence.Lane) int {
	reply := b.do(ctx, Step{Kind: KindLook})
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.limits(reply)
	reserve := l.reserve(lane)
	if reserve+l.interval > l.depth {
		return 0
	}
	if lane != evidence.LaneReview {
		return l.room(fetchLife, reserve, reply.Debt)
	}
	room := min(l.room(reviewLife, reserve, reply.Debt), b.reviewLimits(reply).room(reviewLife, 0, reply.ReviewDebt))
	if b.alone {
		return room
	}
	return (room + b.fleet.Size - 1) / b.fleet.Size
}

// room is how many calls would be admitted within life that leave reserve, after debt.
func (l limits) room(life time.Duration, reserve float64, debt time.Duration) int {
	return max(int((micros(life)+l.depth-reserve-micros(debt))/l.interval), 0)
}

// see records the last reply for the metrics. b.mu is held.
func (b *Budget) see(reply Reply) { b.seen, b.seenAt = reply, b.time() }

// limitAndLevel are what the metrics show: the calls a minute that are allowed
// now, and those that could be made at once.
func (b *Budget) limitAndLevel() (limit, level float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, perMinute := b.limits(b.seen), b.perMinute
	if b.alone {
		perMinute = b.part()
	}
	return perMinute * toFactor(b.seen.Factor) / whole, max(l.depth-max(micros(b.seen.Debt)-(b.time()-b.seenAt), 0), 0) / l.interval
}

// limits are those by which reply was made. b.mu is held.
func (b *Budget) limits(reply Reply) limits {
	if b.alone {
		return limitsOf(b.part(), toFactor(reply.Factor), window)
	}
	return limitsOf(b.perMinute, toFactor(reply.Factor), window)
}

// reviewLimits are those of LaneReview by which reply was made. b.mu is held.
func (b *Budget) reviewLimits(reply Reply) limits {
	step := Step{PerMinute: b.perMinute, ReviewShare: b.reviews}
	if b.alone {
		step.PerMinute = b.part()
	}
	return reviewLimits(step, toFactor(reply.Factor), window)
}

// hasLeft reports whether the caller is no longer there, or out of time. A
// socket's deadline may be noticed before the context's own.
func hasLeft(ctx context.Context) bool {
	deadline, limited := ctx.Deadline()
	return ctx.Err() != nil || limited && time.Until(deadline) <= 0
}

// TimeFor reports whether ctx leaves time for an attempt after a delay.
func TimeFor(ctx context.Context, delay time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	deadline, bounded := ctx.Deadline()
	return !bounded || time.Until(deadline) >= delay+minAttempt
}

// sleep waits, unless ctx ends or stop is closed first.
func sleep(ctx context.Context, delay time.Duration, stop <-chan struct{}) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-stop:
		return false
	case <-ctx.Done():
		return false
	}
}
