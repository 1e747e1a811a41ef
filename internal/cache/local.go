package cache

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// local is the tier in this process: bounded by entries and bytes, without a
// lock that all callers share. What is no longer usable stays until it is
// evicted; the service judges ages at each use.
type local struct {
	entries *otter.Cache[eligibility.Key, entry]
	evicted *atomic.Uint64
	told    *told
}

// entry is what is held under a key. It is never changed, only replaced.
type entry struct {
	evidence *eligibility.Evidence
	// confirmed is the last moment at which, as this process knows, nothing
	// newer was known anywhere: when Redis was asked, or the fetch began.
	confirmed time.Time
}

// newLocal bounds both at once: an entry weighs its bytes, or its share of
// maxBytes where that is more.
func newLocal(maxEntries, maxBytes int) (*local, error) {
	share := max(maxBytes/maxEntries, 1)
	evicted := new(atomic.Uint64)
	entries, err := otter.New(&otter.Options[eligibility.Key, entry]{
		MaximumWeight: uint64(share) * uint64(maxEntries), //nolint:gosec // both are positive
		Weigher: func(_ eligibility.Key, e entry) uint32 {
			return uint32(max(bytesOf(e.evidence), share)) //nolint:gosec // bounded by what an answer may hold
		},
		// A recorder of statistics is told of each look-up as well.
		OnAtomicDeletion: func(e otter.DeletionEvent[eligibility.Key, entry]) {
			if e.WasEvicted() {
				evicted.Add(1)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: local tier: %w", err)
	}
	return &local{entries: entries, evicted: evicted, told: newTold()}, nil
}

// bytesOf is about what an entry takes in memory.
func bytesOf(evidence *eligibility.Evidence) int {
	const entryBytes, evidenceBytes, qualificationBytes = 160, 160, 96
	n := entryBytes + evidenceBytes + len(evidence.StatusText) + len(evidence.CorrelationID)
	for i := range evidence.Qualifications {
		q := &evidence.Qualifications[i]
		n += qualificationBytes + len(q.TypeText) + len(q.VettingStatusText) + len(q.VettingReason)
	}
	return n
}

func (l *local) get(key eligibility.Key) (entry, bool) { return l.entries.GetIfPresent(key) }

// keep holds evidence, of which nothing newer was known at confirmed, unless
// something newer is known by now. It returns the newest that is held then; nil
// where another replica has announced newer evidence that is not here. Evidence
// from the future is neither held nor in the way.
func (l *local) keep(key eligibility.Key, evidence *eligibility.Evidence, confirmed, now time.Time) *eligibility.Evidence {
	if fromFuture(evidence, now) {
		return evidence
	}
	var newest *eligibility.Evidence
	l.entries.Compute(key, func(old entry, held bool) (entry, otter.ComputeOp) {
		switch {
		case held && !fromFuture(old.evidence, now) && old.evidence.FetchTime.After(evidence.FetchTime):
			newest = old.evidence
			return old, otter.CancelOp
		case l.told.newerThan(key, evidence.FetchTime, now):
			// Asked in here, as tell comes for the entry later: one of the two sees the other.
			newest = nil
			return entry{}, otter.InvalidateOp
		case held && old.evidence.FetchTime.Equal(evidence.FetchTime):
			newest = old.evidence // the same fetch: keep the pointer that callers share
			if old.confirmed.After(confirmed) {
				confirmed = old.confirmed
			}
		default:
			newest = evidence
		}
		return entry{evidence: newest, confirmed: confirmed}, otter.WriteOp
	})
	return newest
}

// tell takes what another replica has announced: older evidence goes, and what
// was held is replaced. What nobody asked for here is not held.
func (l *local) tell(key eligibility.Key, evidence *eligibility.Evidence, now time.Time) {
	l.told.put(key, evidence.FetchTime, now)
	l.entries.ComputeIfPresent(key, func(old entry) (entry, otter.ComputeOp) {
		if old.evidence.FetchTime.Before(evidence.FetchTime) || fromFuture(old.evidence, now) {
			return entry{evidence: evidence, confirmed: now}, otter.WriteOp
		}
		return old, otter.CancelOp
	})
}
