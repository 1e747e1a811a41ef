package changes

import (
	"context"
	"math"
	"math/bits"
	"slices"
	"time"
)

const (
	// catchUpEntries is about how many entries a cursor that catches up reads at once.
	catchUpEntries = 512
	// leastEntries is how many of them are of one partition at least.
	leastEntries = 8
	// readTimeout bounds one read of the feed.
	readTimeout = 5 * time.Second
	// retryAfter is the pause after a read that failed or brought nothing.
	retryAfter = time.Second
)

// catchUp is the state of a cursor that is older than the ring. All partitions are read
// from about the same position on and merged by position.
type catchUp struct {
	// after is where all partitions were read up to, and ahead where some were beyond
	// it: entries may be ahead of the clock of their server.
	after Position
	ahead [maxPartitions]Position
	// byTime permits that entries were removed: the cursor begins with the oldest.
	byTime bool
	// rereads is how often the log had gone back when after was last certain to miss
	// nothing.
	rereads uint64
	// failing is since when the feed cannot be read; zero if it can.
	failing time.Time
	// atEnd reports that the last read brought all there is, but did not reach the
	// ring: the clocks of two servers differ by more than the ring holds.
	atEnd bool
}

// catchUp reads the next entries from the feed and attaches the cursor to the ring if
// they reach it. It returns no event after a failure that may pass.
func (c *Cursor) catchUp(ctx context.Context) ([]Event, error) {
	l, b := c.log, c.behind
	l.mu.Lock()
	failed := l.failed
	if l.rereads != b.rereads { // there may be entries before those that were read
		c.redeliver = latest(c.redeliver, c.at.last)
		b.after = Position{Millis: earlier(min(b.after.Millis, c.at.through))}
		b.ahead, b.rereads = [maxPartitions]Position{}, l.rereads
	}
	l.mu.Unlock()
	if failed&c.mask != 0 {
		return nil, errUnavailable()
	}
	if b.atEnd {
		if err := wait(ctx); err != nil {
			return nil, err
		}
	}
	asked, pages, err := c.readPages(ctx)
	if err != nil {
		return nil, err
	}
	r, ok := c.merge(asked, pages)
	if !ok {
		return nil, b.pause(ctx)
	}
	b.failing = time.Time{}
	if !b.byTime && r.removed.Millis > c.at.through && b.after.Before(r.removed) {
		return nil, errExpired()
	}
	b.byTime = false
	return c.advance(r), nil
}

// pause waits before the feed is read again, or fails.
func (b *catchUp) pause(ctx context.Context) error {
	if b.failing.IsZero() {
		b.failing = time.Now()
	}
	if time.Since(b.failing) >= unavailableAfter {
		return errUnavailable()
	}
	return wait(ctx)
}

func wait(ctx context.Context) error {
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readPages reads the partitions of the cursor, as soon as few enough others read.
func (c *Cursor) readPages(ctx context.Context) ([]Ask, []Page, error) {
	select {
	case c.log.slots <- struct{}{}:
		defer func() { <-c.log.slots }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	asked := make([]Ask, 0, bits.OnesCount64(c.mask))
	for mask := c.mask; mask != 0; mask &= mask - 1 {
		partition := bits.TrailingZeros64(mask)
		asked = append(asked, Ask{Partition: partition, After: latest(c.behind.after, c.behind.ahead[partition])})
	}
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	pages := c.log.feed.Read(reading, asked, max(leastEntries, catchUpEntries/len(asked)))
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if len(pages) != len(asked) {
		return asked[:1], []Page{{Err: errUnread}}, nil
	}
	return asked, pages, nil
}

// merged is what one read of several partitions brought.
type merged struct {
	entries []Entry // of the cursor's customers, in order, up to upTo
	upTo    Position
	full    bool // some partition has more than upTo
	// next is where the next read begins.
	next Position
	// through is a time in Unix ms up to which all is in entries.
	through int64
	removed Position // the newest of all partitions
}

// merge returns false if a partition could not be read.
func (c *Cursor) merge(asked []Ask, pages []Page) (merged, bool) {
	m := merged{upTo: endOf(math.MaxInt64), through: math.MaxInt64}
	for i := range pages {
		page := &pages[i]
		if page.Err != nil || page.Full && !asked[i].After.Before(page.Last) {
			return merged{}, false
		}
		m.removed = latest(m.removed, page.Removed)
		m.through = min(m.through, page.Through-1) // more may follow in the same millisecond
		if page.Full {
			m.full = true
			m.upTo = earliest(m.upTo, page.Last)
		}
	}
	m.next = m.upTo
	if m.through < m.upTo.Millis { // a partition may get more before upTo
		m.next = endOf(m.through)
	}
	if m.full {
		m.through = min(m.through, m.upTo.Millis-1)
	}
	for i, ask := range asked {
		c.behind.ahead[ask.Partition] = latest(ask.After, earliest(pages[i].Last, m.upTo))
		for _, e := range pages[i].Entries {
			if e.valid() && ask.After.Before(e.Position) && !m.upTo.Before(e.Position) && c.follows(e.Key.CustomerID) {
				m.entries = append(m.entries, e)
			}
		}
	}
	slices.SortStableFunc(m.entries, func(a, b Entry) int { return a.Position.compare(b.Position) })
	return m, true
}

// advance moves the cursor past what was read and returns its events: at least one, if
// only to return the token.
func (c *Cursor) advance(m merged) []Event {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	events := make([]Event, 0, len(m.entries)+1)
	at := place{c.at.through, latest(c.at.last, c.redeliver)}
	for _, e := range m.entries {
		at.last = latest(at.last, e.Position)
		events = append(events, Event{Change: e.Change, Position: e.Position, Redelivered: !c.redeliver.Before(e.Position), Token: l.token(at)})
	}
	at.through = max(at.through, m.through)
	if len(events) == 0 {
		events = append(events, Event{})
	}
	events[len(events)-1].Token = l.token(at)
	c.at = at
	c.behind.atEnd = !m.full
	c.behind.after = m.next
	if !m.full {
		c.redeliver = at.last // later ones than m.through may come again
	}
	from := m.through
	if l.rereads != c.behind.rereads {
		from = earlier(from) // the log may have read entries that this read missed
	}
	if c.attach(from) {
		c.redeliver = at.last
	}
	return events
}
