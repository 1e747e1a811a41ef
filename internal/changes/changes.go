// Package changes follows what becomes known about customers: the feed of changes,
// the log that each process keeps of its end, and the resume tokens by which a reader
// goes on at any replica.
//
// A change is a fact about one facet of one customer, never a decision. Package cache
// writes the feed together with the evidence; watchers and webhooks read it through
// a [Log].
package changes

import (
	"cmp"
	"context"
	"math"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Type is what happened.
type Type uint8

// The types of change.
const (
	// TypeChanged: Partner Center returned facts that differ from those known before.
	TypeChanged Type = iota
	// TypeAbandoned: a review has lasted so long that it is no longer checked.
	TypeAbandoned
)

// Change is one entry of the feed. It must not be changed once shared.
type Change struct {
	Type Type
	Key  eligibility.Key
	// Before are the facts known before; nil if there were none, or for
	// TypeAbandoned.
	Before *eligibility.Evidence
	// After are the facts of now. Its FetchTime is the time of the change.
	After *eligibility.Evidence
	// PendingSince is since when the review was known; TypeAbandoned only.
	PendingSince time.Time
}

// Position is a place in the stream of one partition: the id of an entry in Redis.
// The zero Position is before all entries.
type Position struct {
	Millis int64 // Unix ms, by the clock of the server that holds the partition
	Seq    uint64
}

// Before reports whether p is before q.
func (p Position) Before(q Position) bool {
	return p.Millis < q.Millis || p.Millis == q.Millis && p.Seq < q.Seq
}

func (p Position) compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Millis, q.Millis), cmp.Compare(p.Seq, q.Seq))
}

// previous returns the position before p.
func (p Position) previous() Position {
	if p.Seq > 0 {
		return Position{p.Millis, p.Seq - 1}
	}
	return endOf(p.Millis - 1)
}

// endOf returns the last position of a millisecond.
func endOf(millis int64) Position { return Position{Millis: millis, Seq: math.MaxUint64} }

// earliest and latest return one of two positions.
func earliest(a, b Position) Position {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b Position) Position {
	if a.Before(b) {
		return b
	}
	return a
}

// Entry is a change and its place.
type Entry struct {
	Position
	*Change
}

// Ask names what to read of one partition.
type Ask struct {
	Partition int
	After     Position // what follows it is read
}

// valid reports whether an entry holds a change, at a place that a token can name.
func (e *Entry) valid() bool { return e.Change != nil && e.After != nil && e.Millis <= maxMillis }

// Page is a part of one partition.
type Page struct {
	// Entries are in the order of their positions. Unreadable and forged ones are
	// left out.
	Entries []Entry
	// First and Last are the positions of the first and the last entry read, unreadable
	// ones included; Ask.After if there was none.
	First, Last Position
	// Full reports that more entries may follow Last.
	Full bool
	// Through is a time of the server's clock, in Unix ms: all that was written up to
	// then is in Entries, unless Full.
	Through int64
	// Oldest is the time of the oldest entry that is kept, in Unix ms; 0 if none is.
	Oldest int64
	// Removed is the newest entry that was removed to bound the stream; zero if none
	// is known.
	Removed Position
	// Err is why the partition could not be read; nothing else is set then.
	Err error
}

// FeedID names a feed in resume tokens.
type FeedID [8]byte

// Feed is where changes are kept. Implementations are safe for concurrent use.
type Feed interface {
	// ID names the feed, and whether it outlives the process: the tokens of one that
	// does not expire with it.
	ID() (id FeedID, outlives bool)
	// Partitions is how many partitions there are, and Partition that of a customer.
	Partitions() int
	Partition(id eligibility.CustomerID) int
	// Read reads up to limit entries of each partition asked, in few round trips, and
	// returns a page for each.
	Read(ctx context.Context, asked []Ask, limit int) []Page
	// Written receives soon after something may have been written, by any replica.
	// One goroutine receives from it.
	Written() <-chan struct{}
	// Retention is how long entries are kept at most.
	Retention() time.Duration
}
