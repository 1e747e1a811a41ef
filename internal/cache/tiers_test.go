package cache_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// clock is a clock that tests move.
type clock struct{ passed atomic.Int64 }

func (c *clock) now() time.Time       { return start.Add(time.Duration(c.passed.Load())) }
func (c *clock) set(to time.Duration) { c.passed.Store(int64(to)) }
func (c *clock) in(cfg *cache.Config) { cfg.Now = c.now }
func fetchTime(f evidence.Found) string {
	if f.Evidence == nil {
		return "none"
	}
	return f.Evidence.FetchTime.Sub(start).String()
}

// If the clock of a replica was ahead, the others ignore its evidence.
func TestEvidenceFromTheFutureIsAbsentAndNotInTheWay(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	ctx := context.Background()
	registry := prometheus.NewRegistry()
	cfg := at(redis, start)
	cfg.Registerer = registry
	ahead, store := newStore(t, at(redis, start.Add(time.Hour))), newStore(t, cfg)
	ahead.Share(ctx, key, allowed(start.Add(time.Hour)), start.Add(2*time.Hour))
	if found := load(store); found.Evidence != nil || cache.Peek(store, key).Evidence != nil {
		t.Errorf("evidence of %s after now was found", fetchTime(found))
	}
	if n := lookups(t, registry, "redis", "miss"); n != 1 {
		t.Errorf("%v misses counted, want 1", n)
	}
	store.Share(ctx, key, blocked(start), start.Add(time.Hour))
	if found := load(store); fetchTime(found) != "0s" || found.Tier != eligibility.TierRedis {
		t.Errorf("Redis has evidence of %s after now, tier %d", fetchTime(found), found.Tier)
	}
	store.Share(ctx, key, allowed(start.Add(time.Second+1)), start.Add(time.Hour))
	if found := load(newStore(t, at(redis, start.Add(time.Hour)))); fetchTime(found) != "0s" {
		t.Errorf("evidence of %s after now was shared", fetchTime(found))
	}
	store.Share(ctx, key, allowed(start.Add(time.Second)), start.Add(time.Hour))
	if found := load(store); fetchTime(found) != "1s" {
		t.Errorf("evidence within the tolerance was not shared: %s", fetchTime(found))
	}
}

func TestLocalTierLivesThroughAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	var clock clock
	var cfg cache.Config
	clock.in(&cfg)
	store := newStore(t, cfg)
	store.Put(key, allowed(start))
	clock.set(-time.Second)
	if found := cache.Peek(store, key); found.Evidence == nil {
		t.Error("evidence within the tolerance is gone")
	}
	store.Put(key, &eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed, StatusText: "NotAllowed", FetchTime: start.Add(-time.Second)})
	if found := cache.Peek(store, key); fetchTime(found) != "0s" {
		t.Errorf("within the tolerance, older evidence replaced newer: %s", fetchTime(found))
	}
	clock.set(-time.Second - 1)
	if found := cache.Peek(store, key); found.Evidence != nil {
		t.Errorf("evidence of %s is believed", fetchTime(found))
	}
	if found := load(store); found.Evidence != nil {
		t.Errorf("evidence of %s is believed by Load", fetchTime(found))
	}
	store.Put(key, blocked(start.Add(-time.Hour)))
	if found := cache.Peek(store, key); fetchTime(found) != "-1h0m0s" {
		t.Errorf("what was fetched since is not held: %s", fetchTime(found))
	}
	store.Put(key, allowed(start))
	if found := cache.Peek(store, key); fetchTime(found) != "-1h0m0s" {
		t.Errorf("evidence from the future was held: %s", fetchTime(found))
	}
}

// Set back, the clock must not stretch how long the local tier trusts itself.
func TestLocalTierDoesNotTrustAConfirmationFromTheFuture(t *testing.T) {
	t.Parallel()
	cfg := sharing(cachetest.StartRedis(t), "p")
	var clock clock
	clock.in(&cfg)
	store := newStore(t, cfg)
	newStore(t, cfg).Share(context.Background(), key, allowed(start.Add(-time.Minute)), start.Add(time.Hour))
	load(store)
	clock.set(-time.Second)
	store.Healthy()
	if cache.Peek(store, key).MustRevalidate {
		t.Error("untrusted within the tolerance")
	}
	clock.set(-time.Second - 1)
	store.Healthy()
	if !cache.Peek(store, key).MustRevalidate {
		t.Error("trusted though confirmed in the future")
	}
}

