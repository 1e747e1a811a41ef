package evidence

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// inflight holds the fetches in flight, so that concurrent callers share one
// fetch per key. If the current fetch of a key may start too early for a caller,
// the caller waits for the next one, which starts when the current one ends.
// However many callers insist on evidence of their own time, a key has at most
// these two fetches.
//
// The states of a fetch, and the methods that change them:
//
//	     start                               start, if the current fetch
//	 (the key is idle)                       cannot serve the caller
//	       │                                            │
//	       ▼                promote                     ▼
//	┌─────────────┐ ◀──────────────────────────  ┌─────────────┐
//	│  claiming   │                              │   waiting   │
//	└─────────────┘                              └─────────────┘
//	   │        │
//	   │        │ begin (this replica holds the lease)
//	   │        ▼
//	   │  ┌─────────────┐
//	   │  │  fetching   │
//	   │  └─────────────┘
//	   │        │
//	   │        │ finish
//	   ▼        ▼
//	┌─────────────┐
//	│  finished   │   then promote, if a fetch of the key is waiting
//	└─────────────┘
//
// The left arrow is finish from another replica: its evidence or its failure
// arrives while this one is claiming. During the shutdown a fetch that start or
// promote cannot run finishes with [errClosed]. start also joins a caller to a
// fetch in any state but finished; that changes no state.
type inflight struct {
	run    func(*fetch) bool // runs a fetch in a goroutine; false during the shutdown
	joined func()            // called when a caller shares a fetch
	shards [inflightShards]inflightShard
}

// inflightShards spreads the keys so that callers for different customers rarely
// contend for a lock.
const inflightShards = 64

type inflightShard struct {
	mu        sync.Mutex
	fetches   map[eligibility.Key]*fetches // guarded by mu
	coolDowns coolDowns                    // guarded by mu
}

// fetches are the fetches of one key.
type fetches struct {
	current *fetch // claiming or fetching
	waiting *fetch // nil unless a caller needs a later start
}

// fetchState is the state of a fetch until it finishes, which done reports.
type fetchState uint8

const (
	waiting  fetchState = iota
	claiming            // acquires the lease from the store, or waits for the replica that holds it
	fetching            // this replica makes the fetch
)

// fetch is one fetch, by this replica or by another one that it waits for. The
// result is written before done is closed and read afterwards.
type fetch struct {
	key    eligibility.Key
	ctx    context.Context   //nolint:containedctx // its own life: the values of the first caller's, without an end
	span   trace.Span        // its own, below that of the first caller
	asking trace.SpanContext // of the first caller

	done     chan struct{}
	sent     chan struct{} // closed when this replica is about to send the first request
	sending  sync.Once     // closes sent
	priority *Priority
	account  *fetch     // the fetch of the account, if this one must not send before it
	failed   func()     // called if Partner Center was called and gave no evidence; may be nil
	state    fetchState // guarded by the shard's mutex
	bound    recency    // what the result satisfies; guarded by the shard's mutex
	created  time.Time  // on the monotonic clock

	result
}

// result is how a fetch ended.
type result struct {
	evidence *eligibility.Evidence
	tier     eligibility.Tier // the source of evidence
	rival    Found            // dated later, and fetched by another replica; usually none
	lost     bool             // another replica announced a later fetch, whose evidence is out of reach
	call     eligibility.Call
	err      error
}

// fetchRequest describes the fetch that a caller needs.
type fetchRequest struct {
	eligibility.Key

	bound recency // not in the future by this process's clock
	lane  Lane
	// account, if set, is the fetch that must have sent its request before this
	// one does, unless this one leaves LaneSpare.
	account *fetch
	// failed is called if a fetch that is started for the request calls Partner
	// Center and gets no evidence; nil is allowed.
	failed func()
	// enough reports whether no fetch is needed any more, because one finished
	// after the caller last looked.
	enough func() bool
}

// recency is how recent evidence must be, depending on which replica fetches it:
// no clock but this process's own is exact.
type recency struct {
	// started bounds the start of a fetch by this process. It may carry a
	// monotonic reading.
	started time.Time
	// dated bounds the FetchTime of a fetch by another replica.
	dated time.Time
}

