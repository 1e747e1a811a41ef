package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const faultsTotal = "eligibility_cache_redis_faults_total"

// If a caller has little time, or leaves, that is no evidence about Redis.
func TestACallerWhoLeavesIsNoFault(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	logs, records := observer.New(zapcore.WarnLevel)
	registry := prometheus.NewRegistry()
	cfg := sharing(redis, "p")
	cfg.Logger, cfg.Registerer = zap.New(logs), registry
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond
	now := time.Now()
	cfg.Now = func() time.Time { return now } // the interval of the log does not end
	store := newStore(t, cfg)
	load(store)
	redis.Stall()
	defer redis.Resume()

	both := func(ctx context.Context) {
		store.Load(ctx, []eligibility.Key{key})
		store.Share(ctx, key, allowed(time.Now()), time.Now().Add(time.Hour))
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	both(gone)
	for range 5 { // a new connection, then a warm one
		for _, left := range []time.Duration{-time.Second, 5 * time.Millisecond} {
			hurried, cancel := context.WithTimeout(context.Background(), left)
			store.Load(hurried, []eligibility.Key{key})
			cancel()
			hurried, cancel = context.WithTimeout(context.Background(), left)
			store.Share(hurried, key, allowed(time.Now()), time.Now().Add(time.Hour))
			cancel()
		}
	}
	if n := gathered(t, registry, faultsTotal); n != 0 || records.Len() != 0 {
		t.Errorf("%v faults counted and %d logged for callers who left", n, records.Len())
	}
	patient, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	both(patient)
	if n := gathered(t, registry, faultsTotal); n != 2 || records.Len() != 1 {
		t.Errorf("%v faults counted and %d logged for our own budget, want 2 and 1", n, records.Len())
	}
}

// An absent value in front must not hide that the next may not be read, and a
// round trip is one fault, however many keys it asks for.
func TestAFaultIsCountedOnceARoundTrip(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	ctx := context.Background()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	if err := client.Do(ctx, "ACL", "SETUSER", "gate", "on", ">word", "~p:v2:*:09*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	cfg := sharing(redis, "p")
	cfg.Registerer = registry
	cfg.Redis.Username, cfg.Redis.Password = "gate", "word"
	store := newStore(t, cfg)
	readable, denied := eligibility.Key{CustomerID: eligibility.CustomerID{9}}, key
	other := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	for i, keys := range [][]eligibility.Key{{readable, denied}, {denied, readable}, {denied, other}} {
		store.Load(ctx, keys)
		if n := gathered(t, registry, faultsTotal); n != float64(i+1) {
			t.Errorf("%v faults after %d round trips", n, i+1)
		}
	}
	if n := lookups(t, registry, "redis", "miss"); n != 2 {
		t.Errorf("%v misses, want 2", n)
	}
	store.Share(ctx, denied, allowed(time.Now()), time.Now().Add(time.Hour))
	if n := gathered(t, registry, faultsTotal); n != 4 {
		t.Errorf("%v faults after a share that was denied, want 4", n)
	}
}

// If Redis is unavailable, nothing is read, so nothing is unreadable or missing.
func TestRedisAwayIsOnlyAFault(t *testing.T) {
	t.Parallel()
	for name, redis := range map[string]cache.RedisConfig{
		"one server": {Addresses: []string{"127.0.0.1:1"}},
		"sentinels":  {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Mode: cache.RedisSentinel, MasterName: "m"},
		"a cluster":  {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Mode: cache.RedisCluster},
	} {
		redis.ReadTimeout = 5 * time.Second
		registry := prometheus.NewRegistry()
		store := newStore(t, cache.Config{Registerer: registry, Redis: redis})
		for range 3 {
			store.Load(context.Background(), []eligibility.Key{key, {CustomerID: eligibility.CustomerID{9}}})
		}
		if n := gathered(t, registry, faultsTotal); n != 3 {
			t.Errorf("%s: %v faults in 3 loads", name, n)
		}
		if n := gathered(t, registry, "eligibility_cache_unreadable_values_total") + lookups(t, registry, "redis", "miss"); n != 0 {
			t.Errorf("%s: %v values counted", name, n)
		}
	}
}
