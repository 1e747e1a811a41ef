package cache

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// heartbeatInterval is how often each server is checked for accepting
	// writes and delivering messages.
	heartbeatInterval = 250 * time.Millisecond
	// silence is after what time without a message the backplane counts as not
	// delivering.
	silence = 800 * time.Millisecond
	// heartbeatTimeout bounds a heartbeat. With heartbeatInterval it is below
	// silence, so that one server that hangs silences no other.
	heartbeatTimeout = 500 * time.Millisecond
	// hanging is after what time without a stored heartbeat a server counts as not
	// accepting writes. One that refuses writes does so at once.
	hanging = 5 * time.Second
	// unsubscribedAge is how long the local tier serves an entry without
	// confirmation while no messages arrive and Redis can be read: newer evidence
	// then replaces older within a second.
	unsubscribedAge = 900 * time.Millisecond
	// clockReadLag is how far a caller's time may be behind a heartbeat that came
	// after the caller read the clock.
	clockReadLag = 100 * time.Millisecond
	// repairTime is how long contents of Redis are not confirmed after a loss of
	// writes: all replicas notice it and repeat theirs within that time.
	repairTime = time.Second
	// fleetRestart is how long a fleet may be without any heartbeat, before its
	// Redis counts as one that may have lost writes unnoticed.
	fleetRestart = 10 * time.Second
)

// serverHealth is the result of heartbeats, by partition: without a cluster, all
// partitions have the same. It is safe for concurrent use and needs no lock.
type serverHealth struct{ partitions [partitions]partitionHealth }

// All times are in Unix ns; zero is never.
type partitionHealth struct {
	// written is when the last heartbeat that was stored was sent; zero once a
	// write was refused.
	written atomic.Int64
	// returned is when the last own heartbeat that came back as a message was sent,
	// and since when that has been so without a gap: messages from before may
	// have been missed.
	returned, since atomic.Int64
	// floor is the time of the last loss of writes: Redis confirms nothing that
	// was fetched before. Until the first heartbeat it is the end of time.
	floor atomic.Int64
	// repairEnd is when the repair after a loss of writes ends.
	repairEnd atomic.Int64
	// silent reports that some replica may not publish.
	silent atomic.Bool
}

func newHealth() *serverHealth {
	h := new(serverHealth)
	for i := range h.partitions {
		h.partitions[i].floor.Store(math.MaxInt64)
	}
	return h
}

// recent reports whether a moment is less than limit before now. It is false after
// the clock was set back, until the next heartbeat.
func recent(moment, now int64, limit time.Duration) bool {
	ago := now - moment
	return ago >= -int64(clockReadLag) && ago < int64(limit)
}

// writable reports whether Redis accepts writes.
func (p *partitionHealth) writable(now int64) bool {
	return recent(p.written.Load(), now, hanging) && p.floor.Load() != math.MaxInt64
}

// responds reports whether Redis has just stored a heartbeat: it does not hang, whatever
// another server of a cluster does.
func (p *partitionHealth) responds(now int64) bool {
	return p.writable(now) && recent(p.written.Load(), now, silence)
}

// refuses reports whether Redis has refused the last write.
func (p *partitionHealth) refuses() bool {
	return p.written.Load() == 0 && p.floor.Load() != math.MaxInt64
}

// confirms reports whether evidence that was read from Redis just now is the
// newest, as far as any replica knows.
func (p *partitionHealth) confirms(fetched, now time.Time) bool {
	ns := now.UnixNano()
	return p.writable(ns) && !p.predates(fetched) && !p.isRepairing(ns)
}

// predates reports whether evidence was fetched before the last loss of writes.
func (p *partitionHealth) predates(fetched time.Time) bool {
	return fetched.UnixNano() < p.floor.Load()
}

// raise records the floor that a server returned. A known one that is higher stays:
// the partition may have moved from a server that has lost writes to one that has
// not, or a replica whose clock is behind has lowered the floor.
func (p *partitionHealth) raise(floor, now int64) {
	if known := p.floor.Load(); known <= floor || known > now+int64(eligibility.ClockTolerance) {
		p.floor.Store(floor)
	}
}

func (p *partitionHealth) isRepairing(now int64) bool {
	left := p.repairEnd.Load() - now
	return left > 0 && left <= int64(repairTime)
}

// subscribed reports whether the messages of all replicas arrive here.
func (p *partitionHealth) subscribed(now int64) bool {
	return recent(p.returned.Load(), now, silence) && !p.silent.Load()
}

// trusts reports whether the local tier may serve an entry that was last
// confirmed then, in Unix ns, without asking Redis. If the clock was set back,
// that does not prolong the trust.
func (p *partitionHealth) trusts(confirmed, now int64, maxAge time.Duration) bool {
	if !p.subscribed(now) {
		return within(now-confirmed, min(maxAge, unsubscribedAge))
	}
	return confirmed >= p.since.Load() && within(now-confirmed, maxAge)
}

func within(age int64, limit time.Duration) bool {
	return age < int64(limit) && age >= -int64(eligibility.ClockTolerance)
}

// accepted records that a write sent at that time was stored.
func (p *partitionHealth) accepted(sent int64) { p.written.Store(sent) }

// refused records that a write was not stored.
func (p *partitionHealth) refused() { p.written.Store(0) }

// delivered records that the heartbeat sent then was received as a message.
func (p *partitionHealth) delivered(sent, now int64) {
	if last := p.returned.Load(); !recent(last, sent, silence) {
		p.since.Store(now)
	}
	p.returned.Store(sent)
}

// missed records that messages until now may have been missed.
func (h *serverHealth) missed(now int64) {
	for i := range h.partitions {
		h.partitions[i].since.Store(now)
	}
}
