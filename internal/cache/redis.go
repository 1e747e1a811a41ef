package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// breakerFailures in a row open a circuit breaker of Redis for breakerOpen:
	// while Redis hangs, not every caller waits to find that out.
	breakerFailures = 5
	breakerOpen     = 500 * time.Millisecond
	// lastResort is the longest wait for Redis of a caller that would otherwise get
	// an error.
	lastResort = 2 * time.Second
)

var errBreakerOpen = errors.New("redis circuit breaker is open")

// sharedTier is the tier in Redis. Reads, claims and writes have connections and
// circuit breakers of their own, so that a flood or a refusal of one kind does
// not stop the others.
type sharedTier struct {
	*Connections
	ownConnections        bool // which close ends
	reads, claims, writes *breaker.Breaker

	batcher *readBatcher
	patient *readBatcher // for callers that would otherwise get an error

	scripts      scripts
	keys         redisKeys
	seals        *sealer
	health       *health
	replica      token
	beats        *beats
	writeTimeout time.Duration
	now          func() time.Time
	metrics      *metrics
	faults       *faultLog
}

// newSharedTier returns a tier on connections, or on its own if they are nil.
func newSharedTier(cfg RedisConfig, connections *Connections, logger *zap.Logger, metrics *metrics, now func() time.Time) (*sharedTier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	own := connections == nil
	if own {
		if connections, err = Connect(cfg); err != nil {
			return nil, err
		}
	}
	keys, reader := newRedisKeys(cfg.KeyPrefix, cfg.Namespace), connections.reader
	newBreaker := func() *breaker.Breaker {
		return breaker.New(breaker.Config{
			Failures: breakerFailures, First: breakerOpen, ProbeTimeout: max(cfg.ReadTimeout, cfg.WriteTimeout) + dialTimeout, Now: now,
		})
	}
	replica := newToken()
	beats := newBeats(keys, replica)
	return &sharedTier{
		Connections:  connections,
		reads:        newBreaker(),
		claims:       newBreaker(),
		writes:       newBreaker(),
		batcher:      &readBatcher{client: reader, keys: keys, beats: beats, budget: cfg.ReadTimeout, wait: batchWait},
		patient:      &readBatcher{client: reader, keys: keys, beats: beats, budget: lastResort},
		scripts:      newScripts(),
		keys:         keys,
		seals:        newSealer(keys, cfg.IntegrityKey, cfg.PreviousIntegrityKey),
		health:       newHealth(),
		replica:      replica,
		beats:        beats,
		writeTimeout: cfg.WriteTimeout,
		now:          now,
		metrics:      metrics,
		faults:       newFaultLog(logger, now),

		ownConnections: own,
	}, nil
}

// loaded is what Redis holds under a key: evidence or nil.
type loaded struct {
	evidence *eligibility.Evidence
	// read is whether Redis replied: nil evidence is then absent.
	read bool
	// current is whether it was read from a server that has the last heartbeat of
	// this replica.
	current bool
}

// load reads all keys in one round trip. It returns nil for a key if the value is
// absent, unreadable or from the future, or if Redis does not reply. Unreadable
// values are deleted. Values from the future stay, since another replica's clock
// may be the right one; the next fetch overwrites them. If a value is of the same
// fetch as held, the evidence that this process has, it is not decoded again.
func (r *sharedTier) load(caller context.Context, keys []eligibility.Key, held []*eligibility.Evidence) []loaded {
	permit, _, ok := r.reads.Allow()
	if !ok {
		r.metrics.redisSkipped.Add(float64(len(keys)))
		return make([]loaded, len(keys))
	}
	return r.loadBy(caller, r.batcher, permit, keys, held)
}

// loadWithin is load for a caller that would otherwise get an error: it waits as
// long as the caller's context allows, up to lastResort.
func (r *sharedTier) loadWithin(caller context.Context, keys []eligibility.Key, held []*eligibility.Evidence) []loaded {
	return r.loadBy(caller, r.patient, r.reads.Force(), keys, held)
}

