package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// pingInterval is how often the subscription is made to show that its
	// connection lives.
	pingInterval = 250 * time.Millisecond
	// subscribeRetry and maxSubscribeRetry bound the pause between attempts to
	// subscribe, which doubles while they fail.
	subscribeRetry    = 200 * time.Millisecond
	maxSubscribeRetry = 5 * time.Second
)

// Run receives the messages of the other replicas, sends heartbeats, renews the
// leases of this replica and repeats writes that Redis did not store, until ctx
// ends. Without Redis it only waits. Call it once. A store whose Run was not
// called works, but receives nothing and confirms nothing.
func (s *Store) Run(ctx context.Context) error {
	if s.redis == nil {
		<-ctx.Done()
		return nil
	}
	var loops errgroup.Group
	if s.redis.ownConnections {
		loops.Go(func() error { return s.redis.Connections.Run(ctx, s.redis.faults.logger) })
	}
	loops.Go(func() error {
		s.receiveAll(ctx)
		return nil
	})
	s.every(ctx, &loops, renewCheck, "renew", s.renew)
	s.every(ctx, &loops, heartbeatInterval, "outbox", func(ctx context.Context) { s.outbox.flush(ctx, s.redis) })
	loops.Go(func() error {
		s.warm(ctx, time.Second)
		s.Heartbeat(ctx)
		close(s.connected)
		s.every(ctx, &loops, heartbeatInterval, "heartbeat", s.Heartbeat)
		s.every(ctx, &loops, warmInterval, "warm", func(ctx context.Context) { s.warm(ctx, warmInterval) })
		return nil
	})
	return loops.Wait()
}

// Connected is closed once Run has tried to connect to Redis, so that callers do
// not wait for that; at once without Redis.
func (s *Store) Connected() <-chan struct{} { return s.connected }

// every runs f at intervals until ctx ends.
func (s *Store) every(ctx context.Context, loops *errgroup.Group, interval time.Duration, op string, f func(context.Context)) {
	loops.Go(func() error {
		for pause(ctx, interval) {
			func() {
				defer s.recovered(op)
				f(ctx)
			}()
		}
		return nil
	})
}

// recovered turns a panic of the client library, on a reply that it cannot parse,
// into a fault of Redis.
func (s *Store) recovered(op string) {
	if r := recover(); r != nil { //nolint:revive // callers defer it
		s.redis.metrics.redisFaults.WithLabelValues(op, faultConnection).Inc()
		s.redis.faults.warn(op, errPanic)
	}
}

// pause waits, and reports false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// receiveAll keeps a subscription until ctx ends. A subscription that fails is no
// evidence about reads and writes: the local tier then asks Redis more often.
func (s *Store) receiveAll(ctx context.Context) {
	wait := subscribeRetry
	for ctx.Err() == nil {
		var err error
		func() {
			defer s.recovered("subscribe")
			err = s.receiveSome(ctx)
		}()
		if errors.Is(err, errReceived) {
			wait = subscribeRetry
		}
		if err != nil && ctx.Err() == nil {
			s.redis.metrics.redisFaults.WithLabelValues("subscribe", faultKind(err)).Inc()
			s.redis.faults.warn("subscribe", err)
		}
		pause(ctx, wait)
		wait = min(2*wait, maxSubscribeRetry)
	}
}

// errReceived marks the failure of a subscription that has worked.
var errReceived = errors.New("subscription ended")

// receiveSome subscribes and receives until the subscription fails or ctx ends.
func (s *Store) receiveSome(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := s.redis.subscriber.Subscribe(ctx, s.redis.keys.channel(), s.redis.keys.ownChannel(s.redis.replica))
	defer func() { _ = sub.Close() }()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // ends a Receive in progress
	var pinging sync.WaitGroup
	defer pinging.Wait()
	defer cancel()
	pinging.Go(func() {
		defer s.recovered("subscribe")
		for err := error(nil); err == nil && pause(ctx, pingInterval); { // if it fails, Receive fails too
			err = sub.Ping(ctx)
		}
	})
	received := false
	for {
		reply, err := sub.ReceiveTimeout(ctx, silence)
		if err == nil {
			err = s.receiveReply(reply)
		}
		if err != nil && received {
			return fmt.Errorf("%w: %w", errReceived, err)
		}
		if err != nil {
			return err
		}
		received = true
	}
}

