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
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// feedKey is a key of the partition of key.
func feedKey(name string) string {
	return "p:v2:global:partner:{" + cache.PartitionTag(key) + "}:" + name
}

// shareAt shares evidence that was fetched d after start.
func shareAt(store *cache.Store, d time.Duration, evidence func(time.Time) *eligibility.Evidence) {
	fetched := start.Add(d)
	store.Share(context.Background(), key, evidence(fetched), fetched.Add(48*time.Hour))
}

func wantSteps(t *testing.T, store *cache.Store, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, steps(readAll(t, store.Feed()))); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func TestTheFeedHasTheChangesOfFacts(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := at(server, start.Add(10*time.Second))
	one, two := newStore(t, cfg), newStore(t, cfg)
	shareAt(one, 1*time.Second, allowed)
	shareAt(two, 2*time.Second, allowed)         // the same facts
	shareAt(one, 3*time.Second, blocked)         // which believed 1 s to be stored
	shareAt(two, 2500*time.Millisecond, allowed) // older
	shareAt(two, 3*time.Second, allowed)         // of the same time
	shareAt(two, time.Hour, allowed)             // from the future
	shareAt(one, 4*time.Second, allowed)
	want := []string{"->Allowed1s", "Allowed2s>NotAllowed3s", "NotAllowed3s>Allowed4s"}
	wantSteps(t, one, want...)
	wantSteps(t, two, want...)
	entry := readAll(t, two.Feed())[1]
	if entry.Key != key || !entry.Change.After.SameFacts(blocked(start)) || entry.Change.Before.FetchTime.IsZero() {
		t.Errorf("%+v", entry.Change)
	}
	if id, outlives := one.Feed().ID(); !outlives {
		t.Error("does not outlive the process")
	} else if other, _ := two.Feed().ID(); other != id {
		t.Errorf("ids %x and %x", id, other)
	}
}

const (
	writtenTotal    = "eligibility_changes_written_total"
	trimmedTotal    = "eligibility_changes_trimmed_total"
	lostTotal       = "eligibility_changes_lost_total"
	unreadableTotal = "eligibility_changes_unreadable_total"
)

// A user from before there was a feed stores evidence, and a server that refuses
// writes gets it once it accepts them.
func TestEvidenceIsStoredWithoutTheRightToItsChange(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"xadd", "xlen", "xrange", "xdel", "time", "zadd", "zscore", "zcard", "zrem"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			setUser(t, []*cachetest.Redis{server}, []any{"old", "on", ">word", "~*", "&*", "+@all", "-" + command})
			registry := prometheus.NewRegistry()
			logs, records := observer.New(zapcore.WarnLevel)
			cfg := at(server, start.Add(10*time.Second))
			cfg.Redis.Username, cfg.Redis.Password, cfg.Registerer, cfg.Logger = "old", "word", registry, zap.New(logs)
			cfg.Reviews, cfg.Feed.MaxEvents = cache.ReviewsConfig{Enabled: true}, 64
			store := newStore(t, cfg)
			shareAt(store, 1*time.Second, underReview)
			shareAt(store, 2*time.Second, blocked)
			if found := load(newStore(t, at(server, start.Add(10*time.Second)))); fetchTime(found) != "2s" {
				t.Errorf("stored: %+v", found)
			}
			refused := command[0] == 'x'
			want := map[string]float64{"xadd": 2, "xlen": 2, "xrange": 2, "xdel": 1}[command] // the first is not trimmed
			if n := gathered(t, registry, lostTotal); n != want {
				t.Errorf("%v changes lost, want %v", n, want)
			}
			if n := records.FilterMessageSnippet("watchers").Len(); (n == 1) != refused {
				t.Errorf("%d records", n)
			}
			if n := gathered(t, registry, "eligibility_reviews_untracked_total"); (n == 1) != (command == "zadd" || command == "zcard") {
				t.Errorf("%v untracked", n)
			}
			if n := cache.OutboxEntries(store); n != 0 {
				t.Errorf("%d writes left", n)
			}
			client := server.Client()
			defer func() { _ = client.Close() }()
			if n := client.XLen(context.Background(), feedKey("feed")).Val(); refused && n > 0 {
				t.Errorf("%d entries that nothing would trim", n)
			}
		})
	}
}

