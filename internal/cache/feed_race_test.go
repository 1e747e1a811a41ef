package cache_test

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// raceStep is what one replica does.
type raceStep struct {
	kind    string
	fetched time.Duration
	status  string
}

// Whatever replicas do at the same time, with leases or without, and with old
// knowledge: the changes of a key link without a gap, their evidence times increase,
// their ids are unique, and the last one leads to what is stored.
func TestTheChangesOfRacingReplicasLink(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(time.Hour))
	stores := []*cache.Store{newStore(t, cfg), newStore(t, cfg), newStore(t, cfg)}
	var round uint32
	rapid.Check(t, func(rt *rapid.T) {
		round++
		key := eligibility.Key{CustomerID: eligibility.CustomerID{0xee}}
		binary.BigEndian.PutUint32(key.CustomerID[4:], round)
		plan := make([][]raceStep, len(stores))
		for i := range plan {
			plan[i] = rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) raceStep {
				return raceStep{
					kind:    rapid.SampledFrom([]string{"share", "share", "acquire", "forget", "read", "outbox"}).Draw(rt, "kind"),
					fetched: time.Duration(rapid.IntRange(1, 40).Draw(rt, "fetched")) * time.Second,
					status:  rapid.SampledFrom([]string{"Allowed", "NotAllowed", "UnderReview"}).Draw(rt, "status"),
				}
			}), 1, 6).Draw(rt, "replica")
		}
		var all sync.WaitGroup
		for i, store := range stores {
			all.Go(func() {
				for _, step := range plan[i] {
					race(store, key, step)
				}
			})
		}
		all.Wait()
		for _, store := range stores {
			for range 3 {
				store.FlushOutbox(context.Background())
			}
			if n := cache.OutboxEntries(store); n != 0 {
				rt.Fatalf("%d writes left", n)
			}
		}
		assertRaced(rt, stores[0], key)
	})
}

func race(store *cache.Store, key eligibility.Key, step raceStep) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	evidence := &eligibility.Evidence{Status: eligibility.ParseAccountStatus(step.status), StatusText: step.status}
	fetchedHere(evidence, start.Add(step.fetched))
	switch step.kind {
	case "share": // without a lease
		store.Put(key, evidence)
		store.Share(ctx, key, evidence, start.Add(48*time.Hour))
	case "acquire":
		claim := anyEvidence
		claim.Key, claim.NotBefore = key, evidence.FetchTime
		if got := store.Acquire(ctx, claim); got.Evidence == nil && got.Err == nil {
			store.Share(ctx, key, evidence, start.Add(48*time.Hour))
		}
	case "forget":
		store.Forget(key.CustomerID)
	case "read":
		store.Load(ctx, []eligibility.Key{key})
	case "outbox": // repeats what it has, as after an outage
		store.Resubscribe()
		store.FlushOutbox(ctx)
	}
}

func assertRaced(t *rapid.T, store *cache.Store, key eligibility.Key) {
	partition, entries := store.Feed().Partition(key.CustomerID), []changes.Entry(nil)
	page := store.Feed().Read(context.Background(), []changes.Ask{{Partition: partition}}, 10_000)[0]
	if page.Err != nil || page.Full {
		t.Fatalf("%v, full: %t", page.Err, page.Full)
	}
	ids := make(map[string]bool)
	for _, entry := range page.Entries {
		if entry.Key != key {
			continue
		}
		if ids[entry.ID()] {
			t.Fatalf("%s twice", entry.ID())
		}
		ids[entry.ID()] = true
		entries = append(entries, entry)
	}
	assertLinked(t, entries)
	store.Forget(key.CustomerID) // of one millisecond, it may hold other facts
	stored := store.Load(context.Background(), []eligibility.Key{key})[0].Evidence
	switch {
	case stored == nil && len(entries) > 0, stored != nil && len(entries) == 0:
		t.Fatalf("stored %+v, %d changes", stored, len(entries))
	case stored != nil && !stored.SameFacts(entries[len(entries)-1].Change.After):
		t.Fatalf("stored %+v, the last change leads to %+v", stored, entries[len(entries)-1].Change.After)
	}
}
