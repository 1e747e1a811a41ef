package cache_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// eventIDs are the ids of what a feed holds, which must be readable.
func eventIDs(t *testing.T, store *cache.Store) (ids []string) {
	t.Helper()
	for _, entry := range readAll(t, store.Feed()) {
		ids = append(ids, entry.ID())
	}
	return ids
}

// What Redis lost within the last minute comes back, under the same ids.
func TestLostChangesAreWrittenAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*cachetest.Redis){
		"FLUSHALL":           (*cachetest.Redis).Flush,
		"killed and started": func(server *cachetest.Redis) { server.Kill(); server.Start() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			store := replica(t, sharing(server, "p"))
			began := time.Now()
			share(store, allowed(began))
			share(store, blocked(began.Add(time.Millisecond)))
			share(store, underReview(began.Add(2*time.Millisecond)))
			share(store, underReview(began.Add(3*time.Millisecond)))
			ids := eventIDs(t, store)
			if len(ids) != 3 {
				t.Fatalf("%d changes", len(ids))
			}
			lose(server)
			var page changes.Page
			await(t, "the changes", func() bool {
				page = readPage(store, changes.Position{}, 100)
				return page.Err == nil && len(page.Entries) == 3
			})
			if diff := cmp.Diff(ids, eventIDs(t, store)); diff != "" {
				t.Errorf("ids before and after (-want +got):\n%s", diff)
			}
			assertLinked(t, page.Entries)
		})
	}
}

// A failover may lose the last writes: here, Redis goes back to what it held before
// them.
func TestChangesAfterASnapshotAreWrittenAgain(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	began := time.Now()
	share(one, allowed(began))
	value, feed := client.Dump(ctx, rawKey()).Val(), client.Dump(ctx, feedKey("feed")).Val()
	share(two, blocked(began.Add(time.Millisecond)))
	share(one, allowed(began.Add(2*time.Millisecond)))
	share(two, underReview(began.Add(3*time.Millisecond)))
	ids := eventIDs(t, one)
	server.Flush()
	for key, dump := range map[string]string{rawKey(): value, feedKey("feed"): feed} {
		if err := client.RestoreReplace(ctx, key, time.Hour, dump).Err(); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the last change", func() bool {
		page := readPage(one, changes.Position{}, 100)
		n := len(page.Entries)
		return page.Err == nil && n > 0 && page.Entries[n-1].ID() == ids[3]
	})
	// Each replica repeats its own; which comes first decides which are there.
	entries := readAll(t, two.Feed())
	assertLinked(t, entries)
	for _, entry := range entries {
		if !strings.Contains(strings.Join(ids, " "), entry.ID()) {
			t.Errorf("%s is none of %v", entry.ID(), ids)
		}
	}
}

func TestAFailoverKeepsTheChanges(t *testing.T) {
	t.Parallel()
	set := cachetest.StartSentinel(t)
	cfg := cache.Config{Redis: onSentinel(set)}
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout, cfg.Redis.KeyPrefix, cfg.Redis.Namespace = 5*time.Second, 5*time.Second, "p", "global:partner"
	store := replica(t, cfg)
	began := time.Now()
	for i := range 20 {
		customer := eligibility.Key{CustomerID: eligibility.CustomerID{9, byte(i)}}
		store.Share(ctx, customer, allowed(began), began.Add(time.Hour))
		store.Share(ctx, customer, blocked(began.Add(time.Millisecond)), began.Add(time.Hour))
	}
	old := set.Primary()
	old.Kill()
	share(store, allowed(began.Add(5*time.Millisecond))) // while there is no primary
	set.AwaitFailover(old)
	within(t, 30*time.Second, "the changes on the new primary", func() {
		await(t, "the changes", func() bool {
			seen := make(map[string]bool)
			for partition := range store.Feed().Partitions() {
				page := store.Feed().Read(ctx, []changes.Ask{{Partition: partition}}, 1000)[0]
				if page.Err != nil {
					return false
				}
				for _, entry := range page.Entries {
					seen[entry.ID()] = true
				}
			}
			return len(seen) == 41
		})
	})
}

