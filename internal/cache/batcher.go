package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// maxInFlight is how many batches of reads are in flight if none of them is slow.
	// A read that arrives while one is joins the next: a round trip costs a hundred
	// times as much as a key in it.
	maxInFlight = 1
	// batchWait is how long a batch waits for the one in flight.
	batchWait = 2 * time.Millisecond
	// patience is how long a waiter may ignore its context; checking it would cost
	// a timer per read.
	patience = 100 * time.Millisecond
	// aloneFrom is the number of keys from which on a read is a batch of its own.
	aloneFrom = 16
)

// readBatcher combines reads that arrive while others are in flight into one
// round trip. It is safe for concurrent use.
type readBatcher struct {
	client redis.UniversalClient
	keys   redisKeys
	beats  *beats
	budget time.Duration // of a round trip
	// wait is how long a batch waits for the one in flight; 0 means until it ends,
	// whatever time a caller has.
	wait time.Duration

	mu       sync.Mutex
	inFlight int    // batches; guarded by mu
	next     *batch // what waits to be flushed, or nil; guarded by mu
}

// batch is one round trip that several callers share.
type batch struct {
	keys     []eligibility.Key // guarded by readBatcher.mu until it is flushed
	timer    *time.Timer       // flushes it if the batch in flight is slow; may be nil
	done     chan struct{}     // closed when reads are there
	reads    []read
	reported atomic.Bool // its fault was counted
}

// read is the result of reading one key.
type read struct {
	value []byte // must not be changed
	err   error
	// current is whether the connection reached a server that has the last
	// heartbeat of this replica. Another one may hold older evidence.
	current bool
}

// get reads keys within the caller's deadline and the budget. It returns an error
// if the caller left; each read has its own. Reads are in the order of keys.
func (g *readBatcher) get(caller context.Context, keys []eligibility.Key) (*batch, []read, error) {
	deadline := time.Now().Add(g.budget)
	theirs, hurries := caller.Deadline()
	if hurries = hurries && theirs.Before(deadline); hurries {
		deadline = theirs
	}
	if hurries && g.wait > 0 || isCluster(g.client) || len(keys) >= aloneFrom {
		// If the caller has little time, it must not wait. On a cluster, a shard that
		// hangs would delay reads that do not need it.
		return new(batch), g.run(deadline, keys), nil
	}
	b, at := g.join(keys)
	if b == nil {
		defer func() {
			if next := g.ended(); next != nil {
				go g.flush(next)
			}
		}()
		return new(batch), g.run(deadline, keys), nil
	}
	if g.budget <= patience {
		<-b.done
		return b, b.reads[at : at+len(keys)], nil
	}
	select {
	case <-b.done:
		return b, b.reads[at : at+len(keys)], nil
	case <-caller.Done():
		return b, nil, caller.Err()
	}
}

// join finds a place in the next batch; it returns nil if the caller may read at
// once.
func (g *readBatcher) join(keys []eligibility.Key) (b *batch, at int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inFlight < maxInFlight {
		g.inFlight++
		return nil, 0
	}
	if g.next == nil {
		b := &batch{done: make(chan struct{})}
		if g.wait > 0 {
			b.timer = time.AfterFunc(g.wait, func() { g.waited(b) })
		}
		g.next = b
	}
	at = len(g.next.keys)
	g.next.keys = append(g.next.keys, keys...)
	return g.next, at
}

// run makes a round trip, which does not end when a caller leaves. A panic of the
// client is a fault like others.
func (g *readBatcher) run(deadline time.Time, keys []eligibility.Key) (reads []read) {
	defer func() {
		if r := recover(); r != nil {
			reads = failed(len(keys), errPanic)
		}
	}()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	trip := roundTrips.Get().(*roundTrip) //nolint:forcetypeassert // the pool holds nothing else
	gets := trip.prepare(g.keys, keys)
	beats := g.beats.expected(keys)
	// The error is that of the first command that has one: each is judged by itself. If
	// a server rejects the connection, none has one.
	commands, err := g.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range beats {
			beats[i].reply = pipe.GetRange(ctx, beats[i].key, 0, maxBeatBytes)
		}
		return pipe.BatchProcess(ctx, gets...)
	})
	if err != nil && !slices.ContainsFunc(commands, func(command redis.Cmder) bool { return command.Err() != nil }) {
		reads = failed(len(keys), err)
	} else {
		reads = trip.reads(keys, currentPartitions(beats))
	}
	// After a panic this is not reached: the client may still hold the commands.
	trip.release()
	return reads
}