func underReview(fetched time.Time) *eligibility.Evidence {
	return fetchedHere(&eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview"}, fetched)
}

func TestRefusedEvidenceBringsItsChangesLater(t *testing.T) {
	t.Parallel()
	for _, code := range cachetest.Refusals() {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			other := replica(t, sharing(server, "p"))
			one := bare(t, sharing(server, "p"))
			one.Heartbeat(ctx)
			began := time.Now()
			share(one, allowed(began))
			if _, held := heldAs(other, "Allowed"); !held {
				load(other)
			}
			server.RefuseWrites(code)
			share(one, blocked(began.Add(time.Millisecond)))
			await(t, "the message", func() bool { _, held := heldAs(other, "NotAllowed"); return held })
			share(one, underReview(began.Add(2*time.Millisecond)))
			if n := len(readAll(t, one.Feed())); n != 1 {
				t.Errorf("%d changes while Redis refuses writes, want 1", n)
			}
			server.AcceptWrites()
			await(t, "the changes", func() bool {
				one.Heartbeat(ctx)
				one.FlushOutbox(ctx)
				return len(readAll(t, one.Feed())) == 3
			})
			assertLinked(t, readAll(t, one.Feed()))
		})
	}
}

func heldAs(store *cache.Store, word string) (*eligibility.Evidence, bool) {
	found := cache.Peek(store, key).Evidence
	return found, found != nil && found.StatusText == word
}

// The feed's key may hold anything.
func TestAFeedThatIsNoneIsBegunAnew(t *testing.T) {
	t.Parallel()
	year3000 := time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	for name, spoil := range map[string]func(ctx context.Context, client *redis.Client, key string) error{
		"a string": func(ctx context.Context, client *redis.Client, key string) error {
			return client.Set(ctx, key, "x", 0).Err()
		},
		"a hash": func(ctx context.Context, client *redis.Client, key string) error {
			return client.HSet(ctx, key, "a", "b").Err()
		},
		"from the future": func(ctx context.Context, client *redis.Client, key string) error {
			return client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: fmt.Sprintf("%d-7", year3000), Values: []string{"event", "x"}}).Err()
		},
		"at its end": func(ctx context.Context, client *redis.Client, key string) error {
			return client.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: "18446744073709551615-18446744073709551615", Values: []string{"event", "x"}}).Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			client := server.Client()
			defer func() { _ = client.Close() }()
			store := newStore(t, at(server, start.Add(10*time.Second)))
			before := time.Now().UnixMilli()
			if err := spoil(t.Context(), client, feedKey("feed")); err != nil {
				t.Fatal(err)
			}
			if entries := readAll(t, store.Feed()); len(entries) != 0 {
				t.Errorf("read %+v", entries)
			}
			shareAt(store, time.Second, allowed)
			shareAt(store, 2*time.Second, blocked)
			wantSteps(t, store, "->Allowed1s", "Allowed1s>NotAllowed2s")
			page := readPage(store, changes.Position{}, 10)
			if page.Removed.Millis < before || page.Removed.Millis > page.Through+1 {
				t.Errorf("removed %+v", page.Removed)
			}
		})
	}
}

// readPage reads the partition of key.
func readPage(store *cache.Store, after changes.Position, limit int) changes.Page {
	return store.Feed().Read(context.Background(), []changes.Ask{{Partition: cache.PartitionOf(key.CustomerID), After: after}}, limit)[0]
}

