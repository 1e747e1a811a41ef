package evidence

import (
	"context"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Prefetched counts the customers of a prefetch by what became of them.
type Prefetched struct {
	// Fresh customers have fresh evidence already, "not found" and "not served"
	// included.
	Fresh int
	// Fetching customers have fetches in flight.
	Fetching int
	// Refused customers have none: the budget leaves no room for them, or
	// maxPrefetches wait already.
	Refused int
}

// Prefetch starts the fetches of customers about whom questions for segment are
// expected soon, and returns without waiting for them: it waits for the shared
// tier only, which it queries once for all customers. It fetches what a decision
// needs, in LanePrefetch, and no more than the budget has room for. A fetch in
// flight counts whoever started it.
func (s *Service) Prefetch(ctx context.Context, ids []eligibility.CustomerID, segment eligibility.Segment) Prefetched {
	now := s.now()
	var counts Prefetched
	var open []openCheck
	for i := range ids {
		var c check
		c.qualifications.waived = segment == eligibility.SegmentCommercial
		s.peek(ctx, &c, &eligibility.Request{CustomerID: ids[i], Segment: segment}, now)
		if c.prefetched() {
			counts.Fresh++
			continue
		}
		if open == nil { // if one is open, most of the rest are
			open = make([]openCheck, 0, len(ids)-i)
		}
		open = append(open, openCheck{check: c})
	}
	if len(open) == 0 {
		return counts
	}
	s.load(ctx, open, (*check).missing, s.store.Load)
	room := min(s.source.Room(ctx, LanePrefetch), maxPrefetches)
	s.prefetching.Lock()
	defer s.prefetching.Unlock()
	room -= s.inflight.queued(LanePrefetch)
	for i := range open {
		switch c := &open[i].check; {
		case c.prefetched():
			counts.Fresh++
		case s.open.Err() != nil || !s.inflight.fit(c.missing(make([]eligibility.Key, 0, 2)), &room):
			counts.Refused++
		case s.prefetch(ctx, c):
			counts.Fetching++
		default: // fetched since
			counts.Fresh++
		}
	}
	return counts
}

// prefetched reports whether a prefetch is done with the customer: the
// qualifications of a customer who does not exist are pointless.
func (c *check) prefetched() bool {
	return c.completed() || c.account.Fresh && c.nothingToGain()
}

// prefetch starts the fetches of the facets that are not completed, and reports
// whether any is needed.
func (s *Service) prefetch(ctx context.Context, c *check) (fetching bool) {
	for _, v := range c.views() {
		if v.completed() {
			continue
		}
		f := s.inflight.start(ctx, fetchRequest{Key: v.key, lane: LanePrefetch, enough: func() bool {
			now := s.now()
			s.admit(c, v, s.store.Peek(v.key, now), now)
			return v.Fresh
		}})
		fetching = fetching || f != nil
	}
	return fetching
}

// queued returns the number of fetches in lane or above that have not sent a
// request yet.
func (n *inflight) queued(lane Lane) (queued int) {
	for i := range n.shards {
		shard := &n.shards[i]
		shard.mu.Lock()
		for _, of := range shard.fetches {
			for _, f := range [...]*fetch{of.current, of.waiting} {
				if f != nil && !f.isSent() && f.priority.Lane() >= lane {
					queued++
				}
			}
		}
		shard.mu.Unlock()
	}
	return queued
}

// fit takes from room a place for each key that no fetch in flight serves, and
// reports whether all of them fit.
func (n *inflight) fit(keys []eligibility.Key, room *int) bool {
	needed := 0
	for _, key := range keys {
		shard := n.shard(key)
		shard.mu.Lock()
		if shard.fetches[key] == nil {
			needed++
		}
		shard.mu.Unlock()
	}
	if needed > max(*room, 0) {
		return false
	}
	*room -= needed
	return true
}
