package changes_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// fakeFeed is a feed whose servers do as a test wants. A customer's partition is its
// first byte.
type fakeFeed struct {
	id        changes.FeedID
	outlives  bool
	retention time.Duration
	written   chan struct{}

	mu        sync.Mutex
	parts     []fakePart
	sequence  int // of changes
	reads     int // calls of Read
	reading   int // calls in progress
	atOnce    int // the most calls in progress
	largest   int // the most entries of a page
	delay     time.Duration
	beforeAll func() // called by each Read, without the lock
}

type fakePart struct {
	entries []changes.Entry
	removed changes.Position
	skew    time.Duration // of the server's clock
	lie     time.Duration // added to Through
	down    bool
	limit   int // the most entries of a page; 0 for what is asked
	rewrite func(*changes.Page)
}

func newFeed(partitions int) *fakeFeed {
	return &fakeFeed{
		id: changes.FeedID{1}, outlives: true, retention: time.Hour,
		written: make(chan struct{}, 1), parts: make([]fakePart, partitions),
	}
}

func (f *fakeFeed) ID() (changes.FeedID, bool)              { return f.id, f.outlives }
func (f *fakeFeed) Partitions() int                         { return len(f.parts) }
func (f *fakeFeed) Partition(id eligibility.CustomerID) int { return int(id[0]) % len(f.parts) }
func (f *fakeFeed) Written() <-chan struct{}                { return f.written }
func (f *fakeFeed) Retention() time.Duration                { return f.retention }

var errDown = errors.New("down")

func (f *fakeFeed) Read(ctx context.Context, asked []changes.Ask, limit int) []changes.Page {
	f.mu.Lock()
	f.reads++
	f.reading++
	f.atOnce = max(f.atOnce, f.reading)
	delay, before := f.delay, f.beforeAll
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.reading--
		f.mu.Unlock()
	}()
	if before != nil {
		before()
	}
	pages := make([]changes.Page, len(asked))
	for i, ask := range asked {
		pages[i] = f.page(ask, limit)
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			for i := range pages {
				pages[i] = changes.Page{Err: ctx.Err()}
			}
		}
	}
	return pages
}

func (f *fakeFeed) page(ask changes.Ask, limit int) changes.Page {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &f.parts[ask.Partition]
	if p.down {
		return changes.Page{Err: errDown}
	}
	if p.limit != 0 {
		limit = p.limit
	}
	page := changes.Page{First: ask.After, Last: ask.After, Through: time.Now().Add(p.skew + p.lie).UnixMilli(), Removed: p.removed}
	for _, e := range p.entries {
		if page.Oldest == 0 {
			page.Oldest = e.Millis
		}
		if !ask.After.Before(e.Position) {
			continue
		}
		if len(page.Entries) == limit {
			page.Full = true
			break
		}
		if page.First == ask.After {
			page.First = e.Position
		}
		page.Last = e.Position
		if e.Change != nil {
			page.Entries = append(page.Entries, e)
		}
	}
	f.largest = max(f.largest, len(page.Entries))
	if p.rewrite != nil {
		p.rewrite(&page)
	}
	return page
}

// write appends a change of a customer and returns it. It does not announce it.
func (f *fakeFeed) write(id eligibility.CustomerID) *changes.Change {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sequence++
	change := &changes.Change{Key: eligibility.Key{CustomerID: id}, After: &eligibility.Evidence{
		Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: fetched.Add(time.Duration(f.sequence) * time.Millisecond),
	}}
	f.add(change)
	return change
}

// add appends a change as Redis would. The lock is held.
func (f *fakeFeed) add(change *changes.Change) {
	p := &f.parts[f.Partition(change.Key.CustomerID)]
	at := changes.Position{Millis: time.Now().Add(p.skew).UnixMilli()}
	if n := len(p.entries); n > 0 && !p.entries[n-1].Position.Before(at) {
		at = p.entries[n-1].Position
		at.Seq++
	}
	p.entries = append(p.entries, changes.Entry{Position: at, Change: change})
}

// trim removes the oldest entries of a partition but for n.
func (f *fakeFeed) trim(partition, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &f.parts[partition]
	if remove := len(p.entries) - n; remove > 0 {
		p.removed = p.entries[remove-1].Position
		p.entries = p.entries[remove:]
	}
}

// lose removes the latest n entries of a partition, as a failover does.
func (f *fakeFeed) lose(partition, n int) []changes.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &f.parts[partition]
	keep := max(0, len(p.entries)-n)
	lost := append([]changes.Entry(nil), p.entries[keep:]...)
	p.entries = p.entries[:keep:keep]
	return lost
}

func (f *fakeFeed) set(partition int, set func(*fakePart)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	set(&f.parts[partition])
}

func (f *fakeFeed) readsSoFar() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reads
}

func (f *fakeFeed) announce() {
	select {
	case f.written <- struct{}{}:
	default:
	}
}

// id returns a customer of a partition.
func id(partition, n byte) eligibility.CustomerID { return eligibility.CustomerID{partition, 15: n} }

// startLog runs a log until the test ends or stop is called.
func startLog(t testing.TB, feed changes.Feed, registerer prometheus.Registerer) (l *changes.Log, stop func()) {
	t.Helper()
	l, err := changes.NewLog(feed, changes.LogConfig{Registerer: registerer})
	if err != nil {
		t.Fatal(err)
	}
	return l, run(t, l)
}

// run runs a log until the test ends or stop is called.
func run(t testing.TB, l *changes.Log) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

func follow(t testing.TB, l *changes.Log, start changes.Start) *changes.Cursor {
	t.Helper()
	c, err := l.Follow(t.Context(), start)
	if err != nil {
		t.Fatalf("follow: %v", err)
	}
	return c
}

// next returns the changes that a cursor returns within a time, without mere advances.
func next(t testing.TB, c *changes.Cursor, within time.Duration) []changes.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var all []changes.Event
	for {
		events, err := c.Next(ctx)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("next: %v", err)
			}
			return all
		}
		for _, e := range events {
			if e.Token == "" {
				t.Error("an event without a token")
			}
			if e.Change != nil {
				all = append(all, e)
			}
		}
	}
}

// ids returns the ids of events; those redelivered have a prefix.
func ids(events []changes.Event) []string {
	var all []string
	for _, e := range events {
		s := e.Change.ID()
		if e.Redelivered {
			s = "again " + s
		}
		all = append(all, s)
	}
	return all
}

// idsOf returns the ids of changes.
func idsOf(prefix string, written ...*changes.Change) []string {
	var all []string
	for _, c := range written {
		all = append(all, prefix+c.ID())
	}
	return all
}

func kindOf(err error) eligibility.Kind {
	if e, ok := errors.AsType[*eligibility.Error](err); ok {
		return e.Kind
	}
	return eligibility.KindInternal
}