// merge returns the recency that satisfies both.
func (r recency) merge(other recency) recency {
	return recency{started: latest(r.started, other.started), dated: latest(r.dated, other.dated)}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func newInflight(run func(*fetch) bool, joined func()) *inflight {
	n := &inflight{run: run, joined: joined}
	for i := range n.shards {
		n.shards[i].fetches = make(map[eligibility.Key]*fetches)
		n.shards[i].coolDowns = make(coolDowns)
	}
	return n
}

func (n *inflight) shard(key eligibility.Key) *inflightShard {
	return &n.shards[key.CustomerID[15]%inflightShards]
}

// start returns a fetch that satisfies the request: one in flight if possible,
// else a new one. It returns nil if none is in flight and none is needed. The
// fetch outlives ctx and keeps its values. Its priority is the highest of its
// callers.
func (n *inflight) start(ctx context.Context, r fetchRequest) *fetch {
	shard := n.shard(r.Key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f := n.join(ctx, shard, r)
	if f != nil {
		f.priority.Raise(r.lane)
		f.link(ctx)
	}
	return f
}

// join finds or starts the fetch. The shard's lock is held: the evidence of a
// fetch that finished before is in the store, and one that finishes later is
// still in the map.
func (n *inflight) join(ctx context.Context, shard *inflightShard, r fetchRequest) *fetch {
	of := shard.fetches[r.Key]
	if of == nil {
		if r.enough() {
			return nil
		}
		f := newFetch(ctx, r)
		shard.fetches[r.Key] = &fetches{waiting: f}
		n.promote(shard, r.Key)
		return f
	}
	if of.current.serves(r.bound) {
		n.joined()
		return of.current
	}
	if of.waiting == nil {
		of.waiting = newFetch(ctx, r)
	} else {
		n.joined()
		of.waiting.bound = of.waiting.bound.merge(r.bound)
	}
	return of.waiting
}

// newFetch returns a waiting fetch for the caller of ctx.
func newFetch(ctx context.Context, r fetchRequest) *fetch {
	f := &fetch{
		key: r.Key, done: make(chan struct{}), sent: make(chan struct{}), priority: NewPriority(r.lane),
		account: r.account, failed: r.failed, bound: r.bound, created: time.Now(), asking: trace.SpanContextFromContext(ctx),
	}
	f.ctx, f.span = startFetchSpan(context.WithoutCancel(ctx), r.Key)
	return f
}

// begin records that this replica makes the fetch, and returns its start. Every
// caller that arrived before it is served.
func (n *inflight) begin(f *fetch, now func() time.Time) time.Time {
	shard := n.shard(f.key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f.state, f.bound.started = fetching, now()
	return f.bound.started
}

// finish completes the current fetch of its key: it wakes the callers, records
// whether the key cools down, and promotes the waiting fetch, if there is one.
func (n *inflight) finish(f *fetch, with result, now time.Time) {
	shard := n.shard(f.key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	f.complete(with) // under the lock: nobody may join a fetch that has finished
	shard.coolDowns.record(f.key, with.err, now)
	n.promote(shard, f.key)
}

// promote makes the waiting fetch of key the current one and runs it. If none is
// waiting, the key is idle. The shard's lock is held.
func (n *inflight) promote(shard *inflightShard, key eligibility.Key) {
	of := shard.fetches[key]
	f := of.waiting
	if f == nil {
		delete(shard.fetches, key)
		return
	}
	of.current, of.waiting, f.state = f, nil, claiming
	if !n.run(f) {
		f.complete(result{err: closedError(eligibility.Call{})})
		delete(shard.fetches, key)
	}
}

// complete publishes the result to the callers.
func (f *fetch) complete(with result) {
	f.result = with
	f.endSpan()
	close(f.done)
}

// serves reports whether the current fetch satisfies bound. The shard's lock is
// held.
func (f *fetch) serves(bound recency) bool {
	return !f.bound.started.Before(bound.started) && (f.state == fetching || !f.bound.dated.Before(bound.dated))
}

// markSent records that the first request is about to be sent.
func (f *fetch) markSent() { f.sending.Do(func() { close(f.sent) }) }

// isSent reports whether the first request has left the queue.
func (f *fetch) isSent() bool {
	select {
	case <-f.sent:
		return true
	default:
		return false
	}
}

// finished returns a channel that is closed when f finishes. If f is nil, the
// channel is nil, which blocks.
func (f *fetch) finished() <-chan struct{} {
	if f == nil {
		return nil
	}
	return f.done
}

// fetching reports whether a fetch of key is in flight.
func (n *inflight) fetching(key eligibility.Key) bool {
	shard := n.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.fetches[key] != nil
}

// coolingDown returns the failure because of which key is not fetched yet unless
// a decision needs it, or nil.
func (n *inflight) coolingDown(key eligibility.Key, now time.Time) error {
	shard := n.shard(key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.coolDowns.failure(key, now)
}

// oldest returns the age of the oldest fetch in flight, the waiting ones
// included, or 0 if there is none.
func (n *inflight) oldest() time.Duration {
	var oldest time.Duration
	for i := range n.shards {
		shard := &n.shards[i]
		shard.mu.Lock()
		for _, of := range shard.fetches {
			oldest = max(oldest, time.Since(of.current.created)) // the waiting one is younger
		}
		shard.mu.Unlock()
	}
	return oldest
}
