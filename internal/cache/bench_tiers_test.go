package cache

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// both is evidence about both facets of a customer, as a check needs it.
func both(customer int, at time.Time) (keys []eligibility.Key, evidence []*eligibility.Evidence) {
	id := eligibility.CustomerID{byte(customer >> 8), byte(customer)} //nolint:gosec // its low bits differ, which is enough
	return []eligibility.Key{{CustomerID: id, Facet: eligibility.FacetAccount}, {CustomerID: id, Facet: eligibility.FacetQualifications}},
		[]*eligibility.Evidence{
			{
				Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: at,
				CorrelationID: "0af76519-16cd-43dd-8448-eb211c80319c",
			},
			{
				FetchTime: at, CorrelationID: "0af76519-16cd-43dd-8448-eb211c80319c",
				Qualifications: []eligibility.Qualification{{TypeText: "Education", VettingStatusText: "Approved", VettingCreatedTime: at}},
			},
		}
}

// BenchmarkPeek is one look into a local tier of 10,000 customers.
func BenchmarkPeek(b *testing.B) {
	store, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	var all []eligibility.Key
	for i := range 10_000 {
		keys, evidence := both(i, now)
		for j, key := range keys {
			store.Put(key, evidence[j])
		}
		all = append(all, keys...)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if found := store.Peek(all[i%len(all)], now); found.Evidence == nil {
				b.Error("absent")
				return
			}
		}
	})
}

// BenchmarkLoadBatch looks both facets of 100 customers up in Redis at once, by
// 8 callers.
func BenchmarkLoadBatch(b *testing.B) {
	tier, customers := filledTier(b)
	keys := slices.Concat(customers[:100]...)
	b.SetParallelism(4) // times GOMAXPROCS, 2 where budgets are measured
	b.ReportAllocs()
	defer cachetest.MeasureCPU(b)()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if found := tier.load(context.Background(), keys, nil); slices.ContainsFunc(found, func(l loaded) bool { return l.evidence == nil }) {
				b.Error("absent")
				return
			}
		}
	})
}

// BenchmarkCodec writes and reads the stored form of both facets.
func BenchmarkCodec(b *testing.B) {
	keys, evidence := both(1, time.Now())
	for i, facet := range []string{"account", "qualifications"} {
		value := encode(keys[i], evidence[i])
		b.Run("encode/"+facet, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				encode(keys[i], evidence[i])
			}
		})
		b.Run("decode/"+facet, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decode(keys[i], value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