// Entries that no replica has written, or that stand in the wrong place, are skipped.
func TestForgedEntriesAreSkipped(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	registry := prometheus.NewRegistry()
	cfg := keyed(server, "the right key, thirty-two bytes!")
	cfg.Registerer, cfg.Now = registry, func() time.Time { return start.Add(10 * time.Second) }
	store := newStore(t, cfg)
	add := func(stream string, values ...string) {
		t.Helper()
		if err := client.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	shareAt(store, time.Second, allowed)
	genuine := client.XRange(ctx, feedKey("feed"), "-", "+").Val()[0].Values["event"].(string)
	forger := at(server, start.Add(10*time.Second)) // without a key
	forger.Redis.KeyPrefix = "forger"
	unsealed := newStore(t, forger)
	shareAt(unsealed, time.Second, blocked)
	forged := client.XRange(ctx, strings.Replace(feedKey("feed"), "p:", "forger:", 1), "-", "+").Val()[0].Values["event"].(string)
	for _, event := range []string{
		forged, "", "x", "{}", `{"integrity":""}`, genuine[1:], genuine[:len(genuine)-1], genuine + " ",
		strings.Replace(genuine, "Allowed", "allowed", 1),
		strings.Replace(genuine, `,"integrity"`, ` ,"integrity"`, 1),
		strings.Replace(genuine, `"}`, `0"}`, 1),
		genuine[:len(genuine)-4] + strings.ToUpper(genuine[len(genuine)-4:]) + " ",
		strings.Repeat("x", 200<<10),
	} {
		add(feedKey("feed"), "event", event)
	}
	add(feedKey("feed"), "other", genuine)
	add(feedKey("feed"), "event", genuine, "more", "x")
	otherPartition := strings.Replace(feedKey("feed"), cache.PartitionTag(key), cache.PartitionTag(eligibility.Key{CustomerID: eligibility.CustomerID{7}}), 1)
	if otherPartition == feedKey("feed") {
		t.Fatal("the same partition")
	}
	add(otherPartition, "event", genuine)
	shareAt(store, 2*time.Second, blocked)
	wantSteps(t, store, "->Allowed1s", "Allowed1s>NotAllowed2s")
	if n := gathered(t, registry, unreadableTotal); n != 16 {
		t.Errorf("%v unreadable, want 16", n)
	}
	// With the previous key it is readable, without any it is not.
	rotated := keyed(server, "another key of thirty-two bytes!", "the right key, thirty-two bytes!")
	if n := len(readAll(t, newStore(t, rotated).Feed())); n != 2 {
		t.Errorf("%d entries with the key rotated, want 2", n)
	}
	if n := len(readAll(t, newStore(t, keyed(server, "another key of thirty-two bytes!")).Feed())); n != 0 {
		t.Errorf("%d entries with another key", n)
	}
}

// A stream full of others' long entries costs no more than a page, and hides nothing.
func TestLongEntriesOfOthersAreSkipped(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	cfg := at(server, start.Add(10*time.Second))
	cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = 10*time.Second, 10*time.Second // for a busy machine
	store := newStore(t, cfg)
	for range 40 {
		if err := client.XAdd(ctx, &redis.XAddArgs{Stream: feedKey("feed"), Values: []string{"event", strings.Repeat("x", 256<<10)}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	shareAt(store, time.Second, allowed)
	var page changes.Page
	await(t, "the feed", func() bool { // a read may time out on a busy machine
		page = readPage(store, changes.Position{}, 100)
		return page.Err == nil
	})
	if page.Err != nil || len(page.Entries) != 1 || page.Full {
		t.Errorf("%+v", page)
	}
}

// An event has a bound, and a page too, whatever the facts are.
func TestEventsAndPagesAreBounded(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	key := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	store := newStore(t, at(server, start.Add(time.Minute)))
	for i := range 30 {
		evidence := huge(start.Add(time.Duration(i) * time.Second))
		if i%2 == 1 { // the longest that is not abridged, each byte of which JSON escapes
			evidence = large(evidence.FetchTime)
			evidence.CorrelationID = strings.Repeat("\x01", 7<<10)
			evidence.Qualifications = []eligibility.Qualification{{TypeText: strings.Repeat("\x01", 500)}}
		}
		store.Share(ctx, key, evidence, start.Add(48*time.Hour))
	}
	longest := 0
	for _, entry := range client.XRange(ctx, feedKey("feed"), "-", "+").Val() {
		longest = max(longest, len(entry.Values["event"].(string)))
	}
	if longest > 128<<10 || longest < 32<<10 {
		t.Errorf("the longest event has %d bytes", longest)
	}
	var got int
	for after, full := (changes.Position{}), true; full; {
		page := readPage(store, after, 1000)
		if page.Err != nil || len(page.Entries) == 0 {
			t.Fatalf("%+v", page)
		}
		got, after, full = got+len(page.Entries), page.Last, page.Full
		if len(page.Entries) == 30 {
			t.Error("all in one page")
		}
	}
	if got != 30 {
		t.Errorf("%d events, want 30", got)
	}
}
