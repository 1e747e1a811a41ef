package cache_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestMain(m *testing.M) {
	code := m.Run()
	// go-redis takes a second to notice that a client was closed.
	err := goleak.Find(goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
	if code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	key   = eligibility.Key{CustomerID: eligibility.CustomerID{0xab, 0xcd}}
)

func allowed(fetched time.Time) *eligibility.Evidence {
	return fetchedHere(&eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, fetched)
}

// fetchedHere marks evidence as that of this process, at a time with all digits.
func fetchedHere(evidence *eligibility.Evidence, fetched time.Time) *eligibility.Evidence {
	evidence.SetFetchTime(fetched)
	evidence.FetchTime = fetched
	return evidence
}

// newStore is a store whose Redis works, as far as it knows.
func newStore(t *testing.T, cfg cache.Config) *cache.Store {
	t.Helper()
	store := bare(t, cfg)
	store.Healthy()
	return store
}

// bare is a store that knows nothing about its Redis.
func bare(t *testing.T, cfg cache.Config) *cache.Store {
	t.Helper()
	store, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func load(store *cache.Store) evidence.Found {
	return store.Load(context.Background(), []eligibility.Key{key})[0]
}

// sharing is a config for a store on redis; prefix keeps tests apart.
func sharing(redis *cachetest.Redis, prefix string) cache.Config {
	return cache.Config{Redis: cache.RedisConfig{
		Addresses: []string{redis.Address}, KeyPrefix: prefix, Namespace: "global:partner",
		ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, // not what these tests are about
	}}
}

func TestLocalStoreConforms(t *testing.T) {
	t.Parallel()
	cachetest.Run(t, func(t *testing.T, now func() time.Time) evidence.Store {
		return newStore(t, cache.Config{Now: now})
	})
}

func TestRedisStoreConforms(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	var n atomic.Int32
	cachetest.Run(t, func(t *testing.T, now func() time.Time) evidence.Store {
		cfg := sharing(redis, fmt.Sprint("conformance", n.Add(1)))
		cfg.Now = now
		return newStore(t, cfg)
	})
}

func TestReplicasShareEvidence(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	fetched := time.Now().Round(0)
	one, two := newStore(t, sharing(redis, "p")), newStore(t, sharing(redis, "p"))
	for i, evidence := range cachetest.Samples(fetched) {
		key := eligibility.Key{CustomerID: eligibility.CustomerID{byte(i)}, Facet: evidence.Facet}
		one.Share(context.Background(), key, evidence, fetched.Add(time.Hour))
		found := two.Load(context.Background(), []eligibility.Key{key})[0]
		if diff := cmp.Diff(evidence, found.Evidence, cachetest.Compare()); diff != "" || found.Tier != eligibility.TierRedis {
			t.Errorf("sample %d from tier %d (-want +got):\n%s", i, found.Tier, diff)
		}
		if local := cache.Peek(two, key); local.Tier != eligibility.TierLocal || local.Evidence == nil || local.MustRevalidate {
			t.Errorf("sample %d was not kept: %+v", i, local)
		}
	}
}

func TestNamespacesAreKeptApart(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	one, other := sharing(redis, "p"), sharing(redis, "p")
	other.Redis.Namespace = "global:another partner"
	newStore(t, one).Share(context.Background(), key, allowed(time.Now()), time.Now().Add(time.Hour))
	if found := load(newStore(t, other)); found.Evidence != nil {
		t.Errorf("another partner's evidence: %+v", found.Evidence)
	}
}

// Older evidence that arrives late must not win, whichever replica holds it.
func TestOlderEvidenceNeverReplacesNewerInRedis(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	now := time.Now().Round(0)
	one, two := newStore(t, sharing(redis, "p")), newStore(t, sharing(redis, "p"))
	blocked := &eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed, StatusText: "NotAllowed", FetchTime: now}
	one.Share(context.Background(), key, blocked, now.Add(time.Hour))
	two.Share(context.Background(), key, allowed(now.Add(-time.Nanosecond)), now.Add(time.Hour))
	if found := load(two); found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("older evidence won: %+v", found.Evidence)
	}
}

func TestEvidenceLeavesRedisWhenNoLongerUsable(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	store := newStore(t, sharing(redis, "p"))
	store.Share(context.Background(), key, allowed(time.Now()), time.Now().Add(time.Hour))
	keys := client.Keys(context.Background(), "*:account").Val()
	want := []string{"p:v2:global:partner:{" + cache.PartitionTag(key) + "}:abcd0000000000000000000000000000:account"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Fatalf("keys (-want +got):\n%s", diff)
	}
	if ttl := client.PTTL(context.Background(), keys[0]).Val(); ttl <= 59*time.Minute || ttl > time.Hour {
		t.Errorf("time to live %v, want an hour", ttl)
	}
	other := eligibility.Key{CustomerID: eligibility.CustomerID{9}}
	store.Share(context.Background(), other, allowed(time.Now()), time.Now().Add(-time.Second))
	if n := len(client.Keys(context.Background(), "*:account").Val()); n != 1 {
		t.Errorf("%d keys: evidence past its usable age was written", n)
	}
}

