package main

import (
	"context"
	"encoding/binary"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// All memory of redis-server is measured, so that its tables of keys and of
// expiry count, which MEMORY USAGE leaves out.
func TestSizesAreAsMeasured(t *testing.T) { //nolint:paralleltest // measures the memory of the process
	t.Run("redis", func(t *testing.T) {
		const filled = 8192
		ctx, server := context.Background(), cachetest.StartRedis(t)
		client, store := clientOf(t, server), storeWith(t, server, time.Now, cache.FeedConfig{MaxEvents: 64}) // one in each partition
		share := func(id eligibility.CustomerID, now time.Time) {
			for key, evidence := range evidenceOf(id, now) {
				store.Share(ctx, key, evidence, now.Add(time.Hour))
			}
		}
		share(eligibility.CustomerID{15: 1}, time.Now()) // loads the scripts
		before := usedMemory(ctx, t, client)
		for i := range filled {
			share(idOf(i), time.Now())
		}
		withHistory := float64(usedMemory(ctx, t, client)-before) / filled
		keys, err := client.Keys(ctx, "*:"+strings.ReplaceAll(idOf(0).String(), "-", "")+":*").Result()
		if err != nil || len(keys) != 6 {
			t.Fatalf("keys of a customer: %v, %v", keys, err)
		}
		var usage int64
		for _, key := range keys {
			n, err := client.MemoryUsage(ctx, key).Result()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("MEMORY USAGE %s: %d", key, n)
			if !strings.HasSuffix(key, ":history") && !strings.HasSuffix(key, ":confirmed") {
				usage += n
			}
		}
		for _, suffix := range []string{":history", ":confirmed"} {
			histories, err := client.Keys(ctx, "*"+suffix).Result()
			if err != nil || len(histories) == 0 {
				t.Fatalf("%d histories, error %v", len(histories), err)
			}
			if err := client.Del(ctx, histories...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		perCustomer := float64(usedMemory(ctx, t, client)-before) / filled
		near(t, "bytes a customer, of all memory", perCustomer, redisBytesPerCustomer, 0.15)
		near(t, "bytes a customer's history", withHistory-perCustomer, redisBytesPerHistory, 0.15)
		if float64(usage) > perCustomer {
			t.Errorf("MEMORY USAGE says %d for a customer's keys, all memory %.0f", usage, perCustomer)
		}
	})
	t.Run("feed", func(t *testing.T) {
		const filled = 8192
		server := cachetest.StartRedis(t)
		client, store := clientOf(t, server), storeOn(t, server, time.Now)
		for i := range filled {
			for key, evidence := range evidenceOf(idOf(i), time.Now()) {
				store.Share(context.Background(), key, evidence, time.Now().Add(time.Hour))
			}
		}
		keys, err := client.Keys(context.Background(), "*:feed").Result()
		if err != nil || len(keys) == 0 {
			t.Fatalf("feeds: %v, %v", keys, err)
		}
		var usage int64
		for _, key := range keys {
			n, err := client.MemoryUsage(context.Background(), key, 0).Result() // of all entries
			if err != nil {
				t.Fatal(err)
			}
			usage += n
		}
		near(t, "bytes a change", float64(usage)/(2*filled), redisBytesPerChange, 0.15)
	})
	t.Run("local tier", func(t *testing.T) {
		const filled = 20_000
		store, err := cache.New(cache.Config{})
		if err != nil {
			t.Fatal(err)
		}
		before := heap()
		now := time.Now()
		for i := range filled {
			for key, evidence := range evidenceOf(idOf(i), now) {
				store.Put(key, evidence)
			}
		}
		near(t, "bytes a customer", float64(heap()-before)/filled, localBytesPerCustomer, 0.20)
		runtime.KeepAlive(store)
	})
}

// evidenceOf returns both facets with separate strings, as when they were
// decoded from Partner Center.
func evidenceOf(id eligibility.CustomerID, now time.Time) map[eligibility.Key]*eligibility.Evidence {
	correlation := func(n byte) string { return eligibility.CustomerID{0: n, 1: id[0], 2: id[1]}.String() }
	return map[eligibility.Key]*eligibility.Evidence{
		{CustomerID: id}: {
			Status: eligibility.AccountStatusAllowed, StatusText: strings.Clone("Allowed"),
			FetchTime: now, CorrelationID: correlation(1),
		},
		{CustomerID: id, Facet: eligibility.FacetQualifications}: {
			Facet: eligibility.FacetQualifications, FetchTime: now, CorrelationID: correlation(2),
			Qualifications: []eligibility.Qualification{{
				Type: eligibility.QualificationEducation, TypeText: strings.Clone("Education"),
				VettingStatus: eligibility.VettingApproved, VettingStatusText: strings.Clone("Approved"),
				VettingCreatedTime: now,
			}},
		},
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // the second run sweeps what the first has freed
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func clientOf(t testing.TB, server *cachetest.Redis) *redis.Client {
	t.Helper()
	client := server.Client()
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// storeOn returns a replica's store with a partner's own namespace, as in
// production.
func storeOn(t testing.TB, server *cachetest.Redis, now func() time.Time) *cache.Store {
	t.Helper()
	return storeWith(t, server, now, cache.FeedConfig{})
}

func storeWith(t testing.TB, server *cachetest.Redis, now func() time.Time, feed cache.FeedConfig) *cache.Store {
	t.Helper()
	store, err := cache.New(cache.Config{Now: now, Feed: feed, Redis: cache.RedisConfig{
		Addresses: []string{server.Address}, ReadTimeout: time.Second, WriteTimeout: time.Second,
		Namespace: "00000000-0000-4000-8000-000000000000@api.partnercenter.microsoft.com",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func usedMemory(ctx context.Context, t testing.TB, client *redis.Client) int64 {
	t.Helper()
	return int64(info(ctx, t, client, "memory", "used_memory"))
}

// info returns a number of INFO.
func info(ctx context.Context, t testing.TB, client *redis.Client, section, name string) float64 {
	t.Helper()
	text, err := client.Info(ctx, section).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("INFO %s says nothing of %s", section, name)
	return 0
}

// Every fetch publishes a message to every replica.
func TestAnnouncementsAreThatLong(t *testing.T) { //nolint:paralleltest // as above
	ctx, server := context.Background(), cachetest.StartRedis(t)
	client, store := clientOf(t, server), storeOn(t, server, time.Now)
	heard := client.PSubscribe(ctx, "*")
	defer heard.Close() //nolint:errcheck // the server ends next
	if _, err := heard.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for key, evidence := range evidenceOf(idOf(0), time.Now()) {
		store.Share(ctx, key, evidence, time.Now().Add(time.Hour))
		message, err := heard.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		bytes += len(message.Payload)
	}
	near(t, "bytes an announcement", float64(bytes)/2, announcementBytes, 0.15)
}

// BenchmarkRedisServer measures the CPU of redis-server: for a lookup of both
// facets, and for a fetch's write and message to 20 replicas.
func BenchmarkRedisServer(b *testing.B) {
	ctx, server := context.Background(), cachetest.StartRedis(b)
	client, store := clientOf(b, server), storeOn(b, server, time.Now)
	spent := func() float64 {
		return info(ctx, b, client, "cpu", "used_cpu_user") + info(ctx, b, client, "cpu", "used_cpu_sys")
	}
	const customers = 1000
	keys := make([][]eligibility.Key, customers)
	for i := range keys {
		for key, evidence := range evidenceOf(idOf(i), time.Now()) {
			keys[i] = append(keys[i], key)
			store.Share(ctx, key, evidence, time.Now().Add(time.Hour))
		}
	}
	b.Run("look-up", func(b *testing.B) {
		before := spent()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				store.Load(ctx, keys[i%customers])
			}
		})
		b.ReportMetric((spent()-before)*1e6/float64(b.N), "server-µs/op")
	})
	b.Run("share", func(b *testing.B) {
		for range 20 {
			listen(ctx, b, client)
		}
		before := spent()
		for i := range b.N {
			now, id := time.Now(), idOf(i%customers)
			key := eligibility.Key{CustomerID: id, Facet: eligibility.FacetAccount}
			binary.BigEndian.PutUint16(key.CustomerID[:2], uint16(i))
			store.Share(ctx, key, evidenceOf(id, now)[eligibility.Key{CustomerID: id}], now.Add(time.Hour))
		}
		b.ReportMetric((spent()-before)*1e6/float64(b.N), "server-µs/op")
	})
}

// listen receives all messages, as a replica does, until the test ends.
func listen(ctx context.Context, tb testing.TB, client *redis.Client) {
	tb.Helper()
	heard := client.PSubscribe(ctx, "*")
	tb.Cleanup(func() { _ = heard.Close() })
	if _, err := heard.Receive(ctx); err != nil {
		tb.Fatal(err)
	}
	go func() {
		for {
			if _, err := heard.Receive(ctx); err != nil {
				return
			}
		}
	}()
}
