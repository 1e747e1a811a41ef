package cache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// skewed is a config on redis whose clock differs from the real one.
func skewed(redis *cachetest.Redis, by time.Duration) cache.Config {
	cfg := sharing(redis, "p")
	cfg.Now = func() time.Time { return time.Now().Add(by) }
	return cfg
}

// The clock of one replica must neither make the others trust a Redis that has lost
// writes, nor keep them from trusting one that works.
func TestTheWrongClockOfOneReplicaConcernsNoOther(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-time.Hour, -5 * time.Second, 5 * time.Second, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			one, two, late := bare(t, sharing(server, "p")), bare(t, sharing(server, "p")), bare(t, sharing(server, "p"))
			wrong := bare(t, skewed(server, by))
			beat := func() {
				for range 2 {
					for _, store := range []*cache.Store{one, two, late, wrong, one, two, late} {
						store.Heartbeat(ctx)
					}
				}
			}
			beat()
			share(one, allowed(time.Now()))
			beat()
			if found := load(two); found.Evidence == nil || found.MustRevalidate {
				t.Errorf("while Redis works: %+v", found)
			}
			one.DropFromOutbox(key)
			one.Heartbeat(ctx)
			late.Heartbeat(ctx)
			beat()
			if found := load(late); found.Evidence == nil || !found.MustRevalidate {
				t.Errorf("after a loss of writes: %+v", found)
			}
		})
	}
}

// Replies are checked as messages on a connection that subscribes, not on one on
// which an argument is called so.
func TestAPasswordMayBeNamedLikeACommand(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	if err := client.Do(ctx, "ACL", "SETUSER", "subscribe", "on", ">we-subscribe", "~*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	cfg := sharing(server, "p")
	cfg.Redis.Username, cfg.Redis.Password = "subscribe", "we-subscribe"
	store := replica(t, cfg)
	share(store, allowed(time.Now()))
	if found := load(newStore(t, cfg)); found.Evidence == nil {
		t.Error("Redis is not used")
	}
}

// A caller meets no cold connection, whatever server of a cluster its key is on.
func TestConnectionsToAllPrimariesAreKeptOpen(t *testing.T) {
	t.Parallel()
	cluster := cachetest.StartCluster(t)
	store := running(t, cache.Config{Redis: onCluster(cluster)})
	<-store.Connected()
	primaries := 0
	for _, node := range cluster.Nodes {
		client := node.Client()
		t.Cleanup(func() { _ = client.Close() })
		if role, err := client.Do(ctx, "ROLE").Slice(); err != nil || role[0] != "master" {
			continue
		}
		primaries++
		await(t, "connections of readers, claimers and writers", func() bool {
			return strings.Count(client.ClientList(ctx).Val(), "name=eligibilityd ") >= 3*cache.WarmConnections
		})
	}
	if primaries < 3 {
		t.Errorf("%d primaries", primaries)
	}
}

// A cluster that does not respond delays the start no longer than one attempt.
func TestAClusterThatHangsDelaysNoStart(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	server.Stall()
	defer server.Resume()
	store := running(t, cache.Config{Redis: cache.RedisConfig{Mode: cache.RedisCluster, Addresses: []string{server.Address}}})
	within(t, 15*time.Second, "the attempt", func() {
		select {
		case <-store.Connected():
		case <-time.After(20 * time.Second):
		}
	})
}

// A replica repeats what it fetched during an outage. Another may have fetched
// later, and found no room in its outbox.
func TestRepeatedMessagesAreNotConfirmedAfterALoss(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store := replica(t, sharing(server, "p"))
	first := time.Now().Add(-time.Second)
	share(store, allowed(first))
	other := bare(t, sharing(server, "p"))
	other.DropFromOutbox(key)
	other.Heartbeat(ctx)
	store.Heartbeat(ctx)
	store.Receive(cache.EvidenceMessage(key, allowed(first.Add(time.Millisecond))))
	if found := cache.Peek(store, key); !found.Evidence.FetchTime.After(first) || !found.MustRevalidate {
		t.Errorf("of before the loss: %+v", found)
	}
	store.Receive(cache.EvidenceMessage(key, allowed(time.Now())))
	if found := cache.Peek(store, key); found.MustRevalidate {
		t.Errorf("of after the loss: %+v", found)
	}
}
