package changes

import (
	"context"
	"math"
	"slices"
	"time"
)

const (
	// pollEvery is how often the feed is read, even if nothing announces an entry.
	pollEvery = time.Second
	// pollPause is the shortest time between two reads, unless there is more to read.
	pollPause = 100 * time.Millisecond
	// pageEntries is how many entries of a partition are read at once.
	pageEntries = 256
	// loadPeriod is how much of the feed is loaded at first, so that readers who
	// resume after a restart are served from memory.
	loadPeriod = 2 * time.Minute
)

// reader reads the partitions of a feed into the ring of a log. One goroutine uses it.
type reader struct {
	log   *Log
	parts []part
	// floor is a time in Unix ms up to which entries were not loaded, or were removed
	// before they were read.
	floor int64
}

// part is how far the reader has come in a partition.
type part struct {
	started bool // the clock of the partition's server was read once
	loaded  bool // the partition was read to its end once
	full    bool // there is more to read at once
	soon    bool // the partition is to be read again without waiting for the next poll
	back    bool // next is earlier than what was read
	// next is where the next read begins, and begin the earliest place for it.
	next, begin Position
	// atNext reports that an entry at next was read, if only an unreadable one: if it
	// has vanished since, the server has lost writes, or the feed was begun anew.
	atNext bool
	// checked reports that the last page had room for no more than the entry at next.
	// The read after it begins behind that entry, and does not notice if it vanishes then.
	checked bool
	// high is the latest entry that was ever read.
	high Position
	// clock is the server's clock at the last read, and through the time up to which
	// all was read; both in Unix ms.
	clock, through int64
	oldest         int64
	complete       time.Time // when it was last read to its end; zero if never
}

func newReader(l *Log) *reader {
	return &reader{log: l, parts: make([]part, l.partitions)}
}

// run polls until ctx ends.
func (r *reader) run(ctx context.Context) {
	// Never zero: two timers that end before they are waited for crash the race detector
	// in a bubble of testing/synctest (go1.26.8, runtime.timer.maybeRunChan).
	timer := time.NewTimer(time.Nanosecond)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.log.feed.Written():
			timer.Reset(max(time.Nanosecond, pollPause-time.Since(last)))
		case <-timer.C:
			last = time.Now()
			for r.read(ctx) {
			}
			pause := pollEvery
			if slices.ContainsFunc(r.parts, func(p part) bool { return p.soon }) {
				pause = pollPause
			}
			timer.Reset(pause)
		}
	}
}

// read reads all partitions once and publishes what is new. more reports that one of
// them has more to read.
func (r *reader) read(ctx context.Context) (more bool) {
	start := time.Now()
	asked := make([]Ask, len(r.parts))
	for i := range asked {
		asked[i] = Ask{Partition: i, After: r.parts[i].from()}
	}
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	pages := r.log.feed.Read(reading, asked, pageEntries)
	if ctx.Err() != nil {
		return false
	}
	var batch []record
	unread := false
	for i, ask := range asked {
		page := &Page{Err: errUnread}
		if len(pages) == len(asked) {
			page = &pages[i]
		}
		batch = append(batch, r.adopt(ask, page, start)...)
		more = more || r.parts[i].full
		unread = unread || page.Err != nil
	}
	slices.SortStableFunc(batch, func(a, b record) int { return a.position.compare(b.position) })
	r.publish(batch)
	if unread || !more {
		r.log.judge(!unread)
	}
	return more
}

// from returns the position after which to read. If an entry was read there, it is read
// again to find out whether it still exists: once next has moved on, nothing shows that
// the server has lost it and that others were written before it.
func (p *part) from() Position {
	switch {
	case !p.started:
		return Position{Millis: math.MaxInt64} // only the clock
	case p.atNext && !p.checked:
		return p.next.previous()
	default:
		return p.next
	}
}

// adopt takes over what a page of a partition brought, and returns its records.
func (r *reader) adopt(ask Ask, page *Page, start time.Time) []record {
	p := &r.parts[ask.Partition]
	again := p.soon
	p.full, p.soon = false, false
	switch {
	case page.Err != nil:
		r.goBack(p, p.clock) // it may be another server that answers next
		return nil
	case !p.started:
		r.begin(p, page)
		return nil
	}
	p.back = false
	vanished := p.atNext && ask.After.Before(p.next) && page.Removed.Before(p.next) &&
		page.First != p.next
	behind := page.Through < p.clock
	p.clock = page.Through
	if behind {
		p.begin = earliest(p.begin, Position{Millis: earlier(page.Through)})
	}
	p.soon = vanished || behind
	var batch []record
	// There may be entries before next, which must be returned before later ones of their
	// customers: the page is read again with them. A clock that goes back each time must
	// not delay it for ever.
	if !p.soon || again {
		batch = r.records(ask, page)
		p.advance(ask, page, start)
	}
	if p.soon {
		r.goBack(p, page.Through)
	}
	return batch
}

