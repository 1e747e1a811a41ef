package apitest

import (
	"context"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Feed is an in-memory changes.Feed of one partition, as if it outlived processes.
type Feed struct {
	name    byte
	written chan struct{}

	mu      sync.Mutex
	entries []changes.Entry
	removed changes.Position
	last    map[eligibility.Key]*eligibility.Evidence
	down    bool
}

// NewFeed returns a feed. Tokens of one with another name are foreign to it.
func NewFeed(name byte) *Feed {
	return &Feed{name: name, written: make(chan struct{}, 1), last: make(map[eligibility.Key]*eligibility.Evidence)}
}

// ID implements changes.Feed.
func (f *Feed) ID() (changes.FeedID, bool) { return changes.FeedID{f.name}, true }

// Partitions implements changes.Feed.
func (*Feed) Partitions() int { return 1 }

// Partition implements changes.Feed.
func (*Feed) Partition(eligibility.CustomerID) int { return 0 }

// Written implements changes.Feed.
func (f *Feed) Written() <-chan struct{} { return f.written }

// Retention implements changes.Feed.
func (*Feed) Retention() time.Duration { return time.Hour }

// Read implements changes.Feed.
func (f *Feed) Read(_ context.Context, asked []changes.Ask, limit int) []changes.Page {
	f.mu.Lock()
	defer f.mu.Unlock()
	pages := make([]changes.Page, len(asked))
	for i, ask := range asked {
		if f.down {
			pages[i] = changes.Page{Err: context.DeadlineExceeded}
			continue
		}
		page := changes.Page{First: ask.After, Last: ask.After, Through: time.Now().UnixMilli(), Removed: f.removed}
		for _, entry := range f.entries {
			if page.Oldest == 0 {
				page.Oldest = entry.Millis
			}
			switch {
			case !ask.After.Before(entry.Position):
			case len(page.Entries) == limit:
				page.Full = true
			default:
				page.Entries, page.Last = append(page.Entries, entry), entry.Position
				page.First = page.Entries[0].Position
			}
		}
		pages[i] = page
	}
	return pages
}

// SetDown makes reads fail, or work again.
func (f *Feed) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// Write writes the change to evidence about a customer, from what was written before,
// and returns it.
func (f *Feed) Write(customer string, evidence *eligibility.Evidence) *changes.Change {
	id, err := eligibility.ParseCustomerID(customer)
	if err != nil {
		panic(err)
	}
	key := eligibility.Key{CustomerID: id, Facet: evidence.Facet}
	f.mu.Lock()
	change := &changes.Change{Key: key, Before: f.last[key], After: evidence}
	f.last[key] = evidence
	at := changes.Position{Millis: time.Now().UnixMilli()}
	if n := len(f.entries); n > 0 && !f.entries[n-1].Position.Before(at) {
		at = f.entries[n-1].Position
		at.Seq++
	}
	f.entries = append(f.entries, changes.Entry{Position: at, Change: change})
	f.mu.Unlock()
	select {
	case f.written <- struct{}{}:
	default:
	}
	return change
}

// Trim removes all entries.
func (f *Feed) Trim() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.entries); n > 0 {
		f.removed, f.entries = f.entries[n-1].Position, nil
	}
}
