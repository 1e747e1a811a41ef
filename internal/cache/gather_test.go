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

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// crowd is how many look-ups come at once.
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
		return cache.IdleConnections(store) >= cache.MaxTrips
	})
	return store
}

// isCustomer reports whether a look-up found what is held about the customer.
func isCustomer(n int, founds []eligibility.Found) bool {
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
func TestLookupsThatComeTogetherGoTogether(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout = 10 * time.Second
	store := crowded(t, cfg)
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
	awaitGathered(t, store, 2*(crowd-cache.MaxTrips))
	server.Resume()
	callers.Wait()
	// Those that went alone, those that went together, and who asks here.
	if n := reads(t, server) - before; n > 8 {
		t.Errorf("the server read %d times for %d look-ups", n, crowd)
	}
}

// Whoever leaves a round trip that others share takes nothing from them, whether
// it was his or not.
func TestACallerWhoLeavesHurtsNoOther(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(2*time.Minute))
	cfg.Redis.ReadTimeout = 10 * time.Second
	store := crowded(t, cfg)
	server.Stall()
	leaving, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	var left, stayed sync.WaitGroup
	for n := range crowd {
		if n%2 == 0 {
			left.Go(func() { store.Load(leaving, customer(n)) })
			continue
		}
		stayed.Go(func() {
			if founds := store.Load(context.Background(), customer(n)); !isCustomer(n, founds) {
				t.Errorf("customer %d: %+v", n, founds)
			}
		})
	}
	awaitGathered(t, store, 2*(crowd-cache.MaxTrips))
	left.Wait() // while Redis still hangs
	server.Resume()
	stayed.Wait()
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
	if took := time.Duration(slowest.Load()); took < budget || took > 2*budget {
		t.Errorf("the slowest look-up took %v, want %v", took, budget)
	}
	if n := gathered(t, registry, faultsTotal); n < 1 || n > 2*cache.MaxTrips {
		t.Errorf("%v faults, want one a round trip", n)
	}
}

// awaitGathered waits until so many keys wait for the next round trip.
func awaitGathered(t *testing.T, store *cache.Store, keys int) {
	t.Helper()
	await(t, "the crowd", func() bool { return cache.Gathered(store) == keys })
}
