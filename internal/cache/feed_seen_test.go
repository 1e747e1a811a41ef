package cache_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// outage makes scripts of a replica fail while it is set: those that it sends do not
// arrive or, if replies are lost, do, and it does not know.
type outage struct{ refuses, losesReplies atomic.Bool }

var errOutage = errors.New("no connection")

func (o *outage) DialHook(next redis.DialHook) redis.DialHook { return next }

func (o *outage) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return o.during(func() error { return next(ctx, cmd) }, cmd)
	}
}

func (o *outage) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return o.during(func() error { return next(ctx, cmds) }, cmds...)
	}
}

func (o *outage) during(send func() error, cmds ...redis.Cmder) error {
	writes := false
	for _, cmd := range cmds {
		writes = writes || strings.HasPrefix(cmd.Name(), "eval")
	}
	if !writes || !o.refuses.Load() && !o.losesReplies.Load() {
		return send()
	}
	if o.losesReplies.Load() {
		_ = send()
	}
	for _, cmd := range cmds {
		cmd.SetErr(errOutage)
	}
	return errOutage
}

// seenStep is what happens to one replica.
type seenStep struct {
	replica int
	kind    string
	status  string
	late    int // how many steps ago a late fetch started
}

// Whatever outages replicas have and whatever they repeat: if somebody saw facts in an
// answer, and others are stored in the end, a change with a later evidence time follows.
// And the changes link, and lead to what is stored.
func TestWhoSawAnAnswerGetsTheChange(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	var round uint32
	rapid.Check(t, func(rt *rapid.T) {
		round++
		key := eligibility.Key{CustomerID: eligibility.CustomerID{0xdd}}
		binary.BigEndian.PutUint32(key.CustomerID[4:], round)
		var clock atomic.Int64
		now := func() time.Time { return start.Add(time.Duration(clock.Load()) * time.Second) }
		const replicas = 3
		var stores [replicas]*cache.Store
		var outages [replicas]outage
		for i := range stores {
			cfg := sharing(server, "p")
			cfg.Now, cfg.Redis.PoolSize = now, 2
			stores[i] = newStoreFor(rt, cfg)
			stores[i].AddHook(&outages[i])
		}
		var seen []*eligibility.Evidence
		for i, step := range rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) seenStep {
			return seenStep{
				replica: rapid.IntRange(0, replicas-1).Draw(rt, "replica"),
				kind:    rapid.SampledFrom([]string{"fetch", "fetch", "fetch", "fetch", "late", "acquire", "acquire", "refuse", "lose", "recover", "recover", "repeat", "flush", "read", "forget"}).Draw(rt, "kind"),
				status:  rapid.SampledFrom([]string{"Allowed", "NotAllowed", "UnderReview"}).Draw(rt, "status"),
				late:    rapid.IntRange(1, 6).Draw(rt, "late"),
			}
		}), 1, 25).Draw(rt, "steps") {
			clock.Add(10)
			store, out := stores[step.replica], &outages[step.replica]
			store.Healthy()
			fetched := &eligibility.Evidence{Status: eligibility.ParseAccountStatus(step.status), StatusText: step.status}
			fetchedHere(fetched, now())
			switch step.kind {
			case "late":
				started := now().Add(5*time.Second - time.Duration(step.late)*10*time.Second)
				fetchedHere(fetched, started.Add(time.Duration(i)*time.Millisecond)) // no two at once
				seen = append(seen, answerBy(store, key, fetched))
			case "fetch":
				seen = append(seen, answerBy(store, key, fetched))
			case "acquire":
				claim := anyEvidence
				claim.Key, claim.NotBefore = key, fetched.FetchTime
				if got := store.Acquire(ctx, claim); got.Evidence == nil && got.Err == nil {
					seen = append(seen, answerBy(store, key, fetched))
				}
			case "refuse":
				out.refuses.Store(true)
			case "lose":
				out.losesReplies.Store(true)
			case "recover":
				out.refuses.Store(false)
				out.losesReplies.Store(false)
			case "repeat":
				store.Resubscribe()
				store.FlushOutbox(ctx)
			case "flush":
				store.FlushOutbox(ctx)
			case "read":
				store.Load(ctx, []eligibility.Key{key})
			case "forget":
				store.Forget(key.CustomerID)
			}
		}
		for i, store := range stores {
			outages[i].refuses.Store(false)
			outages[i].losesReplies.Store(false)
			for range 4 {
				clock.Add(10)
				store.Healthy()
				store.FlushOutbox(ctx)
			}
			if n := cache.OutboxEntries(store); n != 0 {
				rt.Fatalf("%d writes left", n)
			}
		}
		assertRaced(rt, stores[0], key)
		assertSeen(rt, stores[0], key, seen)
		for _, store := range stores {
			if err := store.Close(); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func newStoreFor(t rapid.TB, cfg cache.Config) *cache.Store {
	t.Helper()
	store, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	store.Healthy()
	return store
}

// answerBy stores evidence as a fetch does, and returns what its replica answers by.
func answerBy(store *cache.Store, key eligibility.Key, fetched *eligibility.Evidence) *eligibility.Evidence {
	newest := store.Put(key, fetched)
	store.Share(context.Background(), key, fetched, fetched.FetchTime.Add(48*time.Hour))
	return newest
}

func assertSeen(t *rapid.T, store *cache.Store, key eligibility.Key, seen []*eligibility.Evidence) {
	page := store.Feed().Read(ctx, []changes.Ask{{Partition: store.Feed().Partition(key.CustomerID)}}, 10_000)[0]
	if page.Err != nil || page.Full {
		t.Fatalf("%v, full: %t", page.Err, page.Full)
	}
	var last *eligibility.Evidence
	for _, entry := range page.Entries {
		if entry.Key == key {
			last = entry.Change.After
		}
	}
	for _, shown := range seen {
		if shown != nil && !shown.SameFacts(last) && !last.FetchTime.After(shown.FetchTime) {
			t.Fatalf("an answer had %s of %v, the last change is to %s of %v", shown.StatusText, shown.FetchTime.Sub(start), last.StatusText, last.FetchTime.Sub(start))
		}
	}
	var want []string
	for _, entry := range page.Entries {
		if entry.Key == key {
			want = append([]string{fmt.Sprint(entry.Change.After.StatusText, entry.Change.After.FetchTime.Sub(start))}, want...)
		}
	}
	found, err := store.History(ctx, key.CustomerID)
	if err != nil {
		t.Fatal(err)
	}
	for i, past := range found {
		if got := fmt.Sprint(past.Evidence.StatusText, past.Evidence.FetchTime.Sub(start)); i >= len(want) || got != want[i] {
			t.Fatalf("history %d: %s, changes %q", i, got, want)
		}
	}
	if len(found) != min(len(want), 50) {
		t.Fatalf("%d entries of the history, %d changes", len(found), len(want))
	}
}