func (r *sharedTier) loadBy(caller context.Context, batcher *readBatcher, permit breaker.Permit, keys []eligibility.Key, held []*eligibility.Evidence) []loaded {
	found := make([]loaded, len(keys))
	flush, reads, fault := batcher.get(caller, keys)
	now := r.now()
	var removals []removal
	for i, read := range reads {
		value, err := []byte(read.value), read.err
		if err == nil && len(value) == 0 {
			err = redis.Nil
		}
		var evidence *eligibility.Evidence
		if err == nil {
			evidence, err = r.seals.decode(keys[i], value, held[i])
		}
		switch {
		case errors.Is(err, redis.Nil), err == nil && fromFuture(evidence, now):
			r.metrics.redisMiss.Inc()
			found[i].read = true
		case err == nil:
			r.metrics.redisHit.Inc()
			found[i] = loaded{evidence: evidence, read: true, current: read.current}
		case errors.Is(err, errValue), redis.HasErrorPrefix(err, "WRONGTYPE"):
			found[i].read = true
			removals = append(removals, removal{key: keys[i], value: value})
		default:
			fault = err
		}
	}
	if fault == nil || flush.blames(caller) {
		r.report(caller, "load", permit, fault)
	} else {
		permit.Cancel()
	}
	if fault == nil && len(removals) > 0 {
		r.remove(caller, removals...)
	}
	return found
}

// removal is a value that cannot be read; nil if the key holds no string.
type removal struct {
	key   eligibility.Key
	value []byte
}

// remove deletes unreadable values, so that they are not read again. If another
// replica has replaced such a value since it was read, the new value stays.
func (r *sharedTier) remove(caller context.Context, removals ...removal) {
	r.metrics.unreadable.Add(float64(len(removals)))
	permit, _, ok := r.writes.Allow()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	_, err := r.writer.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, removal := range removals {
			value := removal.value
			if len(value) > maxValueBytes {
				value = nil
			}
			r.scripts.remove.Eval(ctx, pipe, []string{r.keys.of(removal.key)}, value)
		}
		return nil
	})
	r.report(caller, "remove", permit, err)
}

// putResult is what became of a write.
type putResult struct {
	stored bool                  // Redis has this evidence, or newer
	newer  *eligibility.Evidence // which Redis has; nil if it has none
}

// put publishes evidence and stores it, unless newer is stored, and ends the
// lease that was held for it.
func (r *sharedTier) put(caller context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time, lease heldLease) putResult {
	permit, _, ok := r.writes.Allow()
	if !ok {
		return putResult{}
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	now, value := r.now(), r.seals.encode(key, evidence)
	left := keepUntil.Sub(now).Milliseconds()
	if left <= 0 || fromFuture(evidence, now) {
		// By this clock, which may have moved since the fetch started. The outbox
		// stores it once the clock is right.
		r.report(caller, "put", permit, r.publish(ctx, key, value))
		r.release(caller, key, lease, nil)
		return putResult{}
	}
	sent := now.UnixNano()
	for range 2 { // again if an unreadable value was in the way
		answer, err := r.scripts.put.Run(ctx, r.writer, []string{r.keys.of(key), r.keys.lease(key)}, r.putArgs(key, value, left, lease)...).StringSlice()
		if isReply(err) {
			_ = r.publish(ctx, key, value) // the script cannot run, but others must know nevertheless
		}
		r.report(caller, "put", permit, err)
		result, unreadable := r.putReply(key, answer, err, sent)
		if unreadable == nil {
			return result
		}
		r.remove(caller, removal{key: key, value: unreadable})
	}
	return putResult{}
}

// publish sends evidence to the other replicas without storing it.
func (r *sharedTier) publish(ctx context.Context, key eligibility.Key, value []byte) error {
	return r.writer.Publish(ctx, r.keys.channel(), append(messageHeader(kindEvidence, key), value...)).Err()
}

func (r *sharedTier) putArgs(key eligibility.Key, value []byte, left int64, lease heldLease) []any {
	var holder []byte
	if lease.token != (token{}) {
		holder = lease.token[:]
	}
	r.metrics.published.Inc()
	return []any{value, left, timeBytes(r.now().Add(eligibility.ClockTolerance)), holder, r.keys.channel(), messageHeader(kindEvidence, key)}
}

// putReply evaluates the reply to a put that was sent then. It returns a newer
// value that cannot be read.
func (r *sharedTier) putReply(key eligibility.Key, answer []string, err error, sent int64) (result putResult, unreadable []byte) {
	health := &r.health.partitions[partitionOf(key.CustomerID)]
	switch {
	case isReply(err):
		health.refused()
	case err != nil:
	case len(answer) == 2 && answer[0] == "newer":
		newer, err := r.seals.decode(key, []byte(answer[1]), nil)
		if err != nil {
			return putResult{}, []byte(answer[1])
		}
		return putResult{stored: true, newer: newer}, nil
	case len(answer) == 3 && answer[1] != "":
		health.refused()
		r.metrics.redisFaults.WithLabelValues("put", faultRefused).Inc()
		r.faults.warn("put", replyError(answer[1]))
	case len(answer) == 3 && answer[0] == "same": // nothing was written
		return putResult{stored: true}, nil
	case len(answer) == 3:
		health.accepted(sent)
		return putResult{stored: true}, nil
	}
	return putResult{}, nil
}

// putAll repeats writes in one round trip and returns how many are stored.
func (r *sharedTier) putAll(caller context.Context, writes []outboxWrite, stored func(outboxWrite)) (n int) {
	permit, _, ok := r.writes.Allow()
	if !ok {
		return 0
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	sent := r.now()
	replies := make([]*redis.Cmd, len(writes))
	_, err := r.writer.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, write := range writes {
			left := write.keepUntil.Sub(sent).Milliseconds()
			replies[i] = r.scripts.put.Eval(ctx, pipe, []string{r.keys.of(write.key), r.keys.lease(write.key)},
				r.putArgs(write.key, r.seals.encode(write.key, write.evidence), max(left, 1), heldLease{})...)
		}
		return nil
	})
	r.report(caller, "put", permit, err)
	for i, reply := range replies {
		answer, err := reply.StringSlice()
		result, unreadable := r.putReply(writes[i].key, answer, err, sent.UnixNano())
		if unreadable != nil {
			r.remove(caller, removal{key: writes[i].key, value: unreadable})
		}
		if result.stored {
			stored(writes[i])
			n++
		}
	}
	return n
}

