package cache

import (
	"context"
	"crypto/rand"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// memoryEvents and memoryBytes bound the feed in the process.
	memoryEvents = 10_000
	memoryBytes  = 32 << 20
)

// memoryFeed is the feed without Redis: the last changes of this process, in one
// partition. It is safe for concurrent use.
type memoryFeed struct {
	id        changes.FeedID
	retention time.Duration
	now       func() time.Time
	metrics   *metrics
	written   signal

	mu      sync.Mutex
	entries []changes.Entry  // in order; guarded by mu
	bytes   int              // of entries, approximately; guarded by mu
	last    changes.Position // the newest that was given; guarded by mu
	removed changes.Position // guarded by mu
}

var _ changes.Feed = (*memoryFeed)(nil)

func newMemoryFeed(retention time.Duration, now func() time.Time, metrics *metrics) *memoryFeed {
	f := &memoryFeed{retention: retention, now: now, metrics: metrics, written: newSignal()}
	_, _ = rand.Read(f.id[:]) // never fails
	return f
}

// add records what became known about key.
func (f *memoryFeed) add(key eligibility.Key, before, after *eligibility.Evidence) {
	change := newChange(key, before, after)
	if change == nil {
		return
	}
	f.metrics.changesWritten.Inc()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advance()
	f.entries = append(f.entries, changes.Entry{Position: f.last, Change: change})
	f.bytes += changeBytes(change)
	for len(f.entries) > memoryEvents || f.bytes > memoryBytes {
		f.removed = f.entries[0].Position
		f.bytes -= changeBytes(f.entries[0].Change)
		f.entries[0] = changes.Entry{}
		f.entries = f.entries[1:]
		f.metrics.changesTrimmed.Inc()
	}
	f.written.send()
}

// history returns the last changes of a customer, newest first. latest is what is known
// now of each facet, which confirms the last change if it states the same; nil if nothing
// is.
func (f *memoryFeed) history(id eligibility.CustomerID, latest [2]*eligibility.Evidence) (pasts []evidence.Past) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found [2]int
	for _, entry := range slices.Backward(f.entries) {
		facet, change := entry.Key.Facet, entry.Change
		if entry.Key.CustomerID != id || found[facet] == maxHistory {
			continue
		}
		found[facet]++
		past := evidence.Past{Evidence: change.After}
		if change.Before != nil {
			past.PreviousTime = change.Before.FetchTime
		}
		if by := latest[facet]; by != nil && by.FetchTime.After(change.After.FetchTime) && bounded(by).SameFacts(change.After) {
			past.ConfirmedTime = by.FetchTime
		}
		latest[facet] = change.Before
		pasts = append(pasts, past)
	}
	sortPasts(pasts)
	return pasts
}

// advance gives the next position, which is later than all before it even if the
// clock was set back. The lock is held.
func (f *memoryFeed) advance() {
	if now := f.now().UnixMilli(); now > f.last.Millis {
		f.last = changes.Position{Millis: now}
		return
	}
	f.last.Seq++
}

func changeBytes(change *changes.Change) int {
	const changeBytes = 128
	n := changeBytes + bytesOf(change.After)
	if change.Before != nil {
		n += bytesOf(change.Before)
	}
	return n
}

// ID implements changes.Feed.
func (f *memoryFeed) ID() (id changes.FeedID, outlives bool) { return f.id, false }

// Partitions implements changes.Feed.
func (f *memoryFeed) Partitions() int { return 1 }

// Partition implements changes.Feed.
func (f *memoryFeed) Partition(eligibility.CustomerID) int { return 0 }

// Read implements changes.Feed.
func (f *memoryFeed) Read(_ context.Context, asked []changes.Ask, limit int) []changes.Page {
	pages := make([]changes.Page, len(asked))
	f.mu.Lock()
	defer f.mu.Unlock()
	// A change that is added from now on has a later position than Through.
	f.advance()
	for i, ask := range asked {
		from := sort.Search(len(f.entries), func(i int) bool { return ask.After.Before(f.entries[i].Position) })
		to := min(from+limit, len(f.entries))
		page := changes.Page{
			Entries: append([]changes.Entry(nil), f.entries[from:to]...),
			First:   ask.After,
			Last:    ask.After,
			Full:    to < len(f.entries),
			Through: f.last.Millis - 1,
			Removed: f.removed,
		}
		if from < to {
			page.First, page.Last = f.entries[from].Position, f.entries[to-1].Position
		}
		if len(f.entries) > 0 {
			page.Oldest = f.entries[0].Millis
		}
		pages[i] = page
	}
	return pages
}

// Written implements changes.Feed.
func (f *memoryFeed) Written() <-chan struct{} { return f.written }

// Retention implements changes.Feed.
func (f *memoryFeed) Retention() time.Duration { return f.retention }
