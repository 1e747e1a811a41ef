//go:build acceptance

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

const (
	watchBefore = 10 * time.Second
	failureTime = 10 * time.Second
	watchAfter  = 40 * time.Second // local entries expire in this time
	// underWay is how long after the beginning of a failure an answer from
	// Redis may still arrive for a request in flight.
	underWay = 500 * time.Millisecond
)

// redisFailure is one kind of failure of Redis.
type redisFailure struct {
	name string
	// starts runs the servers and returns the service's variables for them,
	// and a function that causes the failure, which returns when Redis is
	// usable again.
	starts func(t *testing.T) (environ []string, happens func())
	// touches selects the customers whose evidence is affected; if nil, all.
	touches func(id string) bool
}

// watched holds the observations of one failure.
type watched struct {
	mu             sync.Mutex
	checks, failed int
	stale          int
	why            string           // of the first failed check
	worst          [3]time.Duration // before, during, after
	began, cured   time.Time        // zero if it has not begun
	used           []time.Duration  // replica → first answer from Redis since, relative to the recovery
}

func (w *watched) see(f *redisFailure, c checked) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checks++
	switch {
	case c.err != nil, c.resp.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED:
		w.failed++
		if w.why == "" {
			w.why = fmt.Sprintf("%v, %v", c.resp, c.err)
		}
	case c.resp.GetStale():
		w.stale++
	}
	phase, again := 0, time.Duration(0)
	switch answered := c.asked.Add(c.took); {
	case w.began.IsZero() || answered.Before(w.began):
	case w.cured.IsZero() || c.asked.Before(w.cured):
		phase = 1
		if c.asked.After(w.began.Add(underWay)) {
			again = -1
		}
	default:
		phase, again = 2, answered.Sub(w.cured)
	}
	w.worst[phase] = max(w.worst[phase], c.took)
	if w.used[c.replica] == 0 && c.resp.GetSource() == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS && (f.touches == nil || f.touches(c.id)) {
		w.used[c.replica] = again
	}
}

// now records the time of an event.
func (w *watched) now(moment *time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*moment = time.Now()
}