// roundTrip is the commands that read keys. They are used again, since each would
// otherwise be five allocations. What they have read is not.
type roundTrip struct {
	gets     []getRange
	commands []redis.Cmder // the gets
	names    []byte        // of all keys
}

// getRange is a command that reads the start of a value, so that a reply is bounded.
type getRange struct {
	redis.StringCmd

	name keyName // which args points to
	end  int     // of name in roundTrip.names
	args [4]any
}

// keyName is a key as an argument of a command, in memory that is used again.
type keyName []byte

// MarshalBinary implements encoding.BinaryMarshaler, for the client to write the key.
func (n *keyName) MarshalBinary() ([]byte, error) { return *n, nil }

// String is how the client of a cluster reads the key, to find its server.
func (n *keyName) String() string { return string(*n) }

var roundTrips = sync.Pool{New: func() any { return new(roundTrip) }} //nolint:gochecknoglobals // of memory

// prepare returns a command for each key.
func (t *roundTrip) prepare(of redisKeys, keys []eligibility.Key) []redis.Cmder {
	if cap(t.gets) < len(keys) {
		t.gets = make([]getRange, len(keys))
	}
	t.gets, t.names = t.gets[:len(keys)], t.names[:0]
	for i, key := range keys {
		t.names = of.append(t.names, key)
		t.gets[i].end = len(t.names)
	}
	start := 0
	for i := range t.gets {
		get := &t.gets[i]
		get.name, start = t.names[start:get.end], get.end
		get.args = [...]any{"getrange", &get.name, 0, maxValueBytes}
		get.StringCmd = *redis.NewStringCmd(context.Background(), get.args[:]...)
		t.commands = append(t.commands, &get.StringCmd)
	}
	return t.commands
}

// reads returns the replies, in the order of keys.
func (t *roundTrip) reads(keys []eligibility.Key, current [partitions]bool) []read {
	reads := make([]read, len(keys))
	for i := range t.gets {
		value, err := t.gets[i].Bytes()
		reads[i] = read{value: value, err: err, current: current[partitionOf(keys[i].CustomerID)]}
	}
	return reads
}

// release makes the commands available to other round trips, without their replies.
func (t *roundTrip) release() {
	clear(t.gets)
	clear(t.commands)
	t.commands = t.commands[:0]
	roundTrips.Put(t)
}

// ended makes room for the next batch, and returns it if one waits.
func (g *readBatcher) ended() *batch {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inFlight--
	if g.next == nil || g.inFlight >= maxInFlight {
		return nil
	}
	if g.next.timer != nil {
		g.next.timer.Stop()
	}
	return g.detach()
}

// waited lets b wait no longer for the batch in flight.
func (g *readBatcher) waited(b *batch) {
	g.mu.Lock()
	waits := g.next == b
	if waits {
		g.detach()
	}
	g.mu.Unlock()
	if waits {
		g.flush(b)
	}
}

// detach returns the next batch, which no read joins any more. The lock is held.
func (g *readBatcher) detach() (b *batch) {
	b, g.next = g.next, nil
	g.inFlight++
	return b
}

// flush makes the round trip of b, and of each batch that waits when one ends.
func (g *readBatcher) flush(b *batch) {
	for ; b != nil; b = g.ended() {
		b.reads = g.run(time.Now().Add(g.budget), b.keys)
		close(b.done)
	}
}

// errPanic stands for a panic of the client library.
var errPanic = errors.New("panic of the redis client")

// failed returns n reads that have failed.
func failed(n int, err error) []read {
	reads := make([]read, n)
	for i := range reads {
		reads[i].err = err
	}
	return reads
}

// blames reports whether the batch's fault is still to be counted, and caller, who
// met it, is not the cause of it.
func (b *batch) blames(caller context.Context) bool {
	return !hasLeft(caller) && !b.reported.Swap(true)
}
