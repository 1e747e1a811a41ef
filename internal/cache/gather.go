package cache

import (
	"context"
	"fmt"
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
	// tripWait is how long a trip waits for the one before it to end.
	tripWait = 2 * time.Millisecond
	// patience is the longest that a caller waits without looking whether he is
	// still wanted, which costs a timer.
	patience = 100 * time.Millisecond
	// aloneFrom is from how many keys on a look-up fills a trip of its own.
	aloneFrom = 16
)

// gatherer puts look-ups that come while others are under way into one round
// trip. It is safe for concurrent use.
type gatherer struct {
	client redis.UniversalClient
	keys   redisKeys
	budget time.Duration // of a round trip
	wait   time.Duration // tripWait

	mu   sync.Mutex
	away int   // trips under way; guarded by mu
	next *trip // what waits to start, or nil; guarded by mu
}

// trip is one round trip that several callers share.
type trip struct {
	keys     []eligibility.Key // guarded by gatherer.mu until it starts
	starts   *time.Timer       // should no trip before it end soon
	done     chan struct{}     // closed once gets are there
	gets     []*redis.StringCmd
	reported atomic.Bool // its fault was counted
}

// get looks keys up within the caller's deadline and the budget. Its error says
// that the caller left; all else each command says by itself. Commands are in the
// order of keys.
func (g *gatherer) get(caller context.Context, keys []eligibility.Key) (*trip, []*redis.StringCmd, error) {
	deadline := time.Now().Add(g.budget)
	theirs, hurries := caller.Deadline()
	if hurries = hurries && theirs.Before(deadline); hurries {
		deadline = theirs
	}
	if hurries || isCluster(g.client) || len(keys) >= aloneFrom {
		// To wait takes time, and a shard that hangs would hold up look-ups that
		// do not need it.
		return new(trip), g.run(deadline, keys), nil
	}
	t, at := g.join(keys)
	if t == nil {
		defer g.ended()
		return new(trip), g.run(deadline, keys), nil
	}
	if g.budget <= patience {
		<-t.done
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
		t := &trip{done: make(chan struct{})}
		t.starts = time.AfterFunc(g.wait, func() { g.start(t) })
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

// fly makes a trip for those who wait for it. A panic is a fault like others.
func (g *gatherer) fly(t *trip) {
	defer g.ended()
	defer close(t.done)
	defer func() {
		if r := recover(); r != nil {
			t.gets = failed(len(t.keys), fmt.Errorf("panic while looking up: %v", r))
		}
	}()
	t.gets = g.run(time.Now().Add(g.budget), t.keys)
}

// failed returns n commands that have failed.
func failed(n int, err error) []*redis.StringCmd {
	gets := make([]*redis.StringCmd, n)
	for i := range gets {
		gets[i] = redis.NewStringResult("", err)
	}
	return gets
}

// blames reports whether the trip's fault is still to be counted, and caller, who
// met it, is not the cause of it.
func (t *trip) blames(caller context.Context) bool {
	return !hasLeft(caller) && !t.reported.Swap(true)
}
