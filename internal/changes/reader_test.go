package changes_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// consumer follows changes as a program of a customer does: it keeps tokens, comes back
// with any of them, and checks all that is promised.
type consumer struct {
	start  changes.Start
	cursor *changes.Cursor // nil while it is disconnected
	// owed is the number of the first change that was certainly written after it
	// began.
	owed int
	// began is the time of the newest change that was written before it began. Zero
	// permits that none comes after a newer one.
	began time.Time
	had   []changes.Event // in the order in which they were returned, advances included
	// here are the events of the present cursor, and newest the time of the latest for
	// each customer. A resumed one begins earlier, maybe even before the first began, and
	// so does one that falls behind the ring: it may return changes, marked as redelivered,
	// from before began.
	here   map[string]bool
	newest map[eligibility.Key]time.Time
	// stored are the ids that count, if not all do.
	stored map[string]bool
	// moves permits that events that were lost stand at other positions later: behind
	// newer ones, and unmarked if they have left the ring.
	moves bool
}

// connect begins anew with a log, or goes on after the first n events that it had.
func (c *consumer) connect(ctx context.Context, l *changes.Log, n, written int) error {
	start := c.start
	if len(c.had) > 0 {
		start.Token = c.had[n-1].Token
	}
	cursor, err := l.Follow(ctx, start)
	if err != nil {
		return err
	}
	if start.Token == "" {
		// Its first token is that of its beginning.
		c.owed, c.had = written, []changes.Event{{Token: cursor.Progress().Token}}
	} else {
		c.had = c.had[:n:n]
	}
	c.cursor, c.here, c.newest = cursor, make(map[string]bool), make(map[eligibility.Key]time.Time)
	return nil
}

// read takes what there is within a time.
func (c *consumer) read(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		events, err := c.cursor.Next(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			c.had = append(c.had, changes.Event{Token: c.cursor.Progress().Token})
			return nil
		}
		if err != nil {
			c.cursor = nil
			return err
		}
		for _, e := range events {
			if err := c.take(e); err != nil {
				return err
			}
		}
	}
}

// errPromise is that something promised was not kept.
var errPromise = errors.New("promise broken")

func (c *consumer) take(e changes.Event) error {
	if e.Change != nil {
		id, at := e.Change.ID(), e.Change.After.FetchTime
		known, older := false, false
		for _, had := range c.had {
			if had.Change != nil && had.Change.Key == e.Change.Key {
				known = known || had.Change.ID() == id
				older = older || at.Before(had.Change.After.FetchTime)
			}
		}
		switch {
		case known && !e.Redelivered && !c.moves:
			return fmt.Errorf("%w: %s again without being marked", errPromise, id)
		case !known && older && !e.Redelivered, !c.here[id] && at.Before(c.newest[e.Change.Key]) && !(e.Redelivered && (c.moves || !at.After(c.began))):
			return fmt.Errorf("%w: %s after a newer one", errPromise, id)
		case !c.follows(e.Change.Key.CustomerID):
			return fmt.Errorf("%w: %s of a customer that it does not follow", errPromise, id)
		}
		if !c.here[id] {
			c.here[id], c.newest[e.Change.Key] = true, at
		}
	}
	c.had = append(c.had, e)
	return nil
}

func (c *consumer) follows(id eligibility.CustomerID) bool {
	return len(c.start.Customers) == 0 || slices.Contains(c.start.Customers, id)
}

// complete compares what it had with what was written since it began.
func (c *consumer) complete(written []*changes.Change) error {
	had, exist := make(map[string]bool), make(map[string]bool)
	for _, e := range c.had {
		if e.Change != nil {
			had[e.Change.ID()] = true
		}
	}
	for i, change := range written {
		exist[change.ID()] = true
		if i >= c.owed && c.follows(change.Key.CustomerID) && !had[change.ID()] && (c.stored == nil || c.stored[change.ID()]) {
			return fmt.Errorf("%w: change %d, %s, is missing", errPromise, i, change.ID())
		}
	}
	for id := range had {
		if !exist[id] {
			return fmt.Errorf("%w: %s was never written", errPromise, id)
		}
	}
	return nil
}

func mustKeep(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, errPromise) {
		t.Fatal(err)
	}
}
