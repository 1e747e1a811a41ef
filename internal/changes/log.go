package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

const (
	// overlap is how much earlier than where it stopped a reader begins after anything
	// that may have lost or moved entries: the clock of a new primary may be behind,
	// and its ids smaller than those that were read.
	overlap = 10 * time.Second
	// unavailableAfter is how long a partition may stay unread before its cursors fail.
	unavailableAfter = time.Minute
	// maxPartitions is the number of bits in a mask of partitions.
	maxPartitions = 64
	// maxCatchUps is how many cursors read the feed at the same time.
	maxCatchUps = 8
)

// LogConfig tunes a [Log]. Its zero value is the documented default.
type LogConfig struct {
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Log is the end of a feed, as this process has read it: one goroutine reads all
// partitions into a ring, and cursors read the ring. A cursor that is older than the
// ring reads the feed itself until it has caught up. It is safe for concurrent use.
type Log struct {
	feed       Feed
	id         FeedID
	outlives   bool
	partitions int
	metrics    *metrics
	condition  *health.Component
	slots      chan struct{} // holds one for each cursor that reads the feed

	mu sync.Mutex
	// What follows is guarded by mu.

	ring ring
	at   place // the end of the ring
	// oldest is the time of the oldest entry that is kept, in Unix ms; 0 if none is.
	oldest int64
	// rereads counts how often a part of the feed was read again.
	rereads uint64
	// complete is when each partition was last read to its end.
	complete [maxPartitions]time.Time
	// loaded and failed are masks of partitions: which have been read to their end
	// once, and which could not be read for unavailableAfter.
	loaded, failed uint64
	changed        chan struct{} // closed and replaced when loaded or failed changes
	waiting        []waiter
}

// waiter is a cursor in Next that has read the ring to its end. The mask is beside the
// pointer, so that most cursors need not be loaded into the processor's cache.
type waiter struct {
	mask uint64
	*Cursor
}

// NewLog returns the Log of a feed of 1 to 64 partitions, for which Run must be called.
func NewLog(feed Feed, cfg LogConfig) (*Log, error) {
	partitions := feed.Partitions()
	if partitions < 1 || partitions > maxPartitions {
		return nil, fmt.Errorf("changes: a feed of %d partitions", partitions)
	}
	l := &Log{
		feed: feed, partitions: partitions, metrics: newMetrics(), condition: health.New(nil),
		slots: make(chan struct{}, maxCatchUps), changed: make(chan struct{}),
		ring: ring{entries: ringEntries, known: make(map[eventKey]uint64)},
	}
	l.id, l.outlives = feed.ID()
	if err := l.register(cfg.Registerer); err != nil {
		return nil, err
	}
	return l, nil
}

// Run reads the feed until ctx ends, and then makes all cursors fail. Call it once.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	for i := range l.partitions {
		l.complete[i] = time.Now()
	}
	l.mu.Unlock()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		newReader(l).run(ctx)
	}()
	// A read that hangs must not keep cursors from failing.
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.checkAvailable()
		case <-ctx.Done():
			<-reading
			l.mu.Lock()
			l.setFailed(l.all())
			l.mu.Unlock()
			return nil
		}
	}
}

func (l *Log) all() uint64 { return ^uint64(0) >> (maxPartitions - l.partitions) }

// checkAvailable makes the cursors of partitions fail that were not read for too long.
func (l *Log) checkAvailable() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var failed uint64
	for i := range l.partitions {
		if time.Since(l.complete[i]) >= unavailableAfter {
			failed |= 1 << i
		}
	}
	l.setFailed(failed)
	if failed != 0 {
		l.condition.Failed(eligibility.KindFeedUnavailable.String())
	}
}

// Health returns how the feed fares: degraded if it could not be read the last time,
// failing if that is so for a minute, in which cursors fail. The kind of an error is
// feed_unavailable. It does not block.
func (l *Log) Health() health.Condition { return l.condition.Read() }

// judge records whether the feed was read. Of a feed that cannot be read for long,
// checkAvailable records more.
func (l *Log) judge(read bool) {
	switch {
	case read:
		l.condition.OK()
	case l.condition.Read().State < health.Degraded:
		l.condition.Degraded(eligibility.KindFeedUnavailable.String())
	}
}

// setFailed wakes the cursors of failed partitions. The lock is held.
func (l *Log) setFailed(failed uint64) {
	if l.failed == failed {
		return
	}
	l.failed = failed
	l.signal()
	l.wake(failed, l.ring.end(), l.at, func(*Cursor) bool { return true })
}

// signal wakes those who wait for a partition to be loaded or to fail. The lock is held.
func (l *Log) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// wake wakes the waiting cursors of a mask that wants returns true for: they go on with
// record seq, before which the place is at. The lock is held.
func (l *Log) wake(mask, seq uint64, at place, wants func(*Cursor) bool) {
	// Backward: stopWaiting moves a cursor from the end, which was looked at.
	for _, w := range slices.Backward(l.waiting) {
		if w.mask&mask != 0 && wants(w.Cursor) {
			l.stopWaiting(w.Cursor, seq, at)
			w.woken <- struct{}{} // has room: it was waiting
		}
	}
}