func TestUnreadableValuesAreAbsentAndDeleted(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	writer := newStore(t, sharing(redis, "p"))
	writer.Share(ctx, key, allowed(time.Now()), time.Now().Add(2*time.Hour))
	name := client.Keys(ctx, "*:account").Val()[0]
	good := client.Get(ctx, name).Val()
	flipped := []byte(good)
	flipped[12] ^= 1
	for what, value := range map[string]string{
		"foreign":             `{"status":"Allowed"}`,
		"truncated":           good[:len(good)-1],
		"trailing byte":       good + "x",
		"one bit flipped":     string(flipped),
		"another version":     "\x01" + good[1:],
		"header and no value": good[:13],
	} {
		client.Set(ctx, name, value, 0)
		if found := load(newStore(t, sharing(redis, "p"))); found.Evidence != nil {
			t.Errorf("%s: read as %+v", what, found.Evidence)
		}
		if client.Exists(ctx, name).Val() != 0 {
			t.Errorf("%s: left in Redis, where it keeps newer evidence out", what)
		}
	}
	client.Set(ctx, strings.Replace(name, "abcd", "abce", 1), good, 0)
	other := eligibility.Key{CustomerID: eligibility.CustomerID{0xab, 0xce}}
	if found := writer.Load(ctx, []eligibility.Key{other})[0]; found.Evidence != nil {
		t.Errorf("another customer's value was taken: %+v", found.Evidence)
	}
	client.Del(ctx, name)
	client.HSet(ctx, name, "a", "b")
	if found := load(newStore(t, sharing(redis, "p"))); found.Evidence != nil {
		t.Errorf("a hash was read as %+v", found.Evidence)
	}
	if client.Exists(ctx, name).Val() != 0 {
		t.Error("a hash was left in Redis")
	}
}

func TestTheLocalTierRevalidatesAfterItsMaxAge(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	var passed atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(passed.Load())) }
	cfg := sharing(redis, "p")
	cfg.Now, cfg.LocalMaxAge = now, 30*time.Second
	shared, alone := newStore(t, cfg), newStore(t, cache.Config{Now: now, LocalMaxAge: 30 * time.Second})
	shared.Share(context.Background(), key, allowed(start), start.Add(time.Hour))
	for _, store := range []*cache.Store{shared, alone} {
		store.Put(key, allowed(start))
	}

	passed.Store(int64(30*time.Second - 1))
	shared.Healthy()
	if cache.Peek(shared, key).MustRevalidate {
		t.Error("untrusted within its max age")
	}
	passed.Store(int64(30 * time.Second))
	shared.Healthy()
	if found := cache.Peek(shared, key); !found.MustRevalidate || found.Evidence == nil {
		t.Errorf("trusted past its max age: %+v", found)
	}
	if cache.Peek(alone, key).MustRevalidate {
		t.Error("untrusted although there is no Redis to know better")
	}
	if found := load(shared); found.MustRevalidate || found.Tier != eligibility.TierRedis {
		t.Errorf("Redis did not confirm: %+v", found)
	}
	if cache.Peek(shared, key).MustRevalidate {
		t.Error("untrusted although Redis has just confirmed it")
	}
	redis.Kill()
	passed.Add(int64(30 * time.Second))
	if found := load(shared); !found.MustRevalidate || found.Evidence == nil {
		t.Errorf("with Redis unavailable: %+v, want untrusted evidence", found)
	}
}

func TestStoreGoesOnWithoutRedisAndUsesItAgain(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	logs, records := observer.New(zapcore.WarnLevel)
	registry := prometheus.NewRegistry()
	cfg := sharing(redis, "p")
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = 500*time.Millisecond, 500*time.Millisecond
	cfg.Logger, cfg.Registerer = zap.New(logs), registry
	now := time.Now().Round(0)
	cfg.Now = func() time.Time { return now } // the interval does not end
	store := newStore(t, cfg)
	evidence, usable := allowed(now), now.Add(time.Hour)
	store.Put(key, evidence)

	redis.Kill()
	for range 2 {
		store.Share(context.Background(), key, evidence, usable)
		if found := load(store); found.Evidence == nil {
			t.Fatal("lost the local evidence with Redis away")
		}
	}
	redis.Start()
	store.Share(context.Background(), key, evidence, usable)
	if found := load(store); found.Tier != eligibility.TierRedis {
		t.Errorf("Redis is back and not used: %+v", found)
	}

	redis.Stall()
	began := time.Now()
	for range 4 {
		if found := load(store); found.Evidence == nil {
			t.Error("lost the local evidence with Redis stalled")
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("4 lookups in a stalled Redis took %v, budget 0.5 s each", took)
	}
	redis.Resume()
	if n := records.Len(); n != 1 {
		t.Errorf("%d log lines within the interval, want 1", n)
	}
	if n := gathered(t, registry, "eligibility_cache_redis_faults_total"); n < 8 {
		t.Errorf("%v faults counted, want all 8", n)
	}
}

func gathered(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
			return sum
		}
	}
	t.Errorf("no metric %s", name)
	return 0
}

