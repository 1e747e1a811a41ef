package changes_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// flakyFeed fails some reads of some partitions.
type flakyFeed struct {
	changes.Feed

	broken *sync.Map // partition → struct{}
}

func (f flakyFeed) Read(ctx context.Context, asked []changes.Ask, limit int) []changes.Page {
	pages := f.Feed.Read(ctx, asked, limit)
	for i, ask := range asked {
		if _, broken := f.broken.Load(ask.Partition); broken {
			pages[i] = changes.Page{Err: errDown}
		}
	}
	return pages
}

// replica is what a process has of the feed: a store with a real Redis, and a log.
type replica struct {
	store *cache.Store
	log   *changes.Log
	stop  func()
}

func startReplica(t *testing.T, server *cachetest.Redis, broken *sync.Map) *replica {
	t.Helper()
	store, err := cache.New(cache.Config{
		Redis: cache.RedisConfig{Addresses: []string{server.Address}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := changes.NewLog(flakyFeed{store.Feed(), broken}, changes.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	changes.HoldEntries(l, 500)
	ctx, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { _ = store.Run(ctx) })
	loops.Go(func() { _ = l.Run(ctx) })
	return &replica{store, l, sync.OnceFunc(func() {
		cancel()
		loops.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})}
}

// ledger is what writers have begun to write.
type ledger struct {
	mu      sync.Mutex
	written []*changes.Change
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.written)
}

// stored returns the ids of the changes in a feed: on a busy machine, Redis may have
// refused one.
func (l *ledger) stored(t *testing.T, feed changes.Feed) map[string]bool {
	t.Helper()
	stored := make(map[string]bool)
	for partition := range feed.Partitions() {
		ask := changes.Ask{Partition: partition}
		for full := true; full; {
			page := feed.Read(t.Context(), []changes.Ask{ask}, 500)[0]
			if page.Err != nil {
				t.Fatal(page.Err)
			}
			for _, e := range page.Entries {
				stored[e.Change.ID()] = true
			}
			ask.After, full = page.Last, page.Full
		}
	}
	if len(stored) < l.len()/2 {
		t.Errorf("the feed has %d of %d changes", len(stored), l.len())
	}
	return stored
}

// write changes the facts of some customers again and again, by any of two stores that
// outlive it.
func (l *ledger) write(ctx context.Context, stores []*replica, customers []eligibility.CustomerID) {
	last := make(map[eligibility.CustomerID]*eligibility.Evidence)
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		change := &changes.Change{Key: eligibility.Key{CustomerID: customers[rand.IntN(len(customers))]}}
		word := "UnderReview"
		if before := last[change.Key.CustomerID]; before != nil && before.StatusText == word {
			word = "Allowed"
		}
		change.After = status(word, time.Time{})
		change.After.SetFetchTime(time.Now())
		last[change.Key.CustomerID] = change.After
		l.mu.Lock()
		l.written = append(l.written, change)
		l.mu.Unlock()
		store := stores[rand.IntN(len(stores))].store
		store.Put(change.Key, change.After)
		store.Share(context.WithoutCancel(ctx), change.Key, change.After, time.Now().Add(time.Hour))
	}
}

// Three processes with a real Redis: one is restarted, reads fail, and consumers come back with any of their tokens.
func TestEveryConsumerGetsEveryChangeFromRedis(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	var broken sync.Map
	replicas := make([]*replica, 3)
	for i := range replicas {
		replicas[i] = startReplica(t, server, &broken)
	}
	defer func() {
		for _, r := range replicas {
			r.stop()
		}
	}()
	var all ledger
	writing, stopWriting := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var customers []eligibility.CustomerID
	for range 3 {
		of := []eligibility.CustomerID{spread(len(customers)), spread(len(customers) + 1), spread(len(customers) + 2)}
		customers = append(customers, of...)
		writers.Go(func() { all.write(writing, replicas[:2], of) })
	}
	defer writers.Wait()
	defer stopWriting()

	consumers := []*consumer{{}, {}, {start: changes.Start{Customers: customers[2:5]}}, {start: changes.Start{Customers: customers[:1]}}}
	began, resumed := 0, 0
	connect := func(c *consumer) {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		n := len(c.had)
		if n > 0 {
			n -= rand.IntN(min(n, 60))
			resumed++
		} else {
			began++
		}
		mayFail(t, c, c.connect(ctx, replicas[rand.IntN(3)].log, n, all.len()))
	}
	for start := time.Now(); time.Since(start) < 8*time.Second; {
		c := consumers[rand.IntN(len(consumers))]
		switch rand.IntN(20) {
		case 0, 1, 2, 3, 4, 5:
			connect(c)
		case 6:
			replicas[2].stop()
			replicas[2] = startReplica(t, server, &broken)
		case 7:
			broken.Store(rand.IntN(64), struct{}{})
		case 8, 9, 10:
			broken.Clear()
		default:
			if c.cursor == nil {
				connect(c)
			}
			if c.cursor != nil {
				mayFail(t, c, c.read(t.Context(), time.Duration(rand.IntN(150))*time.Millisecond))
			}
		}
	}
	stopWriting()
	writers.Wait()
	broken.Clear()
	stored := all.stored(t, replicas[0].store.Feed())
	for i, c := range consumers {
		c.stored = stored
		var missing error
		for deadline := time.Now().Add(20 * time.Second); ; {
			if c.cursor == nil {
				connect(c)
			}
			if c.cursor != nil {
				mayFail(t, c, c.read(t.Context(), 200*time.Millisecond))
			}
			if missing = c.complete(all.written); missing == nil && c.cursor != nil || time.Now().After(deadline) {
				break
			}
		}
		if missing != nil {
			t.Errorf("consumer %d of %d changes: %v", i, all.len(), missing)
		}
	}
	t.Logf("%d changes; %d cursors began, %d resumed", all.len(), began, resumed)
	if began > resumed {
		t.Error("most tokens had expired")
	}
}

// mayFail fails the test if err is none that a consumer must expect.
func mayFail(t *testing.T, c *consumer, err error) {
	t.Helper()
	mustKeep(t, err)
	switch {
	case err == nil, errors.Is(err, context.DeadlineExceeded), kindOf(err) == eligibility.KindFeedUnavailable:
	case kindOf(err) == eligibility.KindResumeTokenExpired:
		c.cursor, c.had = nil, nil // it begins anew
	default:
		t.Fatal(err)
	}
}
