package cache

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// local is the tier in this process: bounded by entries and bytes, without a
// lock that all callers share. Evidence that is no longer usable stays until it is
// evicted; the service evaluates ages at each use.
type local struct {
	entries *otter.Cache[eligibility.Key, entry]
	evicted *atomic.Uint64
	tombs   *tombstones
	// replaced is called with evidence that put holds from now on and what it
	// replaces, nil if nothing; for each key one call after the other. It is nil if
	// there is a Redis.
	replaced func(key eligibility.Key, before, after *eligibility.Evidence)
}

// entry is what is held under a key. It is never changed, only replaced.
type entry struct {
	evidence *eligibility.Evidence
	// confirmed is the last moment at which, as far as this process knows, nothing
	// newer was known anywhere: when Redis was read, or the fetch started. If Redis
	// confirmed nothing, it is unconfirmed.
	confirmed time.Time
}

// unconfirmed is so long ago that an entry must be revalidated.
var unconfirmed = time.Unix(0, 0) //nolint:gochecknoglobals // only read

// newLocal bounds both at once: an entry weighs its bytes or, if that is more, its
// share of maxBytes.
func newLocal(maxEntries, maxBytes int, longestFresh time.Duration) (*local, error) {
	share := max(maxBytes/maxEntries, 1)
	evicted := new(atomic.Uint64)
	entries, err := otter.New(&otter.Options[eligibility.Key, entry]{
		MaximumWeight: uint64(share) * uint64(maxEntries), //nolint:gosec // both are positive
		Weigher: func(_ eligibility.Key, e entry) uint32 {
			return uint32(max(bytesOf(e.evidence), share)) //nolint:gosec // bounded by what an answer may hold
		},
		// A recorder of statistics would run at each lookup too.
		OnAtomicDeletion: func(e otter.DeletionEvent[eligibility.Key, entry]) {
			if e.WasEvicted() {
				evicted.Add(1)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: local tier: %w", err)
	}
	return &local{entries: entries, evicted: evicted, tombs: newTombstones(longestFresh)}, nil
}

// bytesOf returns approximately the memory of an entry.
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

// put holds evidence, of which nothing newer was known at confirmed, unless
// something newer is known by now. It returns the newest entry, which is held
// then; false if another replica has announced newer evidence that is not here.
// Evidence from the future is neither held nor in the way.
func (l *local) put(key eligibility.Key, evidence *eligibility.Evidence, confirmed, now time.Time) (newest entry, ok bool) {
	newest, ok = entry{evidence: evidence, confirmed: confirmed}, true
	if fromFuture(evidence, now) {
		return newest, ok
	}
	l.entries.Compute(key, func(old entry, held bool) (entry, otter.ComputeOp) {
		// Asked inside Compute, since applyMessage updates the entry after adding the
		// tombstone: one of the two sees the other.
		newer, doubtful := l.tombs.newer(key, evidence, now)
		if held && !fromFuture(old.evidence, now) && replaces(old.evidence, evidence) {
			// Without Redis no other clock has dated it: now was read before that fetch.
			if !old.evidence.FetchTime.After(now) || l.replaced != nil || !mayStand(evidence, max(policyAllows, strictness(old.evidence)), now.UnixNano()) {
				newest, ok = old, true
				return old, otter.CancelOp
			}
			doubtful = true
		}
		switch {
		case newer:
			newest, ok = entry{}, false
			return entry{}, otter.InvalidateOp
		case doubtful:
			newest = entry{evidence: evidence, confirmed: unconfirmed}
		case held && old.evidence.FetchTime.Equal(evidence.FetchTime) && !replaces(evidence, old.evidence):
			newest = old // the same fetch: keep the pointer that callers share
			if confirmed.After(old.confirmed) {
				newest.confirmed = confirmed
			}
		default:
			newest = entry{evidence: evidence, confirmed: confirmed}
		}
		ok = true
		if l.replaced != nil && newest.evidence == evidence {
			l.noteReplaced(key, old.evidence, evidence, now)
		}
		return newest, otter.WriteOp
	})
	return newest, ok
}

// noteReplaced calls replaced. Of two fetches in one millisecond only the first
// counts, and what is from the future counts as absent.
func (l *local) noteReplaced(key eligibility.Key, before, after *eligibility.Evidence, now time.Time) {
	switch {
	case before == nil || fromFuture(before, now):
		l.replaced(key, nil, after)
	case before.FetchTime.Before(after.FetchTime):
		l.replaced(key, before, after)
	}
}

// replaces reports whether a replaces b: it is newer or, if both fetches
// started within the same millisecond, stricter.
func replaces(a, b *eligibility.Evidence) bool {
	if a.FetchTime.Equal(b.FetchTime) {
		return strictness(a) > strictness(b)
	}
	return a.FetchTime.After(b.FetchTime)
}

// applyMessage applies evidence of another replica, of which nothing newer was known
// at confirmed: older evidence is replaced if it is held, and kept out if not. If
// hold is set, the evidence is held although no caller here needed it: Redis
// does not store it. Evidence ahead of this process's clock needs confirmation; if
// this process itself has just fetched evidence that blocks a purchase and is no less
// strict, that stays and needs confirmation too.
func (l *local) applyMessage(key eligibility.Key, evidence *eligibility.Evidence, confirmed, now time.Time, hold bool) {
	l.tombs.add(key, evidence.FetchTime, now)
	l.entries.Compute(key, func(old entry, held bool) (entry, otter.ComputeOp) {
		ahead := evidence.FetchTime.After(now)
		newer, _ := l.tombs.newer(key, evidence, now)
		switch {
		case !held && (!hold || newer):
			return old, otter.CancelOp
		case !held:
		case !fromFuture(old.evidence, now) && !replaces(evidence, old.evidence):
			return old, otter.CancelOp
		case ahead && !fromFuture(old.evidence, now) && mayStand(old.evidence, max(policyAllows, strictness(evidence)), now.UnixNano()):
			return entry{evidence: old.evidence, confirmed: unconfirmed}, otter.WriteOp
		}
		if ahead {
			return entry{evidence: evidence, confirmed: unconfirmed}, otter.WriteOp
		}
		return entry{evidence: evidence, confirmed: confirmed}, otter.WriteOp
	})
}

// requireRevalidation makes an entry that is held need confirmation.
func (l *local) requireRevalidation(key eligibility.Key) {
	l.entries.ComputeIfPresent(key, func(old entry) (entry, otter.ComputeOp) {
		return entry{evidence: old.evidence, confirmed: unconfirmed}, otter.WriteOp
	})
}
