package cache

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// outboxLife is how long evidence that Redis has stored stays in the outbox:
	// a failover may lose it.
	outboxLife = time.Minute
	// maxOutbox bounds the outbox. If it is full, stored evidence makes room.
	maxOutbox = 4096
	// outboxBatch is how many writes are repeated in one round trip.
	outboxBatch = 128
)

// outbox holds the writes to repeat after an outage: what this process has
// fetched until Redis has it for certain, and what it knows to be newer than the
// contents of Redis. It is safe for concurrent use.
type outbox struct {
	now     func() time.Time
	metrics *metrics

	mu      sync.Mutex
	entries map[eligibility.Key]outboxEntry // guarded by mu
	// lost are the partitions of evidence for which there was no room. Guarded
	// by mu.
	lost [partitions]bool
}

type outboxEntry struct {
	evidence  *eligibility.Evidence
	trail     trail
	keepUntil time.Time
	added     time.Time     // with the monotonic clock, by which it ages
	life      time.Duration // until it need not be stored any more
	pending   bool          // Redis does not have it, as far as is known
	repeats   int           // how often Redis may have lost it
}

func newOutbox(now func() time.Time, metrics *metrics) *outbox {
	return &outbox{now: now, metrics: metrics, entries: make(map[eligibility.Key]outboxEntry)}
}

// trailTo returns the trail of evidence, which is not added yet: what the outbox holds
// of before.
func (o *outbox) trailTo(key eligibility.Key, evidence *eligibility.Evidence) trail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.entries[key].trailTo(evidence)
}

func (e outboxEntry) trailTo(evidence *eligibility.Evidence) trail {
	if e.evidence == nil || !e.evidence.FetchTime.Before(evidence.FetchTime) {
		return e.trail.before(evidence)
	}
	trail := e.trail.with(e.evidence)
	trail.unwritten = e.pending
	return trail
}

// add records evidence and whether Redis has stored it, in place of replaced, which
// is nil if that is not known. If newer evidence is there, evidence that Redis has not
// stored joins its trail: somebody may have had it as an answer. It reports false if
// there is no room for what Redis has not stored.
func (o *outbox) add(key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time, stored bool, replaced *eligibility.Evidence) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, held := o.entries[key]
	if held && old.evidence.FetchTime.After(evidence.FetchTime) && !fromFuture(old.evidence, o.now()) {
		if !stored && !old.trail.holds(evidence) {
			old.trail, old.pending = old.trail.withEarlier(evidence), true
			old.repeats++ // a write under way does not have it
			o.entries[key] = old
		}
		return true
	}
	if !held && len(o.entries) >= maxOutbox && !o.makeRoom() {
		if !stored {
			o.lost[partitionOf(key.CustomerID)] = true
			o.metrics.outboxDropped.Inc()
		}
		return stored
	}
	before := old.trailTo(evidence)
	if before.stored == nil && len(before.passed) == 0 {
		before.stored = replaced
	}
	o.entries[key] = outboxEntry{
		evidence: evidence, trail: before, keepUntil: keepUntil, added: time.Now(), life: max(keepUntil.Sub(o.now()), outboxLife),
		pending: !stored, repeats: old.repeats,
	}
	return true
}

// makeRoom drops an entry that Redis has stored. The lock is held.
func (o *outbox) makeRoom() bool {
	for key, entry := range o.entries {
		if !entry.pending {
			delete(o.entries, key)
			return true
		}
	}
	return false
}

// repeatAll makes flush write every entry again.
func (o *outbox) repeatAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, entry := range o.entries {
		entry.pending = true
		entry.repeats++
		o.entries[key] = entry
	}
}

// takeLost reports whether evidence of one of the partitions was dropped since the
// last call.
func (o *outbox) takeLost(of []int) (lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, partition := range of {
		lost = lost || o.lost[partition]
		o.lost[partition] = false
	}
	return lost
}

// lose records that evidence of a partition was dropped.
func (o *outbox) lose(partition int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost[partition] = true
}

// flush writes what is open to the servers that accept writes. One that hangs would
// delay what is open for others.
func (o *outbox) flush(ctx context.Context, redis *sharedTier) {
	due := slices.DeleteFunc(o.due(), func(write outboxWrite) bool {
		return !redis.health.partitions[partitionOf(write.key.CustomerID)].responds(o.now().UnixNano())
	})
	for i := 0; i < len(due); i += outboxBatch {
		batch := due[i:min(i+outboxBatch, len(due))]
		if redis.putAll(ctx, batch, o.complete) == 0 {
			return
		}
	}
}

// outboxWrite is one write to repeat.
type outboxWrite struct {
	key eligibility.Key
	outboxEntry
}

// due returns what is open and drops what is old enough or need not be kept. What
// is from the future waits: a clock was set back.
func (o *outbox) due() []outboxWrite {
	o.mu.Lock()
	defer o.mu.Unlock()
	var due []outboxWrite
	now := o.now()
	for key, entry := range o.entries {
		age := time.Since(entry.added)
		switch {
		case age >= entry.life, !entry.pending && age >= outboxLife:
			delete(o.entries, key)
		case entry.pending && !fromFuture(entry.evidence, now):
			due = append(due, outboxWrite{key: key, outboxEntry: entry})
		}
	}
	return due
}

// complete records that Redis has stored an entry, unless a newer one has replaced
// it or Redis may have lost it again.
func (o *outbox) complete(write outboxWrite) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if entry, held := o.entries[write.key]; held && entry.evidence == write.evidence && entry.repeats == write.repeats {
		entry.pending = false
		o.entries[write.key] = entry
	}
}

// countPending returns how many entries Redis has not stored.
func (o *outbox) countPending() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, entry := range o.entries {
		if entry.pending {
			n++
		}
	}
	return n
}