// stopWaiting takes a cursor off the list. The lock is held.
func (l *Log) stopWaiting(c *Cursor, seq uint64, at place) {
	last := len(l.waiting) - 1
	l.waiting[c.index] = l.waiting[last]
	l.waiting[c.index].index = c.index
	l.waiting[last] = waiter{}
	l.waiting = l.waiting[:last]
	c.index, c.seq, c.at = notWaiting, seq, at
}

// Start is where a [Cursor] begins. The zero value is: with what is written from
// now on.
type Start struct {
	// Token is the token of an earlier Cursor; it takes precedence over Time.
	Token string
	// Time is the time of the first change; zero means from now on, and so does the
	// future. If older changes are no longer kept, the Cursor begins with the oldest.
	Time time.Time
	// Early begins 10 s earlier than now, with changes that are redelivered: for a
	// caller who has them from elsewhere, but perhaps not yet. It has no effect with
	// Token or Time.
	Early bool
	// Customers are those whose changes are read; empty means all.
	Customers []eligibility.CustomerID
}

// Knows reports whether token is a resume token of this feed, expired or not.
func (l *Log) Knows(token string) bool {
	_, _, ok := l.parseToken(token)
	return ok
}

// Follow returns a Cursor that begins at start. Errors are *eligibility.Error:
// KindInvalidArgument if the token is malformed or of another feed,
// KindResumeTokenExpired, KindFeedUnavailable, and of the context. It waits until the
// partitions of the customers have been read for the first time.
func (l *Log) Follow(ctx context.Context, start Start) (*Cursor, error) {
	c := &Cursor{log: l, woken: make(chan struct{}, 1), index: notWaiting, mask: l.all()}
	if len(start.Customers) > 0 {
		c.customers = slices.Clone(start.Customers)
		slices.SortFunc(c.customers, compareIDs)
		c.customers = slices.Clip(slices.Compact(c.customers))
		c.mask = 0
		for _, id := range c.customers {
			c.mask |= l.bit(id)
		}
	}
	var resumed place
	if start.Token != "" {
		at, ended, ok := l.parseToken(start.Token)
		switch {
		case !ok:
			return nil, &eligibility.Error{Kind: eligibility.KindInvalidArgument, Violations: []eligibility.Violation{
				{Field: "resume_token", Description: "is not a resume token of this partner's feed"},
			}, Err: errToken}
		case ended:
			return nil, errExpired()
		}
		resumed = at
	}
	if err := l.awaitLoaded(ctx, c.mask); err != nil {
		return nil, err
	}
	if err := l.begin(c, start, resumed); err != nil || c.behind == nil {
		return c, err
	}
	// The first read finds out whether the token has expired.
	before := c.at
	ready, err := c.catchUp(ctx)
	if err != nil {
		return nil, err
	}
	c.ready, c.readyAt = ready, before
	return c, nil
}

// begin places a new cursor in the ring, or behind it.
func (l *Log) begin(c *Cursor, start Start, resumed place) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var from int64
	switch {
	case start.Token != "":
		if resumed.through < l.at.through-l.feed.Retention().Milliseconds() {
			return errExpired()
		}
		c.redeliver = resumed.last
		// A token of a replica whose reads are ahead, or of a server whose clock was,
		// resumes where this one has read.
		c.at = place{min(resumed.through, l.at.through), resumed.last}
		from = earlier(c.at.through)
	case !start.Time.IsZero():
		c.at = place{through: min(max(start.Time.UnixMilli(), 1)-1, l.at.through)}
		from = c.at.through
	case start.Early:
		c.redeliver, c.at, from = l.at.last, l.at, earlier(l.at.through)
	default:
		end := l.ring.end()
		c.seq, c.begun, c.attached, c.at = end, end, end, l.at
		return nil
	}
	if !c.attach(from) {
		c.behind = &catchUp{after: Position{Millis: from}, byTime: start.Token == "", rereads: l.rereads}
		if start.Token == "" {
			c.behind.after = endOf(from)
		}
	}
	return nil
}

// awaitLoaded waits until the partitions of a mask were read for the first time.
func (l *Log) awaitLoaded(ctx context.Context, mask uint64) error {
	for {
		l.mu.Lock()
		loaded, failed, changed := l.loaded, l.failed, l.changed
		l.mu.Unlock()
		switch {
		case failed&mask != 0:
			return errUnavailable()
		case loaded&mask == mask:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *Log) bit(id eligibility.CustomerID) uint64 { return 1 << l.feed.Partition(id) }

func compareIDs(a, b eligibility.CustomerID) int { return bytes.Compare(a[:], b[:]) }

var (
	errToken   = errors.New("changes: malformed or foreign resume token")
	errRemoved = errors.New("changes: the next changes are no longer kept")
	errUnread  = errors.New("changes: the feed cannot be read")
)

func errExpired() error {
	return &eligibility.Error{Kind: eligibility.KindResumeTokenExpired, Err: errRemoved}
}

func errUnavailable() error {
	return &eligibility.Error{Kind: eligibility.KindFeedUnavailable, Err: errUnread}
}