var errUnsubscribed = errors.New("redis has ended the subscription")

// receiveReply evaluates what a subscription has received.
func (s *Store) receiveReply(reply any) error {
	now := s.now()
	switch r := reply.(type) {
	case *redis.Subscription:
		if !strings.HasSuffix(r.Kind, "subscribe") || strings.HasSuffix(r.Kind, "unsubscribe") {
			return errUnsubscribed
		}
		s.redis.health.missed(now.UnixNano())
		s.outbox.repeatAll()
	case *redis.Message:
		s.receive([]byte(r.Payload), now)
	}
	return nil
}

// receive applies a message. One that cannot be read is ignored.
func (s *Store) receive(payload []byte, now time.Time) {
	m, err := s.redis.seals.decodeMessage(payload)
	if m.evidence != nil {
		s.redis.written.send()
	}
	switch {
	case err != nil:
		s.metrics.unreadableMessages.Inc()
		return
	case m.beat != nil:
		s.redis.beatReturned(m, now)
		return
	case m.evidence != nil && fromFuture(m.evidence, now):
		// Either clock may be the wrong one. If it is this process's, the entry may be
		// out of date, and counts as that when the clock is right.
		s.local.tombs.add(m.key, m.evidence.FetchTime, now)
		s.local.requireRevalidation(m.key)
		return
	case m.evidence != nil:
		s.metrics.received.Inc()
		health, confirmed := s.health(m.key), &now
		if health.predates(m.evidence.FetchTime) {
			confirmed = &unconfirmed // repeated by a replica that may have missed newer evidence
		}
		s.local.applyMessage(m.key, m.evidence, confirmed, now, !health.writable(now.UnixNano()))
	}
	s.leases.wake(m)
}

// beatReturned records a heartbeat of this replica that has come back, for all
// partitions of the server that it went to.
func (r *sharedTier) beatReturned(m message, now time.Time) {
	if m.key != beatKey(r.replica) {
		return
	}
	r.beats.mu.Lock()
	of := r.beats.partitions[m.beat.partition]
	r.beats.mu.Unlock()
	for _, partition := range of {
		r.health.partitions[partition].delivered(m.beat.sent, now.UnixNano())
	}
}

// beats is what this replica remembers of its heartbeats. The keys are the first
// partitions of servers.
type beats struct {
	began time.Time          // of this process; keeps the monotonic clock
	keys  [partitions]string // of this replica's heartbeats

	mu         sync.Mutex
	seen       map[int]int64   // age in ms that was last stored; guarded by mu
	failing    map[int]bool    // servers that do not respond; guarded by mu
	partitions map[int][]int   // all partitions of the server; guarded by mu
	servers    [partitions]int // the server of each partition; guarded by mu
}

func newBeats(keys redisKeys, replica token) *beats {
	b := &beats{began: time.Now(), seen: make(map[int]int64), failing: make(map[int]bool), partitions: make(map[int][]int)}
	for partition := range b.keys {
		b.keys[partition] = keys.inPartition(partition, "beat:"+hex.EncodeToString(replica[:]))
	}
	return b
}

// next returns the arguments of a heartbeat to a server: the age of the process,
// the age that was last stored, -1 if none was, and the age that outboxes cover.
func (b *beats) next(to server) (age, seen, covered int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := to.partitions[0]
	b.partitions[first] = to.partitions
	for _, partition := range to.partitions {
		b.servers[partition] = first
	}
	seen = b.lastStored(first)
	return time.Since(b.began).Milliseconds(), seen, seen - (outboxLife - repairTime).Milliseconds()
}

// lastStored returns the age that a server stored last, -1 if none. The lock is
// held.
func (b *beats) lastStored(first int) int64 {
	if seen, known := b.seen[first]; known {
		return seen
	}
	return -1
}

// expectedBeat is the heartbeat that the server of some partitions has.
type expectedBeat struct {
	partitions []int
	key        string
	age        int64
	reply      *redis.StringCmd // what a connection returned
}

