package cache_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

var (
	modelSteps = flag.Int("model.steps", 4_000, "steps of the model test")
	modelSeed  = flag.Uint64("model.seed", 0, "seed of the model test; 0 draws one")
)

// The model test runs two replicas with two partners each, real services on real
// stores and one real Redis, through days of fetches, failures, faults of Redis and clock steps in a
// bubble in which time passes at once, and compares every answer with what the
// model knows:
//
//   - evidence has the time at which its fetch started, in whatever tier
//   - nothing answers past its usable age
//   - a second after any replica has fetched newer evidence, none answers with
//     older; while Redis delivers no messages, no later than the local tier's own
//     age
//   - after Redis has lost writes, what it still holds is not fresh
//   - what was fetched for one partner never answers for the other, although both
//     have the same customers
//
// Four things of Redis do not follow the bubble's clock and are simulated: messages,
// which a hook delivers late or never in place of Redis, the expiry of leases, how
// long no heartbeat was stored, and the server's own clock.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	server := cachetest.StartRedis(t)
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, server, seed)
		t.Cleanup(m.stop)
		for !t.Failed() && m.next() {
			m.act()
			m.sleep(150 * time.Millisecond)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		t.Logf("seed %d: %d steps in %v of the model's time, %d answers, %d of them stale, %d errors, %d fetches, %d faults, %d times back to a snapshot, %d moved clocks",
			seed, m.step, time.Since(m.began).Round(time.Minute), m.answers, m.stale, m.failures, len(m.fetches), m.faults, m.restores, m.jumps)
	})
}

const (
	modelMaxAge = 10 * time.Second
	// delivery is how long replicas take to receive newer evidence when all is well.
	delivery = time.Second
	// healing is what reconnecting and sharing again take after a fault.
	healing = 1500 * time.Millisecond
)

// modelCustomers are those that are asked about.
var modelCustomers = []eligibility.CustomerID{{1}, {2}, {3}, {4}}

// modelPartners are the namespaces of the partners.
var modelPartners = [...]string{"eu/tenant@host", "us/tenant@host"}

// fault is what Redis suffers from; one at a time.
type fault int

const (
	none         fault = iota
	down               // no replica reaches Redis
	parted             // one replica does not
	unsubscribed       // one replica's subscription is lost
	refusing           // Redis serves reads and messages, and refuses writes
)

type model struct {
	t     *testing.T
	began time.Time
	end   context.CancelFunc
	loops sync.WaitGroup
	raw   *redis.Client

	mu       sync.Mutex // guards what is below
	step     int
	random   *rand.Rand
	replicas []*modelReplica
	fault    fault
	victim   int
	faulty   time.Time // when the last fault ended
	flushed  time.Time // when Redis last lost everything
	restored time.Time // when Redis last went back to a snapshot
	snapshot map[string]snapshot
	idle     bool // no caller, and heartbeats would slow the test down
	leases   map[string]time.Time
	beaten   [2]heartbeats // in Redis and in the snapshot
	fetches  []fetched

	faults, answers, stale, failures, restores, jumps int
}

// heartbeats are when one was last stored for each partner.
type heartbeats [len(modelPartners)]time.Time

// snapshot is one key of a snapshot of Redis.
type snapshot struct {
	dump string
	left time.Duration
}

// fetched is what the model knows about one fetch.
type fetched struct {
	partner int
	key     eligibility.Key
	stamp   time.Time // by the clock of the replica that fetched, when it started
	learnt  time.Time // by the bubble's clock, when it brought evidence; zero if none
	usable  time.Duration
	moved   bool // the clock of the replica was moved far away when it started or ended
}

type modelReplica struct {
	m       *model
	number  int // 0 or 1
	partner int
	skew    time.Duration // guarded by model.mu
	moved   time.Duration // far away; guarded by model.mu
	store   *cache.Store
	service *evidence.Service
}

