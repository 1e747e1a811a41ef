package cache_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// onSentinel and onCluster are configs with the budgets of production.
func onSentinel(set *cachetest.Sentinel) cache.RedisConfig {
	return cache.RedisConfig{Mode: cache.RedisSentinel, Addresses: set.Addresses, MasterName: set.MasterName}
}

func onCluster(cluster *cachetest.Cluster) cache.RedisConfig {
	return cache.RedisConfig{Mode: cache.RedisCluster, Addresses: cluster.Addresses}
}

// conforms holds a store on redis to the suite.
func conforms(t *testing.T, redis cache.RedisConfig) {
	t.Helper()
	redis.ReadTimeout, redis.WriteTimeout = 5*time.Second, 5*time.Second // not what the suite is about
	var n atomic.Int32
	cachetest.Run(t, func(t *testing.T, now func() time.Time) evidence.Store {
		redis.KeyPrefix = fmt.Sprint("conformance", n.Add(1))
		return newStore(t, cache.Config{Now: now, Redis: redis})
	})
}

func TestReferenceConforms(t *testing.T) {
	t.Parallel()
	cachetest.Run(t, func(_ *testing.T, now func() time.Time) evidence.Store { return cachetest.NewMemory(now) })
}

// A store works again after each loss of a primary, without a restart, and no caller
// waits for that.
func TestStoreOnSentinel(t *testing.T) {
	t.Parallel()
	set := cachetest.StartSentinel(t)
	conforms(t, onSentinel(set))
	store := newStore(t, cache.Config{Redis: onSentinel(set)})
	goesOn(t, store, "a failover by hand", func() (undo func()) {
		set.Failover()
		return func() {}
	})
	goesOn(t, store, "a primary that stalls", func() (undo func()) {
		primary := set.Primary()
		primary.Stall()
		set.AwaitFailover(primary)
		return primary.Resume
	})
	goesOn(t, store, "the sentinel in use stalls, then the primary is killed", func() (undo func()) {
		sentinel := inUse(t, set.Sentinels, "name=eligibilityd")
		sentinel.Stall()
		primary := set.Primary()
		primary.Kill()
		set.AwaitFailover(primary)
		return sentinel.Resume
	})
}

func TestStoreOnCluster(t *testing.T) {
	t.Parallel()
	cluster := cachetest.StartCluster(t)
	conforms(t, onCluster(cluster))
	store := newStore(t, cache.Config{Redis: onCluster(cluster)})
	name := "{" + cache.PartitionTag(key) + "}"
	goesOn(t, store, "a primary killed", func() (undo func()) {
		primary := cluster.PrimaryOf(name)
		primary.Kill()
		cluster.AwaitFailover(name, primary)
		return primary.Start
	})
	goesOn(t, store, "its successor stalls", func() (undo func()) {
		primary := cluster.PrimaryOf(name)
		primary.Stall()
		cluster.AwaitFailover(name, primary)
		return primary.Resume
	})
}

// Writes to a server of a cluster that hangs must not keep those to the others.
func TestAServerThatHangsDelaysNoWriteToOthers(t *testing.T) {
	t.Parallel()
	cluster := cachetest.StartCluster(t)
	cfg := onCluster(cluster)
	cfg.WriteTimeout = 500 * time.Millisecond
	store := running(t, cache.Config{Redis: cfg})
	primaryOf := func(key eligibility.Key) *cachetest.Redis {
		return cluster.PrimaryOf("{" + cache.PartitionTag(key) + "}")
	}
	hangs := primaryOf(key)
	other := key
	for primaryOf(other) == hangs {
		other.CustomerID[0]++
	}
	share := func(key eligibility.Key) *eligibility.Evidence {
		evidence := allowed(time.Now().Round(0))
		store.Share(t.Context(), key, evidence, evidence.FetchTime.Add(time.Hour))
		return evidence
	}
	isStored := func() bool {
		evidence := share(other)
		found := store.LoadWithin(t.Context(), []eligibility.Key{other})[0]
		return found.Evidence != nil && found.Evidence.FetchTime.Equal(evidence.FetchTime)
	}
	await(t, "a write", isStored)
	hangs.Stall()
	defer hangs.Resume()
	for range 5 { // a busy machine may delay a write, too
		var writes sync.WaitGroup
		for range 8 { // as many as open the circuit breaker, and more
			writes.Go(func() { share(key) })
		}
		writes.Wait()
		if isStored() {
			return
		}
	}
	t.Error("no write to a server that works, while another hangs")
}

// inUse is the sentinel to which the only store is connected, by the output of
// CLIENT LIST.
func inUse(t *testing.T, sentinels []*cachetest.Redis, words string) *cachetest.Redis {
	t.Helper()
	for _, sentinel := range sentinels {
		client := sentinel.Client()
		clients, err := client.ClientList(context.Background()).Result()
		_ = client.Close()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(clients, words) {
			return sentinel
		}
	}
	t.Fatalf("no sentinel has a client with %s", words)
	return nil
}

// goesOn reads evidence all the time while something happens, and then expects
// that the store writes and reads again before that is undone: a server that is
// back would redirect the store.
func goesOn(t *testing.T, store *cache.Store, what string, happens func() (undo func())) {
	t.Helper()
	uses(t, store, "before "+what)
	ctx, stop := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	var worst, late [4]time.Duration
	for i := range worst {
		asking.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				load(store)
				worst[i] = max(worst[i], time.Since(began))
				began = time.Now()
				<-time.After(time.Millisecond) // not all that the machine can do
				late[i] = max(late[i], time.Since(began))
			}
		})
	}
	end := sync.OnceFunc(func() {
		stop()
		asking.Wait()
	})
	defer end()
	undo := happens()
	uses(t, store, "after "+what)
	undo()
	end()
	// The budget is 50 ms. The rest is for a machine that has other things to
	// do, which is late with other timers as well.
	took, by := slices.Max(worst[:]), slices.Max(late[:])
	t.Logf("%s: the longest lookup took %v, the machine was late by %v", what, took, by)
	if took > time.Second+by {
		t.Errorf("%s: a lookup took %v", what, took)
	}
}

// uses waits until what the store shares can be read in Redis again.
func uses(t *testing.T, store *cache.Store, when string) {
	t.Helper()
	began := time.Now()
	for {
		evidence := allowed(time.Now().Round(0))
		store.Share(context.Background(), key, evidence, evidence.FetchTime.Add(time.Hour))
		found := load(store)
		if found.Tier == eligibility.TierRedis && found.Evidence.FetchTime.Equal(evidence.FetchTime) {
			t.Logf("%s: used after %v", when, time.Since(began))
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%s: Redis is not used: %+v", when, found)
		}
		<-time.After(5 * time.Millisecond) // not all that the machine can do
	}
}

// A server that answers all, but late, is as good as away; and is used again
// once it is quick.
func TestSlowRedisCostsTheBudget(t *testing.T) {
	t.Parallel()
	proxy := cachetest.StartProxy(t, cachetest.StartRedis(t))
	store := newStore(t, cache.Config{Redis: cache.RedisConfig{Addresses: []string{proxy.Address}}})
	goesOn(t, store, "answers that are 200 ms late", func() (undo func()) {
		proxy.SetDelay(200 * time.Millisecond)
		for range 5 {
			if found := load(store); found.Tier == eligibility.TierRedis {
				t.Errorf("used: %+v", found)
			}
		}
		proxy.SetDelay(0)
		return func() {}
	})
}