// maxBeatBytes bounds what is read of a heartbeat.
const maxBeatBytes = 32

// expected returns the heartbeats of the servers that hold keys.
func (b *beats) expected(keys []eligibility.Key) []expectedBeat {
	return b.expectedOf(func(yield func(partition int) bool) {
		for _, key := range keys {
			if !yield(partitionOf(key.CustomerID)) {
				return
			}
		}
	})
}

// expectedOf returns the heartbeats of the servers that hold partitions.
func (b *beats) expectedOf(of iter.Seq[int]) (expected []expectedBeat) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var listed [partitions]bool
	for partition := range of {
		if listed[partition] {
			continue
		}
		first := b.servers[partition]
		of := b.partitions[first]
		if of == nil {
			of = []int{partition} // before the first heartbeat
		}
		for _, partition := range of {
			listed[partition] = true
		}
		listed[partition] = true
		expected = append(expected, expectedBeat{partitions: of, key: b.keys[first], age: b.lastStored(first)})
	}
	return expected
}

// currentPartitions returns for each partition whether its server has returned the
// heartbeat that it has stored, or a later one.
func currentPartitions(expected []expectedBeat) (current [partitions]bool) {
	for _, e := range slices.Backward(expected) { // of two servers of a partition, the first counts
		age, err := strconv.ParseInt(e.reply.Val(), 10, 64)
		for _, partition := range e.partitions {
			current[partition] = err == nil && age >= e.age || e.age < 0
		}
	}
	return current
}

// stored records that a server has stored an age, and reports whether it had
// failed to respond before.
func (b *beats) stored(to server, age int64) (wasFailing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := to.partitions[0]
	b.seen[first] = max(age, b.seen[first])
	wasFailing = b.failing[first]
	delete(b.failing, first)
	return wasFailing
}

func (b *beats) failed(to server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing[to.partitions[0]] = true
}

const (
	// warmInterval is how often connections are examined, and warmConnections how
	// many of each kind are kept open to each server.
	warmInterval    = time.Second
	warmConnections = 4
)

// warm opens connections and authenticates them, so that no caller has to: three
// round trips may take longer than a caller may wait. It does nothing if another
// store has just warmed the connections.
func (s *Store) warm(ctx context.Context, limit time.Duration) {
	s.redis.warming.Lock()
	defer s.redis.warming.Unlock()
	if time.Since(s.redis.warmed) < warmInterval/2 {
		return
	}
	s.redis.warmed = time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s.redis.awaitToken(ctx)
	var opening sync.WaitGroup
	for _, client := range s.redis.clients() {
		opening.Go(func() {
			defer s.recovered("warm")
			switch client := client.(type) {
			case *redis.Client:
				s.warmServer(ctx, client)
			case *redis.ClusterClient:
				_ = client.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error {
					s.warmServer(ctx, server)
					return nil
				})
			}
		})
	}
	opening.Wait()
}

// warmServer opens the connections of client to one server. If there are too few,
// it needs all of them at once, since a ping opens none while one is idle. If others
// are only in use, it leaves the idle ones to the callers.
func (s *Store) warmServer(ctx context.Context, client *redis.Client) {
	wanted, stats := min(warmConnections, client.Options().PoolSize), client.PoolStats()
	pings := wanted - int(stats.IdleConns)
	if int(stats.TotalConns) < wanted {
		pings = wanted
	}
	var opening sync.WaitGroup
	for range max(pings, 0) {
		opening.Go(func() {
			defer s.recovered("warm")
			_ = client.Ping(ctx).Err()
		})
	}
	opening.Wait()
}

// Flush writes what Redis has not stored, again and again until everything is
// stored or ctx ends, and returns how many writes are left. Call it after the last
// fetch and before Close.
func (s *Store) Flush(ctx context.Context) (left int) {
	if s.redis == nil {
		return 0
	}
	for {
		func() {
			defer s.recovered("outbox")
			s.Heartbeat(ctx) // Run, which sends them, may have ended
			s.outbox.flush(ctx, s.redis)
		}()
		if left = s.outbox.countPending(); left == 0 || ctx.Err() != nil {
			return left
		}
		pause(ctx, subscribeRetry)
	}
}