func newModel(t *testing.T, server *cachetest.Redis, seed uint64) *model {
	t.Helper()
	if inBubble == cache.HeartbeatScript {
		t.Fatal("the script of heartbeats takes the time in another way")
	}
	ctx, end := context.WithCancel(context.Background())
	m := &model{
		t: t, began: time.Now(), end: end, raw: rawClient(server),
		random: rand.New(rand.NewPCG(seed, 1)),
		leases: make(map[string]time.Time),
	}
	for i := range 2 * len(modelPartners) {
		r := &modelReplica{m: m, number: i % 2, partner: i / 2}
		cfg := sharing(server, "model")
		cfg.Redis.Namespace = modelPartners[r.partner]
		cfg.LocalMaxAge, cfg.Now, cfg.Ages = modelMaxAge, r.now, modelAges()
		cfg.MaxEntries = 2 // too few, so that what is announced is often not held
		// Nothing waits for a connection: the client would take a timer from a pool of
		// the package, and leave one of the bubble in it for other tests.
		cfg.Redis.PoolSize = 8192
		r.store = bare(t, cfg)
		r.store.AddHook(r)
		service, err := evidence.New(r, r.store, evidence.Config{Ages: modelAges(), Now: r.now})
		if err != nil {
			t.Fatal(err)
		}
		r.service = service
		m.replicas = append(m.replicas, r)
		m.loops.Go(func() { _ = service.Run(ctx) })
		m.loops.Go(func() { r.live(ctx) })
	}
	m.loops.Go(func() { m.expireLeases(ctx) })
	return m
}

// rawClient returns a client without timeouts. Those of sockets follow the real
// clock, and would fail the model on a busy machine.
func rawClient(server *cachetest.Redis) *redis.Client {
	return redis.NewClient(&redis.Options{
		Network: "unix", Addr: strings.TrimPrefix(server.Address, "unix://"), MaxRetries: -1, DialerRetries: 1,
		DisableIdentity: true, ReadTimeout: -1, WriteTimeout: -1, PoolSize: 8192,
	})
}

// modelAges are short, so that a lot happens.
func modelAges() eligibility.Ages {
	age := func(fresh, usable time.Duration) eligibility.Age {
		return eligibility.Age{Fresh: fresh, Usable: usable}
	}
	return eligibility.Ages{
		Allowed: age(4*time.Second, time.Minute), NoStatus: age(2*time.Second, 30*time.Second), Pending: age(time.Second, 5*time.Minute),
		NotAllowed: age(4*time.Second, 5*time.Minute), Qualifications: age(6*time.Second, 2*time.Minute), QualificationsInReview: age(2*time.Second, 2*time.Minute),
	}
}

func (m *model) stop() {
	time.Sleep(time.Minute) // lets every caller and flight end
	m.end()
	m.loops.Wait()
	_ = m.raw.Close()
}

// next begins a step, if there is one left.
func (m *model) next() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.step == *modelSteps {
		return false
	}
	m.step++
	return true
}

func (m *model) chance(one int) bool { return m.draw(one) == 0 }

func (m *model) draw(below int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.random.IntN(below)
}

func (m *model) sleep(most time.Duration) { time.Sleep(time.Duration(m.draw(int(most)))) }

func (r *modelReplica) now() time.Time {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	return time.Now().Add(r.skew + r.moved)
}

// live does what Run does, but for the sockets.
func (r *modelReplica) live(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		if r.m.isIdle() {
			continue
		}
		r.store.Heartbeat(ctx)
		r.store.RenewLeases(ctx)
		r.store.FlushOutbox(ctx)
	}
}

func (m *model) isIdle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.idle
}

// subscribed reports whether messages reach the replica.
func (r *modelReplica) subscribed() bool { return !r.suffers(down, parted, unsubscribed) }

func (r *modelReplica) suffers(faults ...fault) bool {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, f := range faults {
		if r.m.fault == f && (f == down || r.m.victim == r.number) {
			return true
		}
	}
	return false
}

// act takes one step.
func (m *model) act() {
	switch n := m.draw(100); {
	case n < 94:
		m.loops.Go(m.check)
	case n < 96:
		m.stepClock()
	case n < 97:
		[]func(){m.loseEverything, m.takeSnapshot, m.restore, m.moveClock}[m.draw(4)]()
	case n < 99:
		m.changeFault()
	default:
		m.pause()
	}
}

