package evidence_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// BenchmarkCheckLocalHit is the hot path without transport: both facets fresh
// in the local tier.
func BenchmarkCheckLocalHit(b *testing.B) {
	store, err := cache.New(cache.Config{})
	if err != nil {
		b.Fatal(err)
	}
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved))}
	service, err := evidence.New(source, store, evidence.Config{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	for name, req := range map[string]eligibility.Request{"commercial": commercial, "education": education()} {
		if _, err := service.Check(ctx, req); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := service.Check(ctx, req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// benchmarked is how many customers the benchmarks of many customers check: their
// evidence fits into no cache of a processor.
const benchmarked = 40_000

// BenchmarkCheckOfMany checks customers at random, with both facets fresh in the local
// tier or confirmed by Redis each time, alone and in batches of 100.
func BenchmarkCheckOfMany(b *testing.B) {
	for _, tier := range []struct {
		name   string
		redis  bool
		maxAge time.Duration
	}{{"local", false, 0}, {"redis", true, 1}} {
		b.Run(tier.name, func(b *testing.B) {
			service := ofMany(b, tier.redis, tier.maxAge)
			b.Run("single", func(b *testing.B) { benchmarkSingle(b, service) })
			b.Run("batch of 100", func(b *testing.B) { benchmarkBatch(b, service) })
		})
	}
}

// ofMany returns a service that holds evidence about all the customers.
func ofMany(b *testing.B, redis bool, maxAge time.Duration) *evidence.Service {
	b.Helper()
	cfg := cache.Config{LocalMaxAge: maxAge}
	if redis {
		cfg.Redis = cache.RedisConfig{Addresses: []string{cachetest.StartRedis(b).Address}, ReadTimeout: time.Second, WriteTimeout: time.Second}
	}
	store, err := cache.New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	source := fetchFunc(func(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
		found := eligibility.Evidence{
			Status: eligibility.AccountStatusAllowed, StatusText: "Allowed",
			CorrelationID: query.CustomerID.String(), RequestID: query.CustomerID.String(),
		}
		if query.Facet == eligibility.FacetQualifications {
			found.Status, found.StatusText = eligibility.AccountStatusUnspecified, ""
			found.Qualifications = []eligibility.Qualification{{
				Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved",
				VettingCreatedTime: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC),
			}}
		}
		return found, eligibility.Call{Attempts: 1}, nil
	})
	ages := eligibility.DefaultAges()
	ages.Allowed = eligibility.Age{Fresh: 24 * time.Hour, Usable: 24 * time.Hour}
	ages.Qualifications = ages.Allowed
	service, err := evidence.New(source, store, evidence.Config{Ages: ages, BatchConcurrency: 64})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = store.Run(ctx)
	}()
	b.Cleanup(func() {
		cancel()
		<-ended
		_ = store.Close()
	})
	<-store.Connected()
	for first := 0; first < benchmarked; first += 1000 {
		reqs := make([]eligibility.Request, 1000)
		for i := range reqs {
			reqs[i] = eligibility.Request{CustomerID: idOf(first + i), Segment: eligibility.SegmentEducation}
		}
		service.CheckBatch(ctx, reqs, func(_ int, _ *eligibility.Answer, err error) {
			if err != nil {
				b.Fatal(err)
			}
		})
	}
	if redis {
		time.Sleep(time.Second) // until the last writes are in Redis, and their messages are here
	}
	return service
}

func idOf(i int) (id eligibility.CustomerID) {
	binary.LittleEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15)  //nolint:gosec // not negative
	binary.LittleEndian.PutUint64(id[8:], uint64(i)*0xd6e8feb86659fd93) //nolint:gosec // a mix of bits
	return id
}

func benchmarkSingle(b *testing.B, service *evidence.Service) {
	b.Helper()
	var failed atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	defer cachetest.MeasureCPU(b)()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := service.Check(context.Background(), eligibility.Request{CustomerID: idOf(rand.IntN(benchmarked))}); err != nil {
				failed.Add(1)
			}
		}
	})
	if n := failed.Load(); n > 0 {
		b.Errorf("%d checks failed", n)
	}
}

func benchmarkBatch(b *testing.B, service *evidence.Service) {
	b.Helper()
	var failed atomic.Int64
	b.SetParallelism(4)
	b.ReportAllocs()
	defer cachetest.MeasureCPU(b)()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		reqs := make([]eligibility.Request, 100)
		for pb.Next() {
			for i := range reqs {
				reqs[i].CustomerID = idOf(rand.IntN(benchmarked))
			}
			service.CheckBatch(context.Background(), reqs, func(_ int, _ *eligibility.Answer, err error) {
				if err != nil {
					failed.Add(1)
				}
			})
		}
	})
	if n := failed.Load(); n > 0 {
		b.Errorf("%d checks failed", n)
	}
}
