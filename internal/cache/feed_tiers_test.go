package cache_test

import (
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A fetch claims its lease and stores its result, whichever replica made the fetch
// before and whatever facts it brings.
func TestAFetchTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(time.Hour))
	var commands atomic.Int32
	stores := make([]*cache.Store, 2)
	for i := range stores {
		stores[i] = newStore(t, cfg)
		shareAt(stores[i], time.Duration(i)*time.Second, allowed)
		claim := anyEvidence
		claim.CustomerID[15] = byte(i + 1)
		mustAcquire(t, stores[i], claim) // loads the scripts
	}
	for _, store := range stores {
		store.AddHook(eachCommand(func(string) { commands.Add(1) }))
	}
	for i, facts := range []func(time.Time) *eligibility.Evidence{allowed, blocked, underReview, underReview, allowed, allowed, blocked} {
		store, fetched := stores[i/2%2], start.Add(time.Duration(10+i)*time.Second)
		claim := anyEvidence
		claim.Key, claim.NotBefore = key, fetched
		mustAcquire(t, store, claim)
		store.Put(key, facts(fetched))
		store.Share(ctx, key, facts(fetched), start.Add(48*time.Hour))
		if n := commands.Swap(0); n != 2 {
			t.Errorf("fetch %d: %d commands, want 2", i, n)
		}
	}
	if n := len(readAll(t, stores[0].Feed())); n != 5 {
		t.Errorf("%d changes, want 5", n)
	}
}

// Each message with evidence signals that the feed may have more.
func TestMessagesSignalTheFeed(t *testing.T) {
	t.Parallel()
	store := newStore(t, at(cachetest.StartRedis(t), start))
	signaled := func() bool {
		select {
		case <-store.Feed().Written():
			return true
		default:
			return false
		}
	}
	for _, fetched := range []time.Time{start, start, start.Add(-time.Hour), start.Add(time.Hour)} {
		if signaled() {
			t.Error("signaled without a message")
		}
		store.Receive(cache.EvidenceMessage(key, allowed(fetched)))
		store.Receive(cache.EvidenceMessage(key, allowed(fetched)))
		if !signaled() {
			t.Errorf("%v: not signaled", fetched)
		}
	}
	shareAt(store, 0, blocked)
	if !signaled() {
		t.Error("its own change does not signal")
	}
}

func TestTheFeedOnACluster(t *testing.T) {
	t.Parallel()
	// The client goes on trying a dead node for up to a second after it is closed.
	t.Cleanup(func() {
		await(t, "the end of the client", func() bool {
			var stacks strings.Builder
			return pprof.Lookup("goroutine").WriteTo(&stacks, 1) == nil && !strings.Contains(stacks.String(), "tryDial")
		})
	})
	cluster := cachetest.StartCluster(t)
	cfg := cache.Config{Redis: onCluster(cluster)}
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = 5*time.Second, 5*time.Second
	store := replica(t, cfg)
	const customers = 40
	for i := range customers {
		customer := eligibility.Key{CustomerID: eligibility.CustomerID{3, byte(i)}}
		store.Share(ctx, customer, allowed(time.Now()), time.Now().Add(time.Hour))
	}
	ask := make([]changes.Ask, store.Feed().Partitions())
	for i := range ask {
		ask[i].Partition = i
	}
	count := func() (entries, failed int) {
		for _, page := range store.Feed().Read(ctx, ask, 100) {
			entries += len(page.Entries)
			if page.Err != nil {
				failed++
			}
		}
		return entries, failed
	}
	if entries, failed := count(); entries != customers || failed != 0 {
		t.Errorf("%d changes, %d partitions failed", entries, failed)
	}
	// A shard that is away fails its own partitions only, until its replica serves them.
	tag := "{" + cache.PartitionTag(key) + "}"
	old := cluster.PrimaryOf(tag)
	old.Kill()
	if _, failed := count(); failed == 0 || failed > len(ask)/2 {
		t.Errorf("%d partitions failed", failed)
	}
	cluster.AwaitFailover(tag, old)
	await(t, "all changes", func() bool {
		entries, failed := count()
		return entries == customers && failed == 0
	})
}