// pause is long enough for ages to end. Afterwards replicas start from scratch, as after
// a fault.
func (m *model) pause() {
	time.Sleep(10 * time.Second) // lets every check end
	m.mu.Lock()
	m.idle = true
	m.mu.Unlock()
	m.sleep(3 * time.Minute)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.idle, m.faulty = false, time.Now()
}

// moveClock moves the clock of a replica by an hour for a while.
func (m *model) moveClock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.replicas[m.random.IntN(len(m.replicas))]
	if r.moved != 0 {
		return
	}
	r.moved = []time.Duration{-time.Hour, time.Hour}[m.random.IntN(2)]
	m.jumps++
	m.loops.Go(func() {
		m.sleep(10 * time.Second)
		m.mu.Lock()
		defer m.mu.Unlock()
		// A clock that is ahead has replaced what Redis held.
		r.moved, m.faulty, m.restored = 0, time.Now(), time.Now()
	})
}

// takeSnapshot saves the contents of Redis.
func (m *model) takeSnapshot() {
	ctx := context.Background()
	keys := m.raw.Keys(ctx, "*").Val()
	taken := make(map[string]snapshot)
	for _, key := range keys {
		if dump, err := m.raw.Dump(ctx, key).Result(); err == nil {
			taken[key] = snapshot{dump: dump, left: max(m.raw.PTTL(ctx, key).Val(), time.Minute)}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.snapshot, m.beaten[1] = taken, m.beaten[0]
}

// restore restarts Redis from the snapshot.
func (m *model) restore() {
	m.mu.Lock()
	well, taken := m.fault == none, m.snapshot
	m.mu.Unlock()
	if !well || taken == nil {
		return
	}
	ctx := context.Background()
	_, err := m.raw.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.FlushAll(ctx)
		for key, saved := range taken {
			if !strings.HasSuffix(key, ":lease") {
				pipe.Restore(ctx, key, saved.left, saved.dump)
			}
		}
		return nil
	})
	if err != nil {
		m.t.Errorf("restore: %v", err)
	}
	m.mu.Lock()
	m.restored, m.beaten[0] = time.Now(), m.beaten[1]
	m.restores++
	m.mu.Unlock()
	for _, r := range m.replicas {
		r.store.Resubscribe()
	}
}

func (m *model) stepClock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replicas[m.random.IntN(len(m.replicas))].skew = time.Duration(m.random.IntN(800)-400) * time.Millisecond
}

func (m *model) changeFault() {
	m.mu.Lock()
	if m.fault != none {
		m.refuseWrites(0)
		m.fault, m.faulty = none, time.Now()
		replicas := m.replicas
		m.mu.Unlock()
		for _, r := range replicas {
			r.store.Resubscribe()
		}
		return
	}
	m.fault, m.victim = []fault{down, parted, unsubscribed, refusing}[m.random.IntN(4)], m.random.IntN(2)
	if m.fault == refusing {
		m.refuseWrites(1)
	}
	m.faults++
	m.mu.Unlock()
}

// refuseWrites lets Redis refuse writes unless it has that many replicas: it has
// none.
func (m *model) refuseWrites(replicas int) {
	if err := m.raw.ConfigSet(context.Background(), "min-replicas-to-write", fmt.Sprint(replicas)).Err(); err != nil {
		m.t.Errorf("min-replicas-to-write: %v", err)
	}
}

// loseEverything is a restart of Redis.
func (m *model) loseEverything() {
	m.mu.Lock()
	well := m.fault == none
	m.mu.Unlock()
	if !well {
		return
	}
	if err := m.raw.FlushAll(context.Background()).Err(); err != nil {
		m.t.Errorf("flush: %v", err)
	}
	m.mu.Lock()
	m.flushed = time.Now()
	m.mu.Unlock()
	for _, r := range m.replicas {
		r.store.Resubscribe()
	}
}