func TestLocalTierIsBoundedAndCountsEvictions(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	store := newStore(t, cache.Config{MaxEntries: 10, Registerer: registry})
	for i := range 1000 {
		store.Put(eligibility.Key{CustomerID: eligibility.CustomerID{byte(i), byte(i >> 8)}}, allowed(start))
	}
	// Evictions run beside the writes; wait for them to catch up.
	deadline := time.After(10 * time.Second)
	for gathered(t, registry, "eligibility_cache_local_entries") > 10 {
		select {
		case <-deadline:
			t.Fatalf("%v entries, want at most 10", gathered(t, registry, "eligibility_cache_local_entries"))
		case <-time.After(time.Millisecond):
		}
	}
	if n := gathered(t, registry, "eligibility_cache_local_evictions_total"); n < 990 {
		t.Errorf("%v evictions, want 990", n)
	}
}

func TestLocalTierIsBoundedByBytes(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	store := newStore(t, cache.Config{MaxEntries: 1000, MaxBytes: 1 << 20, Registerer: registry})
	for i := range 100 {
		long := blocked(start)
		long.StatusText = strings.Repeat("x", 100<<10)
		store.Put(eligibility.Key{CustomerID: eligibility.CustomerID{byte(i)}}, long)
	}
	await(t, "what does not fit to go", func() bool { return gathered(t, registry, "eligibility_cache_local_entries") <= 10 })
	if gathered(t, registry, "eligibility_cache_local_entries") == 0 {
		t.Error("nothing is kept")
	}
}

func TestNewRefusesWhatCannotBeKept(t *testing.T) {
	t.Parallel()
	for _, cfg := range []cache.Config{
		{MaxEntries: -1},
		{LocalMaxAge: -1},
		{Redis: cache.RedisConfig{Addresses: []string{"127.0.0.1:1"}, ReadTimeout: -1}},
		{Redis: cache.RedisConfig{Addresses: []string{"127.0.0.1:1"}, PoolSize: -1}},
		{Redis: cache.RedisConfig{Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}}},
		{Redis: cache.RedisConfig{Addresses: []string{"127.0.0.1:1"}, Mode: cache.RedisSentinel}},
		{Redis: cache.RedisConfig{Addresses: []string{"127.0.0.1:1"}, Mode: cache.RedisCluster, DB: 1}},
		{Redis: cache.RedisConfig{Addresses: []string{"127.0.0.1:1"}, Mode: 9}},
	} {
		if _, err := cache.New(cfg); err == nil {
			t.Errorf("New(%+v) succeeded", cfg)
		}
	}
}

// One look at both facets, or at several customers, finds and counts what a look at each
// does.
func TestPeekBothIsPeekOfEach(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	store := newStore(t, cache.Config{Registerer: registry})
	qualifications := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	check := func(hits, misses float64) {
		t.Helper()
		a, q := store.PeekBoth(key.CustomerID, start)
		if want := store.Peek(key, start); a != want {
			t.Errorf("account %+v, want %+v", a, want)
		}
		if want := store.Peek(qualifications, start); q != want {
			t.Errorf("qualifications %+v, want %+v", q, want)
		}
		var founds [evidence.PeekAtOnce][2]evidence.Found
		store.PeekAll([]eligibility.CustomerID{{1}, key.CustomerID}, start, &founds)
		if want := [2]evidence.Found{a, q}; founds[1] != want || founds[0] != [2]evidence.Found{} {
			t.Errorf("both customers %+v, want nothing and %+v", founds[:2], want)
		}
		if gotHits, gotMisses := lookups(t, registry, "local", "hit"), lookups(t, registry, "local", "miss"); gotHits != hits || gotMisses != misses {
			t.Errorf("%v hits and %v misses, want %v and %v", gotHits, gotMisses, hits, misses)
		}
	}
	check(0, 8)
	store.Put(key, allowed(start))
	check(3, 13)
	store.Put(qualifications, &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: start})
	check(9, 15)
	var founds [evidence.PeekAtOnce][2]evidence.Found
	founds[0][0].Tier = eligibility.TierRedis // of an earlier look
	store.PeekAll([]eligibility.CustomerID{key.CustomerID}, start.Add(-2*time.Second), &founds)
	if founds[0] != [2]evidence.Found{} {
		t.Errorf("from the future: %+v", founds[0])
	}
}
