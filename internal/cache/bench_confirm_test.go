package cache

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// BenchmarkConfirm confirms by Redis what the local tier holds about customers: both
// facets of one customer by 64 callers, and of 100 customers at once by 8.
func BenchmarkConfirm(b *testing.B) {
	const customers = 40_000
	server := cachetest.StartRedis(b)
	store, err := New(Config{Redis: RedisConfig{Addresses: []string{server.Address}, ReadTimeout: time.Second, WriteTimeout: time.Second}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	store.Heartbeat(b.Context())
	client := server.Client()
	defer func() { _ = client.Close() }()
	samples := cachetest.Samples(time.Now())
	held := [...]*eligibility.Evidence{samples[0], samples[len(samples)-1]}
	pipe := client.Pipeline()
	keysOf := func(i int) []eligibility.Key {
		id := eligibility.CustomerID{byte(i), byte(i >> 8), 3, 4, 5, 6, 7, 8, byte(i), byte(i >> 8), 11, 12, 13, 14, 15, byte(i)} //nolint:gosec // the low bits are meant
		return []eligibility.Key{keyOf(id, 0), keyOf(id, 1)}
	}
	for i := range customers {
		for facet, key := range keysOf(i) {
			pipe.Set(b.Context(), store.redis.keys.of(key), store.redis.seals.encode(key, held[facet]), 0)
			store.Put(key, held[facet])
		}
		if i%1000 == 999 {
			if _, err := pipe.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, row := range []struct {
		name             string
		callers, batched int
	}{{"single", 64, 1}, {"batch of 100", 8, 100}} {
		b.Run(row.name, func(b *testing.B) {
			healthy, stop := time.NewTicker(100*time.Millisecond), make(chan struct{})
			store.Healthy()
			go func() {
				for {
					select {
					case <-healthy.C:
						store.Healthy()
					case <-stop:
						return
					}
				}
			}()
			defer close(stop)
			b.SetParallelism(row.callers / 2) // times GOMAXPROCS, 2 where budgets are measured
			b.ReportAllocs()
			defer cachetest.MeasureCPU(b)()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					keys := make([]eligibility.Key, 0, 2*row.batched)
					for range row.batched {
						keys = append(keys, keysOf(rand.IntN(customers))...)
					}
					for _, found := range store.Load(context.Background(), keys) {
						if found.Evidence == nil || found.MustRevalidate {
							b.Error("not confirmed")
							return
						}
					}
				}
			})
		})
	}
}