// check asks one question and holds the answer to the promises.
func (m *model) check() {
	r := m.replicas[m.draw(len(m.replicas))]
	req := eligibility.Request{CustomerID: modelCustomers[m.draw(len(modelCustomers))], Segment: eligibility.SegmentEducation}
	if m.chance(10) {
		req.MaxAgeSet = true
		req.MaxAge = time.Duration(m.draw(3)) * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(100+m.draw(4000))*time.Millisecond)
	defer cancel()
	asked := time.Now()
	answer, err := r.service.Check(ctx, req)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.failures++
		return
	}
	m.answers++
	if answer.Stale {
		m.stale++
	}
	for _, evidence := range []*eligibility.Evidence{answer.Account, answer.Qualifications} {
		if evidence != nil {
			m.judge(r, evidence, asked, answer.Stale, answer.Tier == eligibility.TierPartnerCenter && evidence.FetchedHere())
		}
	}
}

// judge is called with the lock held. What the replica has fetched itself for the
// check may answer against evidence that is later by less than clocks differ, or
// that Redis does not store; and if it blocks, against evidence that is still to
// come by the replica's clock or out of reach.
func (m *model) judge(r *modelReplica, evidence *eligibility.Evidence, asked time.Time, stale, fetched bool) {
	var number int
	if _, err := fmt.Sscan(evidence.CorrelationID, &number); err != nil || number >= len(m.fetches) {
		m.t.Errorf("step %d: evidence of no fetch: %+v", m.step, evidence)
		return
	}
	now, from := time.Now(), &m.fetches[number]
	if from.partner != r.partner {
		m.t.Errorf("step %d: evidence of %s answers for %s: %+v", m.step, modelPartners[from.partner], modelPartners[r.partner], evidence)
		return
	}
	if off := evidence.FetchTime.Sub(from.stamp).Abs(); off > time.Minute {
		return // the clock was moved while the fetch was in flight
	} else if off > 0 {
		m.t.Errorf("step %d: fetch %d started at %v, its evidence says %v", m.step, number, from.stamp, evidence.FetchTime)
	}
	if age := now.Add(r.skew + r.moved).Sub(from.stamp); age >= from.usable {
		m.t.Errorf("step %d: evidence of %v answers, usable for %v", m.step, age, from.usable)
	}
	// Only what started later is newer, whatever the clocks say.
	for i := len(m.fetches) - 1; i > number; i-- {
		newer := &m.fetches[i]
		if newer.partner != from.partner || newer.key.CustomerID != from.key.CustomerID || newer.key.Facet != from.key.Facet ||
			newer.learnt.IsZero() || newer.moved || !newer.stamp.After(from.stamp) ||
			fetched && (m.fault == refusing || evidence.Status == eligibility.AccountStatusUnderReview || !newer.stamp.After(from.stamp.Add(time.Second))) {
			continue
		}
		if late := m.late(newer.learnt, asked, now, stale); late > 0 {
			m.t.Errorf("step %d: replica %d answers (stale: %t) with fetch %d, %v too late: fetch %d was learnt at %v, it is %v, the last fault ended at %v, Redis was emptied at %v",
				m.step, r.number, stale, number, late, i, newer.learnt.Sub(m.began), now.Sub(m.began), m.faulty.Sub(m.began), m.flushed.Sub(m.began))
		}
		if len(m.fetches)-i > 200 {
			return // everything else was fetched long ago
		}
	}
}

// late is how much too late an answer with older evidence is if newer evidence was
// fetched then. The lock is held.
func (m *model) late(learnt, asked, now time.Time, stale bool) time.Duration {
	latest := func(times ...time.Time) (t time.Time) {
		for _, other := range times {
			if other.After(t) {
				t = other
			}
		}
		return t
	}
	switch {
	case slices.ContainsFunc(m.replicas, func(r *modelReplica) bool { return r.moved != 0 }):
		return 0 // a replica by whose clock everything is too old, or of the future
	case m.fault == none && now.Sub(latest(m.flushed, m.restored)) > 5*time.Minute:
		return now.Sub(latest(learnt, m.faulty.Add(healing)).Add(delivery))
	case stale:
		return 0 // Partner Center could not be asked
	case m.fault == none && now.Sub(m.flushed) > 5*time.Minute:
		return now.Sub(latest(learnt, m.faulty.Add(healing), m.restored.Add(healing)).Add(delivery))
	case m.fault == refusing && now.Sub(m.flushed) > 5*time.Minute:
		return now.Sub(latest(learnt, m.faulty.Add(healing), m.restored.Add(healing)).Add(delivery))
	case m.fault == none || m.fault == down || m.fault == refusing:
		return asked.Sub(latest(learnt, m.flushed, m.faulty.Add(healing)).Add(modelMaxAge + delivery))
	default:
		return 0
	}
}