// watch causes a failure while three replicas with warm caches are under load,
// and returns its row of the table.
func (f *redisFailure) watch(t *testing.T) string {
	t.Helper()
	environ, happens := f.starts(t)
	service := startFleet(t, 3, environ...)
	ids := service.customers('1', 300, "Allowed")
	service.warm(ids, 30*time.Second)
	w := &watched{used: make([]time.Duration, 3)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asking := make(chan time.Duration, 1)
	opened := time.Now()
	go func() {
		asking <- service.ask(ctx, ids, *checksASecond, func(c checked) { w.see(f, c) })
	}()
	pause(ctx, watchBefore)
	w.now(&w.began)
	happens()
	w.now(&w.cured)
	pause(ctx, watchAfter)
	closed := time.Now()
	cancel()
	late := <-asking

	if w.failed > 0 {
		t.Errorf("%d checks failed, the first: %s", w.failed, w.why)
	}
	if slices.Contains(w.used, 0) {
		t.Errorf("Redis is not used again: %v", w.used)
	}
	before, _ := service.called(opened, w.began)
	during, most := service.called(w.began, w.cured)
	after, mostAfter := service.called(w.cured, closed)
	ms := func(d time.Duration) string { return fmt.Sprint(d.Milliseconds(), " ms") }
	return fmt.Sprintf("| %s | %.1f s | %d | %d | %d | %s, %s, %s | %.1f, %.1f, %.1f | %d, %d | %s | %s |",
		f.name, w.cured.Sub(w.began).Seconds(), w.checks, w.failed, w.stale,
		ms(w.worst[0]), ms(w.worst[1]), ms(w.worst[2]), before, during, after, most, mostAfter,
		ms(max(slices.Max(w.used), 0)), ms(late))
}

func standalone(happens func(t *testing.T, redis *cachetest.Redis)) func(t *testing.T) ([]string, func()) {
	return func(t *testing.T) ([]string, func()) {
		t.Helper()
		redis := cachetest.StartRedis(t)
		return redisAt(redis.Address), func() { happens(t, redis) }
	}
}

func redisFailures() []redisFailure {
	return []redisFailure{
		{name: "`kill -9`, restart after 10 s", starts: standalone(func(t *testing.T, redis *cachetest.Redis) {
			t.Helper()
			redis.Kill()
			pause(t.Context(), failureTime)
			redis.Start()
		})},
		{name: "`kill -STOP` for 10 s", starts: standalone(func(t *testing.T, redis *cachetest.Redis) {
			t.Helper()
			redis.Stall()
			pause(t.Context(), failureTime)
			redis.Resume()
		})},
		{name: "`FLUSHALL`", starts: standalone(func(t *testing.T, redis *cachetest.Redis) {
			t.Helper()
			redis.Flush()
		})},
		{name: "a replica that is promoted after 10 s", starts: standalone(promotedLate)},
		{name: "answers that are 200 ms late, for 10 s", starts: func(t *testing.T) ([]string, func()) {
			t.Helper()
			proxy := cachetest.StartProxy(t, cachetest.StartRedis(t))
			return redisAt(proxy.Address), func() {
				proxy.SetDelay(200 * time.Millisecond)
				pause(t.Context(), failureTime)
				proxy.SetDelay(0)
			}
		}},
		{name: "Sentinel: the primary is killed", starts: func(t *testing.T) ([]string, func()) {
			t.Helper()
			set := cachetest.StartSentinel(t)
			return sentinelAt(set), func() {
				primary := set.Primary()
				primary.Kill()
				set.AwaitFailover(primary)
			}
		}},
		clusterFailure(),
	}
}

// promotedLate fails over to a replica that holds all evidence but rejects
// writes until it is promoted.
func promotedLate(t *testing.T, redis *cachetest.Redis) {
	t.Helper()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	do := func(args ...any) {
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	do("REPLICAOF", "127.0.0.1", "1")
	for _, kind := range []string{"normal", "pubsub"} { // the clients of the old primary
		do("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
	}
	pause(t.Context(), failureTime)
	do("REPLICAOF", "NO", "ONE")
}

// clusterFailure is the loss of one primary of three.
func clusterFailure() redisFailure {
	var lost sync.Map // customer → whether the lost primary holds its keys
	f := redisFailure{name: "Cluster: one primary of three is killed"}
	f.touches = func(id string) bool {
		_, isLost := lost.Load(id)
		return isLost
	}
	f.starts = func(t *testing.T) ([]string, func()) {
		t.Helper()
		cluster := cachetest.StartCluster(t)
		client := cluster.Nodes[0].Client()
		defer func() { _ = client.Close() }()
		var one string // a key of the first primary
		for i := range 300 {
			id := fmt.Sprintf("10000000-0000-4000-9000-%012x", i)
			tag := "{" + strings.ReplaceAll(id, "-", "") + "}"
			slot, err := client.ClusterKeySlot(t.Context(), tag).Result()
			if err != nil {
				t.Fatal(err)
			}
			if slot < 16384/3 {
				lost.Store(id, true)
				one = tag
			}
		}
		return clusterAt(cluster), func() {
			primary := cluster.PrimaryOf(one)
			primary.Kill()
			cluster.AwaitFailover(one, primary)
		}
	}
	return f
}

// No check fails, whatever happens to Redis. The other observations go into
// docs/cache-failures.md.
func TestAcceptanceRedisFailures(t *testing.T) {
	rows := []string{
		"| what happens | Redis is away | checks | failed | stale | worst latency before, during, after | " +
			"calls of Partner Center a second before, during, after | in the busiest second during, after | Redis used again after | machine late by |",
		"|---|---|---|---|---|---|---|---|---|---|",
	}
	for _, f := range redisFailures() {
		t.Run(f.name, func(t *testing.T) {
			row := f.watch(t)
			t.Log(row)
			rows = append(rows, row)
		})
	}
	t.Logf("%d checks a second, 3 replicas, 300 customers:\n%s", *checksASecond, strings.Join(rows, "\n"))
}