// report counts how an operation ended, unless the caller left: a caller with
// little time is no evidence about Redis.
func (r *sharedTier) report(caller context.Context, op string, permit breaker.Permit, err error) {
	switch {
	case err == nil:
		permit.Succeed()
		return
	case hasLeft(caller):
		permit.Cancel()
		return
	case isReply(err):
		permit.Succeed() // it works, and refuses
	default:
		permit.Fail()
	}
	r.metrics.redisFaults.WithLabelValues(op, faultKind(err)).Inc()
	r.faults.warn(op, err)
}

// hasLeft reports whether the caller is no longer there, or out of time. A
// socket's deadline may be noticed before the context's own.
func hasLeft(caller context.Context) bool {
	deadline, limited := caller.Deadline()
	return caller.Err() != nil || limited && time.Until(deadline) <= 0
}

// isReply reports whether err is a reply of the server, not a failure to get one.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && !errors.Is(err, redis.Nil) &&
		!errors.Is(err, redis.ErrPoolTimeout) && !errors.Is(err, redis.ErrPoolExhausted)
}

// replyError is an error that a script returned as text.
type replyError string

func (e replyError) Error() string { return string(e) }

// RedisError makes it a reply of the server, see redis.Error.
func (replyError) RedisError() {}

func (r *sharedTier) close() error {
	if !r.ownConnections {
		return nil
	}
	return r.Close()
}

// faultKind names a failure of Redis for the metrics.
func faultKind(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return faultPool
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return faultTimeout
	case isReply(err):
		return faultRefused
	default:
		return faultConnection
	}
}

// The kinds of fault: no reply in time, no connection, no free connection of
// ours, and a reply that refuses, such as that of a replica asked to write.
const (
	faultTimeout    = "timeout"
	faultConnection = "connection"
	faultPool       = "pool"
	faultRefused    = "refused"
)

// server is one server that takes writes, and the partitions that it holds.
type server struct {
	client     redis.UniversalClient
	partitions []int
}