// Fetch implements evidence.Source.
func (r *modelReplica) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	m := r.m
	stamp := r.now().Round(0).Truncate(time.Millisecond)
	m.mu.Lock()
	number := len(m.fetches)
	m.fetches = append(m.fetches, fetched{partner: r.partner, key: query.Key, stamp: stamp, moved: r.moved != 0})
	m.mu.Unlock()
	latency := time.Duration(m.draw(1500)) * time.Millisecond
	if m.chance(8) {
		latency = time.Duration(m.draw(9)) * time.Second
	}
	call := eligibility.Call{Attempts: 1}
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		return eligibility.Evidence{}, call, &eligibility.Error{Kind: eligibility.KindUnavailable, Call: call, Err: ctx.Err()}
	}
	if m.chance(6) {
		return eligibility.Evidence{}, call, &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: time.Second, Call: call, Err: errors.New("429")}
	}
	evidence, usable := m.outcome(query.Facet)
	evidence.CorrelationID = fmt.Sprint(number)
	m.mu.Lock()
	fetch := &m.fetches[number]
	fetch.learnt, fetch.usable, fetch.moved = time.Now(), usable, fetch.moved || r.moved != 0
	m.mu.Unlock()
	return evidence, call, nil
}

func (r *modelReplica) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*modelReplica) Obstacles(context.Context) []evidence.Obstacle { return nil }

func (m *model) outcome(facet eligibility.Facet) (evidence eligibility.Evidence, usable time.Duration) {
	ages := modelAges()
	if facet == eligibility.FacetQualifications {
		return eligibility.Evidence{}, ages.Qualifications.Usable
	}
	switch m.draw(3) {
	case 0:
		return eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, ages.Allowed.Usable
	case 1:
		return eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview"}, ages.Pending.Usable
	default:
		return eligibility.Evidence{Status: eligibility.AccountStatusNone}, ages.NoStatus.Usable
	}
}

var errPlayed = errors.New("redis is unavailable in the model")

// DialHook, ProcessHook and ProcessPipelineHook implement redis.Hook.
func (r *modelReplica) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook plays faults, and the announcements.
func (r *modelReplica) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if r.suffers(down, parted) {
			cmd.SetErr(errPlayed)
			return errPlayed
		}
		if cmd.Name() == "publish" {
			r.m.deliver(cmd.Args()[1], cmd.Args()[2].([]byte))
			return nil
		}
		r.silent(cmd)
		err := nextByTheBubblesClock(ctx, next, cmd)
		r.m.notice(err)
		if err == nil {
			r.stored(cmd)
			r.published(cmd)
		}
		return err
	}
}

// inBubble is the script of heartbeats with the time as its last arguments.
var inBubble = strings.Replace(cache.HeartbeatScript, "redis.pcall('TIME')", "{ARGV[10], ARGV[11]}", 1)

// nextByTheBubblesClock makes Redis take the time from the bubble.
func nextByTheBubblesClock(ctx context.Context, next redis.ProcessHook, cmd redis.Cmder) error {
	if len(cmd.Args()) != heartbeatArgs {
		return next(ctx, cmd)
	}
	now := time.Now()
	timed := redis.NewCmd(ctx, append(append([]any{"eval", inBubble}, cmd.Args()[2:]...), now.Unix(), now.Nanosecond()/1000)...)
	err := next(ctx, timed)
	cmd.(*redis.Cmd).SetVal(timed.Val())
	cmd.SetErr(err)
	return err
}

