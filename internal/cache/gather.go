package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// maxTrips is how many round trips for single look-ups are under way at once.
	// Whoever comes meanwhile goes with the next: a trip costs a hundred times what
	// a key in it does.
	maxTrips = 2
	// aloneFrom is from how many keys on a look-up fills a trip of its own.
	aloneFrom = 16
)

// gatherer puts look-ups that come while others are under way into one round
// trip. It is safe for concurrent use.
type gatherer struct {
	client redis.UniversalClient
	keys   redisKeys
	budget time.Duration

	mu   sync.Mutex
	away int   // trips under way; guarded by mu
	next *trip // what waits for one of them to end, or nil; guarded by mu
}

// trip is one round trip.
type trip struct {
	keys     []eligibility.Key // guarded by gatherer.mu until it starts
	gets     []*redis.StringCmd
	done     chan struct{} // closed once gets are there
	reported atomic.Bool   // its fault was counted
}

// get looks keys up within ctx and the budget. Its error says that the keys were
// not looked up in time; all else each command says by itself. Commands are in
// the order of keys.
func (g *gatherer) get(ctx context.Context, keys []eligibility.Key) (*trip, []*redis.StringCmd, error) {
	t, at, waits := g.join(keys)
	if !waits {
		defer g.ended(t)
		ctx, cancel := context.WithTimeout(ctx, g.budget)
		defer cancel()
		g.run(ctx, t)
		return t, t.gets, nil
	}
	timer := time.NewTimer(g.budget)
	defer timer.Stop()
	select {
	case <-t.done:
		return t, t.gets[at : at+len(keys)], nil
	case <-timer.C:
		return t, nil, context.DeadlineExceeded
	case <-ctx.Done():
		return t, nil, ctx.Err()
	}
}

// join finds a trip for keys: one of their own, which the caller runs, or a
// place in the next.
func (g *gatherer) join(keys []eligibility.Key) (t *trip, at int, waits bool) {
	if _, isCluster := g.client.(*redis.ClusterClient); isCluster || len(keys) >= aloneFrom {
		// A shard that hangs would hold up look-ups that do not need it.
		return &trip{keys: keys}, 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away < maxTrips {
		g.away++
		return &trip{keys: keys, done: make(chan struct{})}, 0, false
	}
	if g.next == nil {
		g.next = &trip{done: make(chan struct{})}
	}
	at = len(g.next.keys)
	g.next.keys = append(g.next.keys, keys...)
	return g.next, at, true
}

// run makes the round trip.
func (g *gatherer) run(ctx context.Context, t *trip) {
	t.gets = make([]*redis.StringCmd, len(t.keys))
	// The error is that of the first command that has one, and absence is an
	// error too: each command is judged by itself.
	_, _ = g.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range t.keys {
			t.gets[i] = pipe.Get(ctx, g.keys.of(key))
		}
		return nil
	})
}

// ended makes room for the next trip, which belongs to none of those who wait
// for it: it has the whole budget, whoever leaves.
func (g *gatherer) ended(t *trip) {
	if t.done == nil {
		return
	}
	g.mu.Lock()
	next := g.next
	g.next = nil
	if next == nil {
		g.away--
	}
	g.mu.Unlock()
	if next == nil {
		return
	}
	go func() {
		defer g.ended(next)
		ctx, cancel := context.WithTimeout(context.Background(), g.budget)
		defer cancel()
		g.run(ctx, next)
		close(next.done)
	}()
}

// blames reports whether the trip's fault is still to be counted, and caller, who
// met it, is not the cause of it.
func (t *trip) blames(caller context.Context) bool {
	return !hasLeft(caller) && !t.reported.Swap(true)
}
