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
	// maxTrips is how many round trips for single look-ups are under way at once,
	// where none takes long. Whoever comes meanwhile goes with the next: a trip
	// costs a hundred times what a key in it does.
	maxTrips = 1
	// waitedPart is which part of the budget a trip waits for others to end.
	waitedPart = 5
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
	next *trip // what waits to start, or nil; guarded by mu
}

// trip is one round trip that several callers share.
type trip struct {
	keys     []eligibility.Key // guarded by gatherer.mu until it starts
	starts   *time.Timer       // should no trip before it end soon
	deadline time.Time
	done     chan struct{} // closed once gets are there
	gets     []*redis.StringCmd
	reported atomic.Bool // its fault was counted
}

// get looks keys up within the caller's deadline and the budget. Its error says
// that the caller left; all else each command says by itself. Commands are in the
// order of keys.
func (g *gatherer) get(caller context.Context, keys []eligibility.Key) (*trip, []*redis.StringCmd, error) {
	deadline, hurries := caller.Deadline()
	if most := time.Now().Add(g.budget); !hurries || deadline.After(most) {
		deadline, hurries = most, false
	}
	if _, isCluster := g.client.(*redis.ClusterClient); isCluster || len(keys) >= aloneFrom {
		// A shard that hangs would hold up look-ups that do not need it.
		return new(trip), g.run(deadline, keys), nil
	}
	t, at := g.join(keys)
	if t == nil {
		defer g.ended()
		return new(trip), g.run(deadline, keys), nil
	}
	if !hurries {
		<-t.done // soon enough, and to watch for the caller's end costs a timer
		return t, t.gets[at : at+len(keys)], nil
	}
	select {
	case <-t.done:
		return t, t.gets[at : at+len(keys)], nil
	case <-caller.Done():
		return t, nil, caller.Err()
	}
}

// join finds a place in the next trip; nil where the caller may go at once.
func (g *gatherer) join(keys []eligibility.Key) (t *trip, at int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away < maxTrips {
		g.away++
		return nil, 0
	}
	if g.next == nil {
		t := &trip{done: make(chan struct{}), deadline: time.Now().Add(g.budget)}
		t.starts = time.AfterFunc(g.budget/waitedPart, func() { g.start(t) })
		g.next = t
	}
	at = len(g.next.keys)
	g.next.keys = append(g.next.keys, keys...)
	return g.next, at
}

// run makes a round trip, which nobody's leaving ends.
func (g *gatherer) run(deadline time.Time, keys []eligibility.Key) []*redis.StringCmd {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	gets := make([]*redis.StringCmd, len(keys))
	// The error is that of the first command that has one, and absence is an
	// error too: each command is judged by itself.
	_, _ = g.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			gets[i] = pipe.Get(ctx, g.keys.of(key))
		}
		return nil
	})
	return gets
}

// ended makes room for the next trip.
func (g *gatherer) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.away--
	if g.next != nil && g.away < maxTrips {
		g.next.starts.Stop()
		go g.fly(g.depart())
	}
}

// start lets t wait no longer for those that are under way.
func (g *gatherer) start(t *trip) {
	g.mu.Lock()
	waits := g.next == t
	if waits {
		g.depart()
	}
	g.mu.Unlock()
	if waits {
		g.fly(t)
	}
}

// depart takes the next trip, which nobody joins any more. The lock is held.
func (g *gatherer) depart() (t *trip) {
	t, g.next = g.next, nil
	g.away++
	return t
}

// fly makes a trip for those who wait for it.
func (g *gatherer) fly(t *trip) {
	defer g.ended()
	t.gets = g.run(t.deadline, t.keys)
	close(t.done)
}

// blames reports whether the trip's fault is still to be counted, and caller, who
// met it, is not the cause of it.
func (t *trip) blames(caller context.Context) bool {
	return !hasLeft(caller) && !t.reported.Swap(true)
}
