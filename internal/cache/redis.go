package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/health"
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
	source       string // of the events
	feed         FeedConfig
	written      signal // something may have been written to the feed
	reviews      ReviewsConfig
	policy       eligibility.Policy
	health       *serverHealth
	replica      token
	beats        *beats
	writeTimeout time.Duration
	now          func() time.Time
	metrics      *metrics
	faults       *faultLog
	fault        fault
	condition    *health.Component
}

// newSharedTier returns a tier on the configured connections, or on its own if there
// are none.
func newSharedTier(config Config, metrics *metrics) (*sharedTier, error) {
	cfg, err := config.Redis.withDefaults()
	if err != nil {
		return nil, err
	}
	connections, now := config.Connections, config.Now
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
		faults:       newFaultLog(config.Logger, now),
		source:       "/eligibilityd/" + cfg.Namespace,
		feed:         config.Feed,
		written:      newSignal(),
		reviews:      config.Reviews,
		policy:       config.Policy,
		condition:    health.New(now),

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
// fetch as what local, which may be nil, holds after the reply, it is not decoded again.
func (r *sharedTier) load(caller context.Context, keys []eligibility.Key, local *local) []loaded {
	permit, _, ok := r.reads.Allow()
	if !ok {
		r.metrics.redisSkipped.Add(float64(len(keys)))
		return make([]loaded, len(keys))
	}
	return r.loadBy(caller, r.batcher, permit, keys, local)
}

// loadWithin is load for a caller that would otherwise get an error: it waits as
// long as the caller's context allows, up to lastResort.
func (r *sharedTier) loadWithin(caller context.Context, keys []eligibility.Key, local *local) []loaded {
	return r.loadBy(caller, r.patient, r.reads.Force(), keys, local)
}

func (r *sharedTier) loadBy(caller context.Context, batcher *readBatcher, permit breaker.Permit, keys []eligibility.Key, local *local) []loaded {
	found := make([]loaded, len(keys))
	flush, reads, fault := batcher.get(caller, keys)
	now := r.now()
	var removals []removal
	var knowns [knownAtOnce]known
	hits, misses := 0, 0
	for i, read := range reads {
		if i%knownAtOnce == 0 {
			local.knowns(keys[i:min(i+knownAtOnce, len(keys))], &knowns)
		}
		value, err := read.value, read.err
		if err == nil && len(value) == 0 {
			err = redis.Nil
		}
		var evidence *eligibility.Evidence
		if err == nil {
			evidence, err = r.seals.decode(keys[i], value, knowns[i%knownAtOnce])
		}
		switch {
		case errors.Is(err, redis.Nil), err == nil && fromFuture(evidence, now):
			misses++
			found[i].read = true
		case err == nil:
			hits++
			found[i] = loaded{evidence: evidence, read: true, current: read.current}
		case errors.Is(err, errValue), redis.HasErrorPrefix(err, "WRONGTYPE"):
			found[i].read = true
			removals = append(removals, removal{key: keys[i], value: value})
		default:
			fault = err
		}
	}
	r.metrics.redisHit.Add(float64(hits))
	r.metrics.redisMiss.Add(float64(misses))
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
	r.fault.note(faultKind(err))
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

// allPartitions returns the numbers of all partitions.
func allPartitions() []int {
	all := make([]int, partitions)
	for i := range all {
		all[i] = i
	}
	return all
}

// server is one server that takes writes, and the partitions that it holds.
type server struct {
	client     redis.UniversalClient
	partitions []int
}

// servers returns the servers of partitions that client connects to: on a cluster,
// the primaries that are known to hold them. It calls failed for each partition that
// none is known to hold.
func (r *sharedTier) servers(ctx context.Context, client redis.UniversalClient, of []int, failed func(partition int, err error)) []server {
	cluster, isCluster := client.(*redis.ClusterClient)
	if !isCluster {
		return []server{{client: client, partitions: of}}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout) // for all partitions together
	defer cancel()
	var servers []server
	places := make(map[string]int)
	for _, partition := range of {
		node, err := cluster.MasterForKey(ctx, r.keys.inPartition(partition, "watermark"))
		if err != nil {
			failed(partition, err)
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
	r := s.redis
	refused := func(partition int, err error) {
		r.fault.note(faultKind(err))
		r.health.partitions[partition].refused()
	}
	var all sync.WaitGroup
	for _, server := range r.servers(ctx, r.writer, allPartitions(), refused) {
		all.Go(func() {
			defer s.recovered("heartbeat")
			s.heartbeatTo(ctx, server)
		})
	}
	all.Wait()
	r.judge(ctx)
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
			r.fault.note(faultKind(err))
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
