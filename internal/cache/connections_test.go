package cache_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Many stores of one process use the connections of one, and nothing of each
// other's.
func TestStoresShareConnectionsAndNothingElse(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	const partners, pool = 12, 8
	cfg := sharing(redis, "p")
	cfg.Redis.PoolSize = pool
	connections, err := cache.Connect(cfg.Redis)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connections.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg.Connections = connections
	stores := make([]*cache.Store, partners)
	for i := range stores {
		cfg.Redis.Namespace = fmt.Sprintf("p%d/tenant@host", i)
		stores[i] = running(t, cfg)
	}
	another := sharing(redis, "p") // another process
	another.Redis.Namespace = "p0/tenant@host"
	replica := running(t, another)
	for _, store := range append([]*cache.Store{replica}, stores...) {
		<-store.Connected()
		await(t, "a store that is subscribed and writable", store.Works)
	}
	now := time.Now()
	stores[0].Put(key, allowed(now))
	stores[0].Share(context.Background(), key, allowed(now), now.Add(time.Hour))
	if found := load(replica); found.Tier != eligibility.TierRedis {
		t.Errorf("a replica has %+v", found)
	}
	for i, store := range stores[1:] {
		if peeked, found := cache.Peek(store, key), load(store); peeked.Evidence != nil || found.Evidence != nil {
			t.Errorf("store %d has the evidence of store 0", i+1)
		}
		if acquired := store.Acquire(context.Background(), anyEvidence); acquired.Evidence != nil {
			t.Errorf("store %d waited for a fetch of store 0", i+1)
		}
	}
	client := redis.Client()
	defer func() { _ = client.Close() }()
	list, err := client.ClientList(context.Background()).Result()
	if err != nil {
		t.Fatal(err)
	}
	// The other process has a pool and a subscription, too. The client may open a
	// connection more than its bound when many are needed at once.
	if n := strings.Count(list, "name=eligibilityd "); n > 3*pool+partners+1 {
		t.Errorf("%d connections, %d of them subscriptions, for %d stores of a pool of %d, and one store elsewhere", n, strings.Count(list, "sub=2"), partners, pool)
	}
	if err := stores[0].Close(); err != nil {
		t.Fatal(err)
	}
	other := eligibility.Key{CustomerID: eligibility.CustomerID{7}}
	stores[1].Share(context.Background(), other, allowed(now), now.Add(time.Hour))
	if found := stores[1].Load(context.Background(), []eligibility.Key{other})[0]; found.Tier != eligibility.TierRedis && found.Evidence == nil {
		t.Error("a store that closed took the connections of another with it")
	}
}
