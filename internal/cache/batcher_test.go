package cache_test

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// crowd is how many lookups come at once.
const crowd = 64

func customer(n int) []eligibility.Key {
	var id eligibility.CustomerID
	binary.BigEndian.PutUint64(id[:], uint64(n)) //nolint:gosec // n is a count
	return []eligibility.Key{{CustomerID: id}, {CustomerID: id, Facet: eligibility.FacetQualifications}}
}

// crowded is a store whose Redis holds the account of each customer, fetched a
// second apart, with a connection for each round trip: one that is made while
// Redis hangs is another matter.
func crowded(t *testing.T, cfg cache.Config) *cache.Store {
	t.Helper()
	store := newStore(t, cfg)
	for n := range crowd {
		at := start.Add(time.Duration(n) * time.Second)
		store.Share(context.Background(), customer(n)[0], allowed(at), start.Add(time.Hour))
	}
	await(t, "connections", func() bool {
		var callers sync.WaitGroup
		for n := range crowd {
			callers.Go(func() { store.Load(context.Background(), customer(n)) })
		}
		callers.Wait()
		return cache.IdleConnections(store) >= cache.MaxInFlight
	})
	return store
}

// isCustomer reports whether a lookup found what is held about the customer.
func isCustomer(n int, founds []evidence.Found) bool {
	account := founds[0].Evidence
	return account != nil && account.FetchTime.Equal(start.Add(time.Duration(n)*time.Second)) && founds[1].Evidence == nil
}

// reads is how often the server has read from a connection.
func reads(t *testing.T, server *cachetest.Redis) int {
	t.Helper()
	client := server.Client()
	defer func() { _ = client.Close() }()
	info, err := client.Info(context.Background(), "stats").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(info, "total_reads_processed:")
	count, _, _ := strings.Cut(after, "\r\n")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Look-ups that come while others are under way share a round trip, and each
// gets its own answer.
func TestConcurrentReadsShareARoundTrip(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout = 10 * time.Second
	store := crowded(t, cfg)
	cache.BatchLong(store)
	before := reads(t, server)
	server.Stall()
	var callers sync.WaitGroup
	for n := range crowd {
		callers.Go(func() {
			if founds := store.Load(context.Background(), customer(n)); !isCustomer(n, founds) {
				t.Errorf("customer %d: %+v", n, founds)
			}
		})
	}
	awaitBatched(t, store, 2*(crowd-cache.MaxInFlight))
	server.Resume()
	callers.Wait()
	// Those that went alone, those that went together, and who asks here.
	if n := reads(t, server) - before; n > 8 {
		t.Errorf("the server read %d times for %d lookups", n, crowd)
	}
}

// If a caller leaves a round trip that others share, they still get their replies.
func TestACallerThatLeavesCancelsNoOther(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout = 10 * time.Second
	store := crowded(t, cfg)
	cache.BatchLong(store)
	server.Stall()
	var left, stayed sync.WaitGroup
	for n := range crowd / 2 {
		stayed.Go(func() {
			if founds := store.Load(context.Background(), customer(n)); !isCustomer(n, founds) {
				t.Errorf("customer %d: %+v", n, founds)
			}
		})
	}
	awaitBatched(t, store, 2*(crowd/2-cache.MaxInFlight))
	leaving, leave := context.WithCancel(context.Background())
	for n := range crowd / 2 {
		left.Go(func() { store.Load(leaving, customer(n)) })
	}
	awaitBatched(t, store, 2*(crowd-cache.MaxInFlight))
	leave()
	left.Wait() // while Redis still hangs
	server.Resume()
	stayed.Wait()
}

// pipelines is a hook that is called at each round trip for lookups.
type pipelines func()

func (p pipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (p pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		p()
		return next(ctx, cmds)
	}
}

// hanging is a store that bears its Redis, which hangs, for a minute, and how many
// round trips it has begun.
func hanging(t *testing.T) (server *cachetest.Redis, store *cache.Store, flushes *atomic.Int32) {
	t.Helper()
	server, flushes = cachetest.StartRedis(t), new(atomic.Int32)
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout = time.Minute
	store = crowded(t, cfg)
	store.AddHook(pipelines(func() { flushes.Add(1) }))
	server.Stall()
	return server, store, flushes
}

// A caller with little time does not wait for other reads.
func TestACallerInAHurryGoesAlone(t *testing.T) {
	t.Parallel()
	server, store, flushes := hanging(t)
	cache.BatchLong(store)
	var callers sync.WaitGroup
	callers.Go(func() { store.Load(context.Background(), customer(1)) })
	await(t, "the first", func() bool { return flushes.Load() == 1 })
	callers.Go(func() {
		hurrying, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if founds := store.Load(hurrying, customer(2)); !isCustomer(2, founds) {
			t.Errorf("%+v", founds)
		}
	})
	await(t, "who is in a hurry", func() bool { return flushes.Load() == 2 })
	server.Resume()
	callers.Wait()
}

// A batch is flushed soon even if another one hangs.
func TestABatchIsFlushedWhileAnotherHangs(t *testing.T) {
	t.Parallel()
	server, store, flushes := hanging(t)
	var callers sync.WaitGroup
	for n := range 2 {
		callers.Go(func() { store.Load(context.Background(), customer(n)) })
	}
	await(t, "both", func() bool { return flushes.Load() == 2 })
	server.Resume()
	callers.Wait()
}

// If the client panics, only the callers that share the round trip get no answer.
func TestAPanicOfASharedRoundTripIsAFault(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout, cfg.Registerer = 10*time.Second, registry
	store := crowded(t, cfg)
	cache.BatchLong(store)
	var flushes atomic.Int32
	store.AddHook(pipelines(func() {
		if flushes.Add(1) == 2 {
			panic("a mistake")
		}
	}))
	server.Stall()
	var callers sync.WaitGroup
	for n := range crowd {
		callers.Go(func() { store.Load(context.Background(), customer(n)) })
	}
	awaitBatched(t, store, 2*(crowd-cache.MaxInFlight))
	server.Resume()
	callers.Wait()
	if n := gathered(t, registry, faultsTotal); n != 1 {
		t.Errorf("%v faults, want one", n)
	}
	if founds := store.Load(context.Background(), customer(1)); !isCustomer(1, founds) {
		t.Errorf("afterwards: %+v", founds)
	}
}

// A Redis that hangs costs each of many callers the budget and no more, and a
// round trip that many share is one fault.
func TestAStalledRedisCostsACrowdTheBudget(t *testing.T) {
	t.Parallel()
	const budget = 500 * time.Millisecond
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout, cfg.Registerer = budget, registry
	store := crowded(t, cfg)
	server.Stall()
	defer server.Resume()
	var slowest atomic.Int64
	var callers sync.WaitGroup
	for n := range crowd {
		callers.Go(func() {
			began := time.Now()
			store.Load(context.Background(), customer(n))
			for took := int64(time.Since(began)); ; {
				if most := slowest.Load(); most >= took || slowest.CompareAndSwap(most, took) {
					return
				}
			}
		})
	}
	callers.Wait()
	// One budget after the other would take half a minute.
	if took := time.Duration(slowest.Load()); took < budget || took > 10*budget {
		t.Errorf("the slowest lookup took %v, want %v", took, budget)
	}
	if n := gathered(t, registry, faultsTotal); n < 1 || n > crowd/4 {
		t.Errorf("%v faults, want one a round trip", n)
	}
}

// awaitBatched waits until so many keys wait for the next round trip.
func awaitBatched(t *testing.T, store *cache.Store, keys int) {
	t.Helper()
	await(t, "the crowd", func() bool { return cache.Batched(store) == keys })
}
