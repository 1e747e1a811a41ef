package cache

import (
	"maps"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	tombstoneShards = 64
	// maxTombstones bounds the customers of a shard.
	maxTombstones = 2048
	// minTombstoneLife is longer than any question or fetch that has already read
	// older evidence.
	minTombstoneLife = time.Minute
)

// tombstones hold the newest announced fetch time per key, so that older
// evidence is not adopted: the result of a slow fetch, what Redis held a moment
// ago, or what Redis still holds because it refused the newer write.
type tombstones struct {
	life    time.Duration        // as long as the evidence that is kept out could be fresh
	elapsed func() time.Duration // by a clock that nothing sets
	shards  [tombstoneShards]tombstoneShard
}

type tombstoneShard struct {
	mu sync.Mutex
	// known are the tombstones by facet, and future those from the future: they replace
	// no other, since the clock that dated them may be the wrong one. Guarded by mu.
	known, future map[eligibility.CustomerID][2]tombstone
	// overflow and overflowFuture stand in for tombstones that did not fit: all keys of
	// the shard then count as announced at their times. Guarded by mu.
	overflow, overflowFuture tombstone
}

// tombstone is an announcement; the zero value is none.
type tombstone struct {
	fetched int64         // Unix ns
	arrived int64         // Unix ns
	added   time.Duration // by tombstones.elapsed
}

// newTombstones returns tombstones that live as long as evidence can be fresh.
func newTombstones(longestFresh time.Duration) *tombstones {
	life := max(longestFresh, minTombstoneLife)
	start := time.Now()
	t := &tombstones{life: life, elapsed: func() time.Duration { return time.Since(start) }}
	for i := range t.shards {
		t.shards[i].known = make(map[eligibility.CustomerID][2]tombstone)
		t.shards[i].future = make(map[eligibility.CustomerID][2]tombstone)
	}
	return t
}

func (t *tombstones) shard(id eligibility.CustomerID) *tombstoneShard {
	return &t.shards[id[15]%tombstoneShards]
}

// add records that evidence fetched at that time exists.
func (t *tombstones) add(key eligibility.Key, fetched, now time.Time) {
	shard, added := t.shard(key.CustomerID), tombstone{fetched: fetched.UnixNano(), arrived: now.UnixNano(), added: t.elapsed()}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	stones, overflow := shard.known, &shard.overflow
	if isAhead(added.fetched, now) {
		stones, overflow = shard.future, &shard.overflowFuture
	}
	of, listed := stones[key.CustomerID]
	if old := of[key.Facet]; old.fetched > added.fetched && !isAhead(old.fetched, now) {
		return
	}
	if !listed && len(shard.known)+len(shard.future) >= maxTombstones {
		expired := func(_ eligibility.CustomerID, of [2]tombstone) bool {
			return added.added-max(of[0].added, of[1].added) >= t.life
		}
		maps.DeleteFunc(shard.known, expired)
		maps.DeleteFunc(shard.future, expired)
	}
	if !listed && len(shard.known)+len(shard.future) >= maxTombstones {
		added.fetched = max(overflow.fetched, added.fetched)
		*overflow = added
		return
	}
	of[key.Facet] = added
	stones[key.CustomerID] = of
}

// ahead reports whether the announcement came before the time that it gives.
func (t tombstone) ahead() bool { return t.fetched > t.arrived }

// announced is what was announced about a customer.
type announced struct {
	*tombstones

	known, future            [2]tombstone // by facet
	overflow, overflowFuture tombstone
}

// of returns what was announced about a customer by now.
func (t *tombstones) of(id eligibility.CustomerID) announced {
	shard := t.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	a := announced{tombstones: t, known: shard.known[id], overflow: shard.overflow, overflowFuture: shard.overflowFuture}
	if len(shard.future) > 0 {
		a.future = shard.future[id]
	}
	return a
}

func (t *tombstones) lasts(stone tombstone, now time.Time) bool {
	return t.elapsed()-stone.added < t.life && !isAhead(stone.fetched, now)
}

// isAhead reports whether a fetch time is further ahead than clock skew allows:
// then the clock was set back since, and the time means nothing.
func isAhead(fetched int64, now time.Time) bool {
	return fetched > now.Add(eligibility.ClockTolerance).UnixNano()
}

// newer reports whether evidence newer than that was announced about key by now.
func (t *tombstones) newer(key eligibility.Key, evidence *eligibility.Evidence, now time.Time) (newer, doubtful bool) {
	a := t.of(key.CustomerID)
	return a.newer(int(key.Facet), evidence, now)
}

// newer reports whether evidence newer than that was announced. An announcement
// that was ahead of this process's clock is doubtful: if this process fetched the
// evidence within the same second and it blocks a purchase, nobody knows which is
// newer. For a second such an announcement does not count as newer, but Redis has
// to be asked.
func (a *announced) newer(facet int, evidence *eligibility.Evidence, now time.Time) (newer, doubtful bool) {
	fetched := evidence.FetchTime.UnixNano()
	for _, stone := range [...]*tombstone{&a.known[facet], &a.future[facet], &a.overflow, &a.overflowFuture} {
		switch {
		case stone.fetched <= fetched || !a.lasts(*stone, now):
		case stone.ahead() && mayStand(evidence, policyAllows, stone.arrived) && a.elapsed()-stone.added < eligibility.ClockTolerance:
			doubtful = true
		default:
			newer = true
		}
	}
	return newer, doubtful
}

// mayStand reports whether evidence may be newer than what another replica dates
// ahead of this clock, and does not allow what that blocks: this process fetched it
// less than the tolerated clock difference before moment, or later, and it is at
// least as strict as least.
func mayStand(evidence *eligibility.Evidence, least int, moment int64) bool {
	return evidence.FetchedHere() && strictness(evidence) >= least && moment-evidence.FetchTime.UnixNano() < int64(eligibility.ClockTolerance)
}

// The values of strictness.
const (
	allowsAll    = iota // a sale may rest on it whatever the policy is
	policyAllows        // a policy may let some or all orders pass
	blocksAll
)

// strictness returns how much evidence blocks. This tier knows neither policies nor
// orders: between two pieces of evidence of which nobody knows which is newer, it
// keeps the stricter.
func strictness(evidence *eligibility.Evidence) int {
	switch evidence.Status {
	case eligibility.AccountStatusAllowed, eligibility.AccountStatusNone:
		return allowsAll
	case eligibility.AccountStatusNotReady, eligibility.AccountStatusUnderReview:
		return policyAllows
	default: // qualifications among them
		return blocksAll
	}
}