// servers returns all servers that take writes: on a cluster, every primary that
// is known to hold a partition.
func (r *sharedTier) servers(ctx context.Context) []server {
	all := make([]int, partitions)
	for i := range all {
		all[i] = i
	}
	cluster, isCluster := r.writer.(*redis.ClusterClient)
	if !isCluster {
		return []server{{client: r.writer, partitions: all}}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // for all partitions together
	defer cancel()
	var servers []server
	places := make(map[string]int)
	for partition := range all {
		node, err := cluster.MasterForKey(ctx, r.keys.inPartition(partition, "watermark"))
		if err != nil {
			r.health.partitions[partition].refused()
			continue
		}
		place, known := places[node.Options().Addr]
		if !known {
			place = len(servers)
			places[node.Options().Addr] = place
			servers = append(servers, server{client: node})
		}
		servers[place].partitions = append(servers[place].partitions, partition)
	}
	return servers
}

// Heartbeat checks once whether every Redis server accepts writes, as Run does at
// intervals: for callers whose clock does not follow the real one.
func (s *Store) Heartbeat(ctx context.Context) {
	if s.redis == nil {
		return
	}
	var all sync.WaitGroup
	for _, server := range s.redis.servers(ctx) {
		all.Go(func() {
			defer s.recovered("heartbeat")
			s.heartbeatTo(ctx, server)
		})
	}
	all.Wait()
}

// heartbeatTo checks one server, by the keys of the first of its partitions.
func (s *Store) heartbeatTo(ctx context.Context, to server) {
	r := s.redis
	raise := s.outbox.takeLost(to.partitions)
	reply, err := r.beat(ctx, to, raise)
	now := r.now().UnixNano()
	for _, partition := range to.partitions {
		health := &r.health.partitions[partition]
		if err != nil {
			if faultKind(err) != faultTimeout { // a timeout may be due to a busy machine
				health.refused()
			}
			continue
		}
		if reply.lost {
			health.repairEnd.Store(now + int64(repairTime))
		}
		health.raise(reply.floor, now)
		health.silent.Store(reply.silent)
		health.accepted(reply.sent)
	}
	switch {
	case err == nil && (reply.lost || reply.wasFailing):
		s.outbox.repeatAll()
	case err != nil && raise:
		s.outbox.lose(to.partitions[0])
	}
	if reply.lost {
		r.metrics.losses.Inc()
		r.faults.logger.Warn("redis has lost writes; its contents count as not fresh until they are confirmed again")
	}
}

// beatReply is the reply of a server to a heartbeat.
type beatReply struct {
	sent       int64 // Unix ns
	lost       bool
	floor      int64 // Unix ns
	silent     bool
	wasFailing bool // the heartbeat before was not answered
}

func (r *sharedTier) beat(caller context.Context, to server, raise bool) (beatReply, error) {
	ctx, cancel := context.WithTimeout(caller, heartbeatTimeout)
	defer cancel()
	now, partition := r.now(), to.partitions[0]
	age, seen, covered := r.beats.next(to)
	raised := 0
	if raise {
		raised = 1
	}
	answer, err := r.scripts.heartbeat.Run(ctx, to.client,
		[]string{r.beats.keys[partition], r.keys.inPartition(partition, "watermark"), r.keys.inPartition(partition, "silent")},
		age, seen, covered, timeBytes(now), fleetRestart.Milliseconds(), timeBytes(now.Add(eligibility.ClockTolerance)), raised,
		r.keys.ownChannel(r.replica), r.seals.beatMessage(r.replica, partition, now)).Slice()
	reply, ok := decodeBeatReply(answer)
	if err == nil && !ok {
		err = errMessage
	}
	if err != nil {
		r.beats.failed(to)
		if !hasLeft(caller) {
			r.metrics.redisFaults.WithLabelValues("heartbeat", faultKind(err)).Inc()
			r.faults.warn("heartbeat", err)
		}
		return beatReply{}, err
	}
	reply.sent, reply.wasFailing = now.UnixNano(), r.beats.stored(to, age)
	return reply, nil
}

func decodeBeatReply(answer []any) (reply beatReply, ok bool) {
	if len(answer) != 3 {
		return reply, false
	}
	lost, isNumber := answer[0].(int64)
	floor, _ := answer[1].(string)
	silent, isNumberToo := answer[2].(int64)
	if !isNumber || !isNumberToo || len(floor) != 8 {
		return reply, false
	}
	return beatReply{lost: lost == 1, floor: int64(binary.BigEndian.Uint64([]byte(floor))), silent: silent != 0}, true //nolint:gosec // the same bits as written
}
