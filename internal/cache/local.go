package cache

import (
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/maypok86/otter/v2/stats"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// local is the tier in this process: bounded by entries, without a lock that
// all callers share. What is no longer usable stays until it is evicted; the
// service judges ages at each use.
type local struct {
	entries *otter.Cache[eligibility.Key, entry]
	counter *stats.Counter
}

// entry is what is held under a key. It is never changed, only replaced.
type entry struct {
	evidence *eligibility.Evidence
	// confirmed is when this process last learnt that nothing newer is known.
	confirmed time.Time
}

func newLocal(maxEntries int) (*local, error) {
	counter := stats.NewCounter()
	entries, err := otter.New(&otter.Options[eligibility.Key, entry]{
		MaximumSize:   maxEntries,
		StatsRecorder: evictionsOnly{counter},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: local tier: %w", err)
	}
	return &local{entries: entries, counter: counter}, nil
}

func (l *local) get(key eligibility.Key) (entry, bool) { return l.entries.GetIfPresent(key) }

// keep holds evidence unless something newer is held, and returns what is held
// then. Evidence from the future is neither held nor in the way.
func (l *local) keep(key eligibility.Key, evidence *eligibility.Evidence, now time.Time) *eligibility.Evidence {
	if fromFuture(evidence, now) {
		return evidence
	}
	kept, _ := l.entries.Compute(key, func(old entry, held bool) (entry, otter.ComputeOp) {
		switch {
		case !held || fromFuture(old.evidence, now) || old.evidence.FetchTime.Before(evidence.FetchTime):
			return entry{evidence: evidence, confirmed: now}, otter.WriteOp
		case old.evidence.FetchTime.Equal(evidence.FetchTime):
			// The same fetch: keep the pointer that callers share.
			return entry{evidence: old.evidence, confirmed: now}, otter.WriteOp
		default:
			return old, otter.CancelOp
		}
	})
	return kept.evidence
}

// evictionsOnly leaves hits and misses, which Store counts itself, uncounted.
type evictionsOnly struct{ *stats.Counter }

func (evictionsOnly) RecordHits(int)   {}
func (evictionsOnly) RecordMisses(int) {}