func TestLoadAnswersWithTheNewest(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	cfg := sharing(redis, "p")
	var clock clock
	clock.in(&cfg)
	store := newStore(t, cfg)
	newest := blocked(start)
	store.Put(key, newest)
	if found := load(store); found.Evidence != newest || found.MustRevalidate || found.Tier != eligibility.TierLocal {
		t.Errorf("beside an empty Redis: %+v", found)
	}
	newStore(t, cfg).Share(context.Background(), key, allowed(start.Add(-1)), start.Add(time.Hour))
	if found := load(store); found.Evidence != newest || found.MustRevalidate || found.Tier != eligibility.TierLocal {
		t.Errorf("older evidence of Redis won: %+v", found)
	}
	clock.set(30 * time.Second)
	if found := load(store); found.Evidence != newest || !found.MustRevalidate {
		t.Errorf("past its max age: %+v, want untrusted", found)
	}
	newStore(t, cfg).Share(context.Background(), key, allowed(start.Add(1)), start.Add(time.Hour))
	store.Healthy()
	if found := load(store); fetchTime(found) != "1ns" || found.MustRevalidate || found.Tier != eligibility.TierRedis {
		t.Errorf("newer evidence of Redis lost: %+v", found)
	}
}

// Callers mark the evidence that they share: a copy would lose the mark.
func TestTheSameFetchIsHeldOnce(t *testing.T) {
	t.Parallel()
	store := newStore(t, sharing(cachetest.StartRedis(t), "p"))
	first := allowed(time.Now().Round(0))
	store.Put(key, first)
	store.Share(context.Background(), key, first, first.FetchTime.Add(time.Hour))
	if found := load(store); found.Evidence != first || found.Tier != eligibility.TierRedis {
		t.Errorf("Load gave a copy: %+v", found)
	}
	copied := *first
	store.Put(key, &copied)
	if cache.Peek(store, key).Evidence != first {
		t.Error("Keep replaced the evidence by a copy")
	}
}

func TestLookupsAreCounted(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	ctx := context.Background()
	registry := prometheus.NewRegistry()
	cfg := sharing(redis, "p")
	var clock clock
	clock.in(&cfg)
	cfg.Registerer = registry
	store := newStore(t, cfg)

	cache.Peek(store, key) // miss
	load(store)            // miss
	newStore(t, sharing(redis, "p")).Share(ctx, key, allowed(start), time.Now().Add(time.Hour))
	load(store) // hit
	load(store) // hit
	for range 3 {
		cache.Peek(store, key) // hit
	}
	clock.set(30 * time.Second)
	cache.Peek(store, key) // untrusted
	name := client.Keys(ctx, "*:account").Val()[0]
	client.Set(ctx, name, "no value", 0)
	load(store) // unreadable
	client.HSet(ctx, name, "a", "b")
	load(store) // unreadable
	load(store) // miss, as it was deleted
	got := map[string]float64{
		"local hit":       lookups(t, registry, "local", "hit"),
		"local miss":      lookups(t, registry, "local", "miss"),
		"local untrusted": lookups(t, registry, "local", "untrusted"),
		"redis hit":       lookups(t, registry, "redis", "hit"),
		"redis miss":      lookups(t, registry, "redis", "miss"),
		"unreadable":      gathered(t, registry, "eligibility_cache_unreadable_values_total"),
		"faults":          gathered(t, registry, "eligibility_cache_redis_faults_total"),
	}
	want := map[string]float64{
		"local hit": 3, "local miss": 1, "local untrusted": 1,
		"redis hit": 2, "redis miss": 2, "unreadable": 2, "faults": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

// lookups reads one counter of the lookups.
func lookups(t *testing.T, registry *prometheus.Registry, tier, result string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			labels := metric.GetLabel() // sorted by name
			if family.GetName() == "eligibility_cache_lookups_total" && labels[0].GetValue() == result && labels[1].GetValue() == tier {
				return metric.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("no lookups of %s by %s", result, tier)
	return 0
}
