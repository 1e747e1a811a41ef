package cache_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const historyLostTotal = "eligibility_history_lost_total"

// pasts are the words and times of the history of key, newest first, each with the time
// of the evidence before.
func pasts(t *testing.T, store *cache.Store) (words []string) {
	t.Helper()
	found, err := store.History(ctx, key.CustomerID)
	if err != nil {
		t.Fatal(err)
	}
	for _, past := range found {
		word := fmt.Sprint(past.Evidence.StatusText, past.Evidence.FetchTime.Sub(start))
		if !past.PreviousTime.IsZero() {
			word += fmt.Sprint(" after ", past.PreviousTime.Sub(start))
		}
		words = append(words, word)
	}
	return words
}

func wantPasts(t *testing.T, store *cache.Store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, pasts(t, store)); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestTheHistoryIsSharedAndBounded(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	cfg := at(server, start.Add(time.Hour))
	one, two := newStore(t, cfg), newStore(t, cfg)
	shareAt(one, 1*time.Second, allowed)
	shareAt(two, 2*time.Second, allowed)
	shareAt(two, 3*time.Second, blocked)
	shareAt(one, 2500*time.Millisecond, underReview) // late
	want := []string{"NotAllowed3s after 2s", "Allowed1s"}
	wantPasts(t, one, want...)
	wantPasts(t, two, want...)
	if left := client.PTTL(ctx, rawKey()+":history").Val(); left < 89*24*time.Hour || left > 90*24*time.Hour {
		t.Errorf("the history expires after %v", left)
	}
	for i := range 60 {
		shareAt(one, time.Duration(4+i)*time.Second, []func(time.Time) *eligibility.Evidence{allowed, blocked}[i%2])
	}
	if found := pasts(t, two); len(found) != 50 || found[0] != "NotAllowed1m3s after 1m2s" || found[49] != "Allowed14s after 13s" {
		t.Errorf("history %q", found)
	}
	if n := client.LLen(ctx, rawKey()+":history").Val(); n != 50 {
		t.Errorf("%d entries, want 50", n)
	}
}

// Evidence that comes back after a loss adds no entry a second time, whether the history
// was lost with it or not.
func TestTheHistoryHasNoChangeTwice(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(client *redis.Client){
		"with its evidence":    func(client *redis.Client) { client.FlushAll(ctx) },
		"only its evidence":    func(client *redis.Client) { client.Del(ctx, rawKey()) },
		"only the history":     func(client *redis.Client) { client.Del(ctx, rawKey()+":history", rawKey()) },
		"its last two entries": func(client *redis.Client) { client.LTrim(ctx, rawKey()+":history", 2, -1); client.Del(ctx, rawKey()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			client := server.Client()
			defer func() { _ = client.Close() }()
			store := newStore(t, at(server, start.Add(10*time.Second)))
			shareAt(store, 1*time.Second, allowed)
			shareAt(store, 2*time.Second, blocked)
			shareAt(store, 3*time.Second, blocked)
			shareAt(store, 4*time.Second, underReview)
			want := []string{"UnderReview4s after 3s", "NotAllowed2s after 1s", "Allowed1s"}
			wantPasts(t, store, want...)
			lose(client)
			for range 3 {
				store.Resubscribe()
				store.FlushOutbox(ctx)
			}
			wantPasts(t, store, want...)
			if n := client.LLen(ctx, rawKey()+":history").Val(); n != int64(len(want)) {
				t.Errorf("%d entries are stored", n) // a reader skips those that it knows
			}
		})
	}
}

// The key of a history may hold anything.
func TestAHistoryThatIsNone(t *testing.T) {
	t.Parallel()
	const kept = "Allowed1s"
	for name, row := range map[string]struct {
		spoil func(client *redis.Client, key string)
		want  []string // after a further change
	}{
		"a string": {func(client *redis.Client, key string) { client.Del(ctx, key); client.Set(ctx, key, "x", 0) }, nil},
		"a hash":   {func(client *redis.Client, key string) { client.Del(ctx, key); client.HSet(ctx, key, "a", "b") }, nil},
		"unsealed entries": {func(client *redis.Client, key string) {
			entry := client.LIndex(ctx, key, 0).Val()
			client.LPush(ctx, key, "", "x", entry[:8], entry[:len(entry)-1], entry+"x", entry[:len(entry)-4]+"seal", strings.Repeat("\x00", 40))
		}, []string{kept}},
		"the entry of another": {func(client *redis.Client, key string) {
			client.LPush(ctx, key, client.LIndex(ctx, strings.Replace(key, ":account:", ":qualifications:", 1), 0).Val())
		}, []string{kept}},
		"an entry twice": {func(client *redis.Client, key string) { client.LPush(ctx, key, client.LIndex(ctx, key, 0).Val()) }, []string{kept}},
		"10,000 entries": {func(client *redis.Client, key string) {
			for range 10 {
				client.RPush(ctx, key, make1000())
			}
		}, []string{kept}},
		"huge entries": {func(client *redis.Client, key string) {
			for range 40 {
				client.LPush(ctx, key, strings.Repeat("x", 256<<10))
			}
		}, []string{kept}},
		"from the future": {func(client *redis.Client, key string) {
			entry := client.LIndex(ctx, key, 0).Val()
			client.LPush(ctx, key, entry[:9]+"\x7f"+entry[10:])
		}, []string{kept}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			client := server.Client()
			defer func() { _ = client.Close() }()
			store := newStore(t, at(server, start.Add(10*time.Second)))
			shareAt(store, 1*time.Second, allowed)
			other := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
			store.Share(ctx, other, fetchedHere(&eligibility.Evidence{Facet: other.Facet}, start), start.Add(time.Hour))
			client.LTrim(ctx, rawKey()+":history", 0, 0)
			row.spoil(client, rawKey()+":history")
			client.Del(ctx, strings.Replace(rawKey(), ":account", ":qualifications:history", 1))
			within(t, 5*time.Second, "a read", func() { wantPasts(t, store, row.want...) })
			shareAt(store, 2*time.Second, blocked)
			wantPasts(t, store, append([]string{"NotAllowed2s after 1s"}, row.want...)...)
			if n := client.LLen(ctx, rawKey()+":history").Val(); n > 50 {
				t.Errorf("%d entries", n)
			}
		})
	}
}

