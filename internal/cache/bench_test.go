package cache

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// BenchmarkLoad looks both facets of a customer up in Redis, by 64 callers at
// once.
func BenchmarkLoad(b *testing.B) {
	const callers = 64
	tier, customers := filledTier(b)
	var next, absent atomic.Int64
	b.SetParallelism(callers / 2) // times GOMAXPROCS, 2 where budgets are measured
	b.ReportAllocs()
	defer cachetest.MeasureCPU(b)()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			for _, found := range tier.load(context.Background(), customers[int(next.Add(1))%len(customers)], nil) {
				if found.evidence == nil {
					absent.Add(1)
				}
			}
		}
	})
	if n := absent.Load(); n > 0 {
		b.Errorf("%d lookups found nothing", n)
	}
}

// filledTier is a tier that holds both facets of each of those customers.
func filledTier(b *testing.B) (tier *sharedTier, customers [][]eligibility.Key) {
	b.Helper()
	local, err := newLocal(1, 1, time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	metrics, err := newMetrics(nil, local)
	if err != nil {
		b.Fatal(err)
	}
	cfg := Config{Now: time.Now, Logger: zap.NewNop(), Redis: RedisConfig{
		Addresses: []string{cachetest.StartRedis(b).Address}, ReadTimeout: time.Second, WriteTimeout: time.Second,
	}}
	if err := cfg.setFeedDefaults(); err != nil {
		b.Fatal(err)
	}
	tier, err = newSharedTier(cfg, metrics)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tier.close() })
	now := time.Now()
	samples := cachetest.Samples(now)
	for i := range 1024 {
		id := eligibility.CustomerID{byte(i), byte(i >> 8)}
		keys := []eligibility.Key{{CustomerID: id}, {CustomerID: id, Facet: eligibility.FacetQualifications}}
		tier.put(context.Background(), write{key: keys[0], evidence: samples[0], keepUntil: now.Add(time.Hour)})
		tier.put(context.Background(), write{key: keys[1], evidence: samples[len(samples)-1], keepUntil: now.Add(time.Hour)})
		customers = append(customers, keys)
	}
	return tier, customers
}

// BenchmarkBudget takes calls from the budget in Redis, by 64 callers at once.
func BenchmarkBudget(b *testing.B) {
	const callers = 64
	server := cachetest.StartRedis(b)
	store, err := New(Config{Redis: RedisConfig{Addresses: []string{server.Address}, WriteTimeout: time.Second}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	shared := store.SharedBudget()
	step := budget.Step{Kind: budget.KindTake, PerMinute: 1_000_000, Lane: evidence.LaneCheckout, Book: time.Second}
	if _, err := shared.Do(b.Context(), step); err != nil {
		b.Fatal(err)
	}
	if err := server.Client().ConfigResetStat(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(callers)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := shared.Do(context.Background(), step); err != nil {
				b.Error(err)
			}
		}
	})
	stats := server.Client().Info(context.Background(), "commandstats").Val()
	for line := range strings.Lines(stats) {
		if _, rest, found := strings.Cut(line, "cmdstat_evalsha:calls="); found {
			var calls, took, each float64
			if _, err := fmt.Sscanf(rest, "%g,usec=%g,usec_per_call=%g", &calls, &took, &each); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(each, "redis-µs/op")
		}
	}
}