// While Redis is away, each read reports it; what was fetched meanwhile comes later,
// every change of it.
func TestChangesOfAnOutageComeLater(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store := replica(t, sharing(server, "p"))
	began := time.Now()
	share(store, allowed(began))
	server.Stall()
	within(t, 5*time.Second, "a read of a Redis that hangs", func() {
		if page := readPage(store, changes.Position{}, 10); page.Err == nil {
			t.Errorf("%+v", page)
		}
	})
	server.Resume()
	server.Kill()
	within(t, 5*time.Second, "a read without Redis", func() {
		if page := readPage(store, changes.Position{}, 10); page.Err == nil {
			t.Errorf("%+v", page)
		}
	})
	share(store, blocked(began.Add(time.Millisecond)))
	share(store, underReview(began.Add(2*time.Millisecond)))
	share(store, allowed(began.Add(3*time.Millisecond)))
	server.Start()
	var page changes.Page
	await(t, "the changes", func() bool {
		page = readPage(store, changes.Position{}, 100)
		return page.Err == nil && len(page.Entries) == 4
	})
	assertLinked(t, page.Entries)
}

// A server that lacks the last heartbeat may lack changes: nothing is read from it.
func TestTheFeedIsReadFromACurrentServerOnly(t *testing.T) {
	t.Parallel()
	server, stale := cachetest.StartRedis(t), cachetest.StartRedis(t)
	store := newStore(t, sharing(server, "p"))
	store.Heartbeat(ctx)
	share(store, allowed(time.Now()))
	if page := readPage(store, changes.Position{}, 10); page.Err != nil || len(page.Entries) != 1 {
		t.Fatalf("%+v", page)
	}
	store.Connect(t, true, false, sharing(stale, "p").Redis)
	if page := readPage(store, changes.Position{}, 10); page.Err == nil {
		t.Errorf("%+v", page)
	}
}

// What cannot be read, or is from the future, counts as nothing known.
func TestChangesFromWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, *cache.Store, *redis.Client){
		"damaged": func(t *testing.T, _ *cache.Store, client *redis.Client) {
			t.Helper()
			value := client.Get(ctx, rawKey()).Val()
			client.Set(ctx, rawKey(), value[:len(value)-1]+"x", time.Hour)
		},
		"a hash": func(t *testing.T, _ *cache.Store, client *redis.Client) {
			t.Helper()
			client.Del(ctx, rawKey())
			client.HSet(ctx, rawKey(), "a", "b")
		},
		"another version": func(t *testing.T, _ *cache.Store, client *redis.Client) {
			t.Helper()
			client.Set(ctx, rawKey(), "\x01"+client.Get(ctx, rawKey()).Val()[1:], time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			client := server.Client()
			defer func() { _ = client.Close() }()
			store := newStore(t, at(server, start.Add(10*time.Second)))
			shareAt(store, time.Second, allowed)
			spoil(t, store, client)
			shareAt(newStore(t, at(server, start.Add(10*time.Second))), 2*time.Second, blocked)
			wantSteps(t, store, "->Allowed1s", "->NotAllowed2s")
		})
	}
	t.Run("from the future", func(t *testing.T) {
		t.Parallel()
		server := cachetest.StartRedis(t)
		shareAt(newStore(t, at(server, start.Add(time.Hour))), time.Hour, allowed)
		store := newStore(t, at(server, start.Add(10*time.Second)))
		shareAt(store, time.Second, blocked)
		wantSteps(t, store, "->Allowed1h0m0s", "->NotAllowed1s")
	})
}

// formerPutScript is that of the release before there was a feed.
const formerPutScript = `
local new, stored = ARGV[1], redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
redis.pcall('PUBLISH', ARGV[3], ARGV[4] .. new)
`

// During an upgrade, replicas of the former release store evidence without a change.
// Nothing else is lost: the next change starts from their evidence.
func TestReplicasOfTheFormerReleaseLoseOnlyTheirChanges(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	store := newStore(t, at(server, start.Add(10*time.Second)))
	shareAt(store, time.Second, allowed)
	former := cache.EvidenceMessage(key, blocked(start.Add(2*time.Second)))
	const head = 3 + 16
	if err := client.Eval(ctx, formerPutScript, []string{rawKey()}, former[head:], 1_000_000, "p:v2:global:partner:messages", former[:head]).Err(); !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	shareAt(store, 3*time.Second, blocked)
	shareAt(store, 4*time.Second, allowed)
	wantSteps(t, store, "->Allowed1s", "NotAllowed3s>Allowed4s")
}