func make1000() (values []any) {
	for range 1000 {
		values = append(values, "x")
	}
	return values
}

// A user who may not write lists stores evidence and its change.
func TestEvidenceIsStoredWithoutTheRightToItsHistory(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"lpush", "lrange", "ltrim"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			setUser(t, []*cachetest.Redis{server}, []any{"old", "on", ">word", "~*", "&*", "+@all", "-" + command})
			registry := prometheus.NewRegistry()
			logs, records := observer.New(zapcore.WarnLevel)
			cfg := at(server, start.Add(10*time.Second))
			cfg.Redis.Username, cfg.Redis.Password, cfg.Registerer, cfg.Logger = "old", "word", registry, zap.New(logs)
			store := newStore(t, cfg)
			shareAt(store, 1*time.Second, underReview)
			shareAt(store, 2*time.Second, blocked)
			seeing := newStore(t, at(server, start.Add(10*time.Second)))
			if found := load(seeing); fetchTime(found) != "2s" {
				t.Errorf("stored: %+v", found)
			}
			wantSteps(t, seeing, "->UnderReview1s", "UnderReview1s>NotAllowed2s")
			if n := gathered(t, registry, historyLostTotal); n != 2 {
				t.Errorf("%v entries lost, want 2", n)
			}
			if n := records.FilterMessageSnippet("history").Len(); n != 1 {
				t.Errorf("%d records, want 1", n)
			}
			wantPasts(t, seeing)
			if _, err := store.History(ctx, key.CustomerID); (err != nil) != (command == "lrange") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A read of the history ends with its caller, and after 2 s, whatever Redis does.
func TestTheHistoryOfARedisThatIsAway(t *testing.T) {
	t.Parallel()
	server, stale := cachetest.StartRedis(t), cachetest.StartRedis(t)
	store := newStore(t, sharing(server, "p"))
	store.Heartbeat(ctx)
	share(store, allowed(time.Now()))
	if found, err := store.History(ctx, key.CustomerID); err != nil || len(found) != 1 {
		t.Errorf("%+v, error %v", found, err)
	}
	server.Stall()
	within(t, 5*time.Second, "a read of a Redis that hangs", func() { wantNoHistory(t, store, ctx) })
	leaving, leave := context.WithTimeout(ctx, 10*time.Millisecond)
	defer leave()
	within(t, time.Second, "a caller without time", func() { wantNoHistory(t, store, leaving) })
	server.Resume()
	store.Connect(t, true, false, sharing(stale, "p").Redis)
	wantNoHistory(t, store, ctx) // it lacks the last heartbeat
}

func wantNoHistory(t *testing.T, store *cache.Store, ctx context.Context) { //nolint:revive // the context is what varies
	t.Helper()
	if found, err := store.History(ctx, key.CustomerID); err == nil {
		t.Errorf("%+v", found)
	}
}

// With an integrity key, who can write to Redis cannot forge a history.
func TestAForgedHistoryIsNotRead(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	cfg := keyed(server, "the right key, thirty-two bytes!")
	cfg.Now = func() time.Time { return start.Add(10 * time.Second) }
	store := newStore(t, cfg)
	shareAt(store, time.Second, allowed)
	forger := at(server, start.Add(10*time.Second))
	forger.Redis.KeyPrefix = "forger"
	shareAt(newStore(t, forger), 2*time.Second, blocked)
	client.LPush(ctx, rawKey()+":history", client.LIndex(ctx, "forger"+strings.TrimPrefix(rawKey(), "p")+":history", 0).Val())
	value := client.Get(ctx, rawKey()).Val() // sealed, for another purpose
	client.LPush(ctx, rawKey()+":history", strings.Repeat("\x00", 8)+value, value)
	wantPasts(t, store, "Allowed1s")
}

// The facts of an entry have a bound, and what they decide is kept.
func TestEntriesOfTheHistoryAreBounded(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	store := newStore(t, at(server, start.Add(time.Minute)))
	key := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	for i := range 50 {
		found := large(start.Add(time.Duration(i) * time.Second))
		if i%2 == 1 {
			found = huge(found.FetchTime)
		}
		store.Share(ctx, key, found, start.Add(48*time.Hour))
	}
	found, err := store.History(ctx, key.CustomerID)
	if err != nil || len(found) != 50 {
		t.Errorf("%d entries, error %v", len(found), err)
	}
	longest := 0
	for _, entry := range client.LRange(ctx, strings.Replace(rawKey(), ":account", ":qualifications:history", 1), 0, -1).Val() {
		longest = max(longest, len(entry))
	}
	if longest > 10<<10 {
		t.Errorf("the longest entry has %d bytes", longest)
	}
}
