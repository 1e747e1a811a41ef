package cache_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// BenchmarkShare acquires the lease of a customer and stores what was fetched: the same
// facts as before, or others each time. Redis's own time is that of both scripts.
func BenchmarkShare(b *testing.B) {
	for _, row := range []struct {
		name  string
		words []string
	}{
		{"same facts", []string{"Allowed"}},
		{"other facts", []string{"Allowed", "NotAllowed"}},
		{"under review", []string{"UnderReview"}},
	} {
		b.Run(row.name, func(b *testing.B) {
			server := cachetest.StartRedis(b)
			client := server.Client()
			defer func() { _ = client.Close() }()
			cfg := sharing(server, "p")
			now := time.Now()
			cfg.Now = func() time.Time { return now }
			store, err := cache.New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = store.Close() }()
			store.Healthy()
			i := 0
			fetch := func() {
				id := eligibility.CustomerID{1, byte(i), byte(i >> 8 & 3)} //nolint:gosec // the low bits are meant
				i++
				now = now.Add(time.Millisecond)
				key, word := eligibility.Key{CustomerID: id}, row.words[i>>10%len(row.words)]
				claim := evidence.Claim{Key: key, NotBefore: now}
				if got := store.Acquire(b.Context(), claim); got.Evidence != nil || got.Err != nil {
					b.Fatalf("%+v", got)
				}
				found := &eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word, CorrelationID: "5c4ac19f-6a2a-4f6c-8f4a-0b2a3b5f8d11"}
				found.SetFetchTime(now)
				store.Put(key, found)
				store.Share(b.Context(), key, found, now.Add(24*time.Hour))
			}
			for range 2048 {
				fetch()
			}
			client.ConfigResetStat(b.Context())
			b.ReportAllocs()
			b.ResetTimer()
			for b.Loop() {
				fetch()
			}
			b.StopTimer()
			for line := range strings.Lines(client.Info(b.Context(), "commandstats").Val()) {
				if _, rest, found := strings.Cut(line, "cmdstat_evalsha:calls="); found {
					var calls, took float64
					if _, err := fmt.Sscanf(rest, "%g,usec=%g", &calls, &took); err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(took/float64(b.N), "redis-µs/op")
					b.ReportMetric(calls/float64(b.N), "scripts/op")
				}
			}
		})
	}
}