// stored notes a lease that a script has stored.
func (r *modelReplica) stored(cmd redis.Cmder) {
	const claim, renew = 3 + 2 + 8, 3 + 1 + 3 // as in published
	args := cmd.Args()
	reply, isScript := cmd.(*redis.Cmd)
	if !isScript {
		return
	}
	words, _ := reply.StringSlice()
	renewed, _ := reply.Int()
	switch {
	case len(args) == claim && len(words) == 2 && words[0] == "acquired":
		r.m.touch(args[4].(string))
	case len(args) == renew && renewed == 1:
		r.m.touch(args[3].(string))
	}
}

const heartbeatArgs = 3 + 3 + 9 // as in published

// published delivers what a script has published, as its arguments show.
func (r *modelReplica) published(cmd redis.Cmder) {
	args := cmd.Args()
	const put, release = 3 + 8 + 17, 3 + 1 + 5 // the first three: name, script, number of keys
	last, _ := args[len(args)-1].([]byte)
	switch {
	case len(args) >= put:
		reply, _ := cmd.(*redis.Cmd).StringSlice()
		if len(reply) < 7 && (len(reply) == 0 || reply[0] != "same") || args[26] != "" {
			return // other evidence was there
		}
		r.m.deliver(args[15], append(slices.Clone(args[16].([]byte)), args[11].([]byte)...))
	case len(args) == release:
		if len(last) > 0 {
			r.m.deliver(args[7], last)
		}
	case len(args) == heartbeatArgs:
		r.m.mu.Lock()
		r.m.beaten[0][r.partner] = time.Now()
		r.m.mu.Unlock()
		if r.subscribed() {
			r.store.Receive(last)
		}
	}
}

// notice takes what a busy machine does to Redis for a fault that just ended.
func (m *model) notice(err error) {
	var answered redis.Error
	if err == nil || errors.As(err, &answered) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faulty = time.Now()
}

// ProcessPipelineHook simulates faults, and lookups whose replies are late.
func (r *modelReplica) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if r.suffers(down, parted) {
			for _, cmd := range cmds {
				cmd.SetErr(errPlayed)
			}
			return errPlayed
		}
		err := next(ctx, cmds)
		r.m.notice(err)
		for _, cmd := range cmds {
			if cmd.Err() == nil {
				r.published(cmd)
			}
		}
		r.m.sleep(40 * time.Millisecond)
		return err
	}
}

// deliver delivers a message to every replica that is subscribed to its channel when
// it arrives.
func (m *model) deliver(channel any, payload []byte) {
	for _, r := range m.replicas {
		if !strings.Contains(channel.(string), ":"+modelPartners[r.partner]+":") {
			continue
		}
		delay := time.Duration(m.draw(200)) * time.Millisecond
		if !r.subscribed() {
			continue
		}
		m.loops.Go(func() {
			time.Sleep(delay)
			if r.subscribed() {
				r.store.Receive(payload)
			}
		})
	}
}

// silent takes from the life of the watermark what has passed since the last
// heartbeat, if cmd is the next.
func (r *modelReplica) silent(cmd redis.Cmder) {
	m := r.m
	if len(cmd.Args()) != heartbeatArgs {
		return
	}
	m.mu.Lock()
	silence := time.Since(m.beaten[0][r.partner])
	m.mu.Unlock()
	if silence > time.Second {
		m.raw.PExpire(context.Background(), cmd.Args()[4].(string), max(cache.WatermarkLife-silence, time.Minute))
	}
}

// touch notes that a lease was taken or renewed.
func (m *model) touch(lease string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leases[lease] = time.Now()
}

// expireLeases deletes the leases that were not renewed.
func (m *model) expireLeases(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		m.mu.Lock()
		var ended []string
		for lease, touched := range m.leases {
			if time.Since(touched) >= cache.LeaseLife {
				ended = append(ended, lease)
				delete(m.leases, lease)
			}
		}
		if m.fault == refusing {
			for _, lease := range ended {
				m.leases[lease] = time.Time{} // another time
			}
			ended = nil
		}
		m.mu.Unlock()
		if len(ended) > 0 {
			m.raw.Del(context.Background(), ended...)
		}
	}
}
