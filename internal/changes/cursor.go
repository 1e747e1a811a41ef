package changes

import (
	"context"
	"slices"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// maxEvents is how many events Next returns at most from the ring.
const maxEvents = 256

// notWaiting is the index of a cursor that is not on the list of waiting ones.
const notWaiting = -1

// Event is what a [Cursor] returns: a change of one of its customers, or, while the
// cursor catches up, the mere advance of its token past changes of others.
type Event struct {
	// Change is nil if only the token has advanced.
	Change *Change
	// Position is where the change stands.
	Position Position
	// Redelivered reports that an earlier Cursor, from whose token this one began, may
	// have returned the change, or that a part of the feed was read again. It may then be
	// older than a change of its customer that was returned before, even if it was never
	// returned itself, and the newer one need not follow again: a reader that keeps the
	// latest compares the times of After.
	Redelivered bool
	// Token is where to go on after the event.
	Token string
}

// Cursor is one reader's place in the feed. One goroutine calls Next; others may call
// Progress at the same time. A Cursor that is no longer used needs no closing.
type Cursor struct {
	log       *Log
	customers []eligibility.CustomerID // sorted; empty for all
	mask      uint64                   // the partitions of the customers
	woken     chan struct{}            // receives when the log has taken the cursor off its list

	// ready is what Follow has read and Next has not returned yet, and readyAt the place
	// before it. behind is nil while the cursor reads the ring. Next alone changes them,
	// and holds log.mu.
	ready   []Event
	readyAt place
	behind  *catchUp

	// What follows is guarded by log.mu.

	// redeliver is the last entry that an earlier cursor, or this one before it fell
	// behind, may have returned.
	redeliver Position
	// seq is the number of the next record, and begun that of the first; attached was
	// the end of the ring at that time. While the cursor waits, seq does not count: the
	// cursor is at the end of the ring.
	seq, begun, attached uint64
	at                   place // before seq, if that is not the end
	index                int   // in log.waiting
}

// Next returns the next events, at least one and at most a few hundred, and waits for
// the first until ctx ends. It then returns the error of ctx, and the cursor can be
// used again. Other errors are those of Follow, after which the cursor is of no more
// use. Events of customers whom the cursor does not follow return nothing from Next:
// Progress has the token that they advance.
func (c *Cursor) Next(ctx context.Context) ([]Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var events []Event
		var waits bool
		var err error
		switch {
		case len(c.ready) > 0:
			events = c.takeReady()
		case c.behind != nil:
			events, err = c.catchUp(ctx)
		default:
			events, waits, err = c.read()
		}
		if err != nil || len(events) > 0 {
			c.log.metrics.count(events)
			return events, err
		}
		if !waits {
			continue
		}
		select {
		case <-c.woken:
		case <-ctx.Done():
			c.stopWaiting()
		}
	}
}

func (c *Cursor) takeReady() []Event {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	events := c.ready
	c.ready = nil
	return events
}

// read returns what the ring has for the cursor. If it has nothing, the cursor is put on
// the list of waiting ones and waits is true, or it has fallen behind.
func (c *Cursor) read() (events []Event, waits bool, err error) {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed&c.mask != 0 {
		return nil, false, errUnavailable()
	}
	if c.seq < l.ring.first {
		c.fallBehind()
		return nil, false, nil
	}
	for ; c.seq < l.ring.end() && len(events) < maxEvents; c.seq++ {
		rec := l.ring.get(c.seq)
		if c.misses(rec) {
			if len(events) == 0 {
				return nil, false, errExpired()
			}
			return events, false, nil // the next call fails
		}
		c.at = rec.at
		if rec.change != nil && c.wants(rec) {
			events = append(events, c.event(rec))
		}
	}
	if len(events) > 0 {
		return events, false, nil
	}
	c.index = len(l.waiting)
	l.waiting = append(l.waiting, waiter{c.mask, c})
	return nil, true, nil
}

// misses reports whether the cursor misses entries by a gap, record c.seq: one that was
// already in the ring when the cursor was attached concerns earlier entries than it
// needs. The lock is held.
func (c *Cursor) misses(rec *record) bool {
	return rec.change == nil && rec.bit&c.mask != 0 && c.seq >= c.attached
}

// wants reports whether the cursor returns a record, or fails at it. The lock is held.
func (c *Cursor) wants(rec *record) bool {
	switch {
	case rec.bit&c.mask == 0 || rec.earlier > c.begun: // it has passed the earlier one
		return false
	case rec.change == nil:
		return true
	default:
		return c.follows(rec.change.Key.CustomerID)
	}
}

func (c *Cursor) follows(id eligibility.CustomerID) bool {
	if len(c.customers) == 0 {
		return true
	}
	_, found := slices.BinarySearchFunc(c.customers, id, compareIDs)
	return found
}

func (c *Cursor) event(rec *record) Event {
	e := Event{Change: rec.change, Position: rec.position, Redelivered: rec.again || !c.redeliver.Before(rec.position), Token: rec.token}
	if rec.at.last.Before(c.redeliver) {
		e.Token = c.log.token(place{rec.at.through, c.redeliver})
	}
	return e
}

// attach places the cursor in the ring, before all entries later than from, in Unix
// ms. It returns false if some of them have left the ring. The lock is held.
func (c *Cursor) attach(from int64) bool {
	number, ok := c.log.ring.after(from)
	if ok {
		c.seq, c.begun, c.attached, c.behind = number, number, c.log.ring.end(), nil
	}
	return ok
}

// fallBehind makes the cursor catch up from the feed. The lock is held.
func (c *Cursor) fallBehind() {
	c.redeliver = latest(c.redeliver, c.at.last)
	c.behind = &catchUp{after: Position{Millis: earlier(c.at.through)}, rereads: c.log.rereads}
}

// stopWaiting takes the cursor off the list of waiting ones.
func (c *Cursor) stopWaiting() {
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	if c.index == notWaiting {
		<-c.woken // the log was faster
		return
	}
	c.log.stopWaiting(c, c.log.ring.end(), c.log.at)
}

// Progress is how far a [Cursor] has come.
type Progress struct {
	// Token is where to go on.
	Token string
	// Through is the time up to which all changes were returned.
	Through time.Time
	// Oldest is the time of the oldest change that is kept; zero if none is.
	Oldest time.Time
}

// Progress returns how far the cursor has come, by what this process has read.
func (c *Cursor) Progress() Progress {
	l := c.log
	l.mu.Lock()
	at, redeliver, oldest := c.at, c.redeliver, l.oldest
	switch {
	case len(c.ready) > 0:
		at = c.readyAt
	case c.index != notWaiting, c.behind == nil && c.seq == l.ring.end():
		at = l.at
	}
	l.mu.Unlock()
	at.last = latest(at.last, redeliver)
	p := Progress{Token: l.token(at), Through: time.UnixMilli(at.through)}
	if oldest != 0 {
		p.Oldest = time.UnixMilli(oldest)
	}
	return p
}

// earlier returns the time, in Unix ms, at which reading begins again after millis.
func earlier(millis int64) int64 { return max(0, millis-overlap.Milliseconds()) }
