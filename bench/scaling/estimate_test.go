package main

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"sort"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// unsubscribedAge is how long a local tier serves an entry without revalidation
// if it receives no messages, as in this test: they arrive in real time, which
// does not pass under the clock of the test. It is a constant of
// internal/cache.
const unsubscribedAge = 900 * time.Millisecond

// TestTheEstimateAgreesWithTheService sends checks by a Zipf law to replicas of the
// service, on real stores and a real Redis, under a clock that runs ahead, and
// compares what they do with the formula of docs/scaling.md.
func TestTheEstimateAgreesWithTheService(t *testing.T) { //nolint:paralleltest // play counts goroutines
	const (
		customers       = 300
		replicas        = 3
		checksPerSecond = 2
		warmUp, length  = 20 * time.Minute, 30 * time.Minute
	)
	for _, tc := range []struct {
		name     string
		exponent float64
		trust    time.Duration
		store    func(*testing.T, func() time.Time) []*cache.Store
	}{
		{"one Redis", 1, unsubscribedAge, func(t *testing.T, now func() time.Time) (stores []*cache.Store) {
			server := cachetest.StartRedis(t)
			for range replicas {
				stores = append(stores, storeOn(t, server, now))
			}
			return stores
		}},
		{"no Redis", 1.2, 0, func(t *testing.T, now func() time.Time) (stores []*cache.Store) {
			for range replicas {
				store, err := cache.New(cache.Config{Now: now})
				if err != nil {
					t.Fatal(err)
				}
				stores = append(stores, store)
			}
			return stores
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { //nolint:paralleltest // as above
			f := &fleet{}
			f.clock.Store(time.Now().UnixNano()) // Redis confirms nothing that is older than its own start
			f.stores = tc.store(t, f.now)
			for _, store := range f.stores {
				service, err := evidence.New(f, counting{store, f}, evidence.Config{Now: f.now})
				if err != nil {
					t.Fatal(err)
				}
				f.services = append(f.services, service)
			}
			drawn := zipf(customers, tc.exponent)
			random := rand.New(rand.NewPCG(1, 2)) // the same checks each time
			f.play(t, random, drawn, checksPerSecond, warmUp)
			f.calls.Store(0)
			f.reads.Store(0)
			checks, waited := f.play(t, random, drawn, checksPerSecond, length)

			ranks := population(customers, tc.exponent, float64(checks)/length.Seconds())
			want := demandOf(ranks, replicas, tc.trust > 0, eligibility.DefaultAges())
			near(t, "calls a second", float64(f.calls.Load())/length.Seconds(), want.calls, 0.10)
			near(t, "part of the checks that waited", float64(waited)/float64(checks), want.waited, 0.15)
			if tc.trust > 0 {
				near(t, "reads a second", float64(f.reads.Load())/length.Seconds(), redisReads(ranks, replicas, tc.trust), 0.10)
			}
		})
	}
}

// fleet is several replicas of the service that share a clock and a Partner
// Center.
type fleet struct {
	clock        atomic.Int64
	calls, reads atomic.Int64
	stores       []*cache.Store
	services     []*evidence.Service
}

func (f *fleet) now() time.Time { return time.Unix(0, f.clock.Load()) }

// Fetch implements eligibility.Source. If the customer is the same, so is the
// answer, in the proportions of accounts and qualifications.
func (f *fleet) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	f.calls.Add(1)
	outcomes, answers := accounts(), []eligibility.Evidence{
		{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"},
		{Status: eligibility.AccountStatusNone},
		{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview"},
		{Status: eligibility.AccountStatusNotAllowed, StatusText: "NotAllowed"},
	}
	if query.Facet == eligibility.FacetQualifications {
		inReview := eligibility.Qualification{
			Type: eligibility.QualificationEducation, TypeText: "Education",
			VettingStatus: eligibility.VettingInReview, VettingStatusText: "InReview",
		}
		outcomes, answers = qualifications(), []eligibility.Evidence{{}, {Qualifications: []eligibility.Qualification{inReview}}}
	}
	lot := float64(mix(binary.BigEndian.Uint64(query.CustomerID[:8])+uint64(query.Facet)) % 100)
	which := 0
	for lot >= outcomes[which].percent {
		lot -= outcomes[which].percent
		which++
	}
	return answers[which], eligibility.Call{Attempts: 1, Status: 200}, nil
}

// Room implements evidence.Source: nothing limits the calls.
func (f *fleet) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*fleet) Obstacles(context.Context) []evidence.Obstacle { return nil }

// counting is a store that counts the lookups in Redis.
type counting struct {
	*cache.Store
	fleet *fleet
}

func (c counting) Load(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	c.fleet.reads.Add(1)
	return c.Store.Load(ctx, keys)
}

// play sends checks as a Poisson process. It returns their number, and for how
// many the account was fetched while the caller waited.
func (f *fleet) play(t *testing.T, random *rand.Rand, drawn []float64, rate float64, length time.Duration) (checks, waited int) {
	t.Helper()
	for end := f.now().Add(length); ; checks++ {
		f.clock.Add(int64(random.ExpFloat64() / rate * float64(time.Second)))
		if !f.now().Before(end) {
			return checks, waited
		}
		for i, service := range f.services {
			f.stores[i].Heartbeat(t.Context())
			idle := runtime.NumGoroutine()
			service.RefreshDue()
			await(t, idle)
		}
		at := random.IntN(len(f.services))
		request := eligibility.Request{CustomerID: idOf(min(sort.SearchFloat64s(drawn, random.Float64()), len(drawn)-1))}
		if random.Float64() < educationPart {
			request.Segment = eligibility.SegmentEducation
		}
		idle := runtime.NumGoroutine()
		answer, err := f.services[at].Check(t.Context(), request)
		if err != nil || answer.Stale {
			t.Fatalf("check %d: %+v, %v", checks, answer, err)
		}
		if answer.Tier == eligibility.TierPartnerCenter {
			waited++
		}
		await(t, idle)
	}
}

// await waits until fetches and writes to Redis have ended: before the clock
// advances.
func await(t *testing.T, idle int) {
	t.Helper()
	for runtime.NumGoroutine() > idle && t.Context().Err() == nil {
		runtime.Gosched()
	}
}

// zipf returns the cumulative shares of n customers: the share of rank n is
// proportional to 1/n^exponent. The standard library supports only exponents
// above 1.
func zipf(n int, exponent float64) []float64 {
	cumulative := make([]float64, n)
	sum := 0.0
	for i := range cumulative {
		sum += math.Pow(float64(i+1), -exponent)
		cumulative[i] = sum
	}
	for i := range cumulative {
		cumulative[i] /= sum
	}
	return cumulative
}

func TestTheZipfLawIsOne(t *testing.T) {
	t.Parallel()
	shares := zipf(100_000, 1.2)
	near(t, "the first over the tenth", shares[0]/(shares[9]-shares[8]), math.Pow(10, 1.2), 1e-6)
	ranks := population(100_000, 1.2, 7)
	near(t, "the first of the runs", ranks[0].rate/7, shares[0], 0.01)
	sum, count := 0.0, 0.0
	for _, r := range ranks {
		sum, count = sum+r.count*r.rate, count+r.count
	}
	near(t, "checks a second", sum, 7, 1e-9)
	near(t, "customers", count, 100_000, 1e-9)
}

// idOf returns an ID for the customer of that rank, distributed as Microsoft's
// are.
func idOf(rank int) eligibility.CustomerID {
	var id eligibility.CustomerID
	binary.BigEndian.PutUint64(id[:8], mix(uint64(rank)))  //nolint:gosec // never negative
	binary.BigEndian.PutUint64(id[8:], mix(^uint64(rank))) //nolint:gosec // never negative
	return id
}

// mix spreads x over all bits, after splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within*want {
		t.Errorf("%s: %.4g, want %.4g ± %.3g %%", what, got, want, within*100)
	}
	t.Logf("%s: %.4g, expected %.4g", what, got, want)
}