// advance moves a partition past a page.
func (p *part) advance(ask Ask, page *Page, start time.Time) {
	p.checked = page.Full && page.Last == p.next
	if p.next.Before(page.Last) {
		p.next, p.atNext = page.Last, true
	} else if !page.Removed.Before(p.next) {
		p.atNext = false
	}
	p.high = latest(p.high, p.next)
	p.oldest = page.Oldest
	if page.Full {
		p.full = ask.After.Before(page.Last)
		p.through = max(p.through, page.Last.Millis-1)
	} else {
		// More may follow in the same millisecond.
		p.through, p.complete, p.loaded = max(0, page.Through-1), start, true
	}
}

// records returns the records of a page: its changes, and a gap if entries were removed
// that were not read.
func (r *reader) records(ask Ask, page *Page) []record {
	p := &r.parts[ask.Partition]
	bit := uint64(1) << ask.Partition
	batch := make([]record, 0, len(page.Entries)+1)
	if p.high.Before(page.Removed) {
		p.high = page.Removed
		r.floor = max(r.floor, page.Removed.Millis)
		if p.loaded {
			batch = append(batch, record{position: page.Removed, bit: bit})
		}
	}
	for _, e := range page.Entries {
		checked := p.atNext && e.Position == p.next
		if checked || !e.valid() || !ask.After.Before(e.Position) || r.log.bit(e.Key.CustomerID) != bit {
			continue
		}
		batch = append(batch, record{change: e.Change, position: e.Position, bit: bit})
		p.high = latest(p.high, e.Position)
	}
	return batch
}

// begin begins with the latest entries of a partition.
func (r *reader) begin(p *part, page *Page) {
	from := max(0, page.Through-loadPeriod.Milliseconds())
	p.started, p.full = true, true
	p.clock, p.through = page.Through, from
	p.begin = endOf(from)
	p.next, p.high = p.begin, p.begin
	r.floor = max(r.floor, from)
	// A token states no more about a partition that was not read yet than is true of
	// a reader who waits for it.
	for i := range r.parts {
		if other := &r.parts[i]; !other.started && other.through == 0 {
			other.through = from
		}
	}
}

// goBack makes the next read of a partition begin earlier than it would, and earlier
// than the server's clock: the entry at next may have been ahead of it. It has no
// effect again before a read succeeds.
func (r *reader) goBack(p *part, clock int64) {
	if !p.started || p.back {
		return
	}
	from := Position{Millis: earlier(min(p.next.Millis, clock))}
	p.next, p.atNext, p.checked, p.back = earliest(p.next, latest(from, p.begin)), false, false, true
	r.log.mu.Lock()
	r.log.rereads++
	r.log.mu.Unlock()
}

// publish adds what is new to the ring and wakes the cursors that it concerns.
func (r *reader) publish(batch []record) {
	l := r.log
	l.mu.Lock()
	defer l.mu.Unlock()
	before, seq := l.at, l.ring.end()
	through := r.parts[0].through
	for i := range r.parts {
		through = min(through, r.parts[i].through)
	}
	batch = slices.DeleteFunc(batch, func(rec record) bool { return rec.change != nil && l.ring.holds(rec.change, rec.position) })
	// Only the last record states that all was read up to through: those before it
	// are delivered without those behind it.
	at := place{min(before.through, through), before.last}
	var mask uint64
	for i := range batch {
		rec := &batch[i]
		if i == len(batch)-1 {
			at.through = through
		}
		at.last = latest(at.last, rec.position)
		rec.again = rec.position.Millis <= l.ring.floor
		rec.at, rec.token = at, l.token(at)
		l.ring.add(*rec)
		mask |= rec.bit
	}
	l.ring.floor = max(l.ring.floor, r.floor)
	l.at = place{through, at.last}
	l.wake(mask, seq, before, func(c *Cursor) bool { return l.ring.concerns(seq, c) })
	l.observe(r.parts)
}

// observe takes over what is known about the partitions. The lock is held.
func (l *Log) observe(parts []part) {
	var loaded uint64
	l.oldest = 0
	for i := range parts {
		p := &parts[i]
		if p.loaded {
			loaded |= 1 << i
			l.complete[i] = p.complete
		}
		if p.oldest != 0 && (l.oldest == 0 || p.oldest < l.oldest) {
			l.oldest = p.oldest
		}
	}
	if l.loaded != loaded {
		l.loaded = loaded
		l.signal()
	}
}
