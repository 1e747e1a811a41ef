package eligibility

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// check is what is known while one question is being answered.
type check struct {
	req Request
	// youngest is the caller's max_age, counted from its arrival: evidence
	// fetched earlier is not fresh. It carries a monotonic reading. Zero if the
	// caller set none.
	youngest       time.Time
	spares         *spares // bounds the fetches that no decision needs; nil for a single check
	account        view
	qualifications view
}

// view is what one check knows about one facet.
type view struct {
	key    Key
	found  Found // newest usable evidence; its Evidence is nil where there is none
	life   lifetime
	fresh  bool    // found answers without asking Partner Center
	asked  bool    // found is what Partner Center said for this check
	flight *flight // the fetch waited for, or nil
	call   Call
	err    error // why asking failed, or why it is not asked
	rests  bool  // err is of an earlier check: the facet failed and is not needed
}

// settled reports whether nothing more is to be learnt about the facet.
func (v *view) settled() bool { return v.fresh || v.err != nil }

// failure returns err if it is a failure: not having waited is none.
func (v *view) failure() error {
	if errors.Is(v.err, errNotNeeded) {
		return nil
	}
	return v.err
}

func (c *check) settled() bool { return c.account.settled() && c.qualifications.settled() }

func (c *check) views() [2]*view { return [2]*view{&c.account, &c.qualifications} }

func (c *check) view(facet Facet) *view {
	if facet == FacetQualifications {
		return &c.qualifications
	}
	return &c.account
}

// missing appends the keys of the views that are not settled.
func (c *check) missing(keys []Key) []Key {
	for _, v := range c.views() {
		if !v.settled() {
			keys = append(keys, v.key)
		}
	}
	return keys
}

// peek starts c, which is zero, with what this process holds.
func (s *Service) peek(ctx context.Context, c *check, req *Request, now time.Time) {
	c.req = *req
	c.account.key = Key{CustomerID: req.CustomerID, Facet: FacetAccount}
	c.qualifications.key = Key{CustomerID: req.CustomerID, Facet: FacetQualifications}
	if req.MaxAgeSet {
		c.youngest = now.Add(-req.MaxAge)
	}
	for _, v := range c.views() {
		s.consider(c, v, s.store.Peek(v.key, now), now)
		if v.fresh {
			s.refreshAhead(ctx, v, now)
		}
	}
	if req.Segment == SegmentCommercial && !c.qualifications.fresh && !req.MaxAgeSet && req.MinEvidenceTime.IsZero() {
		c.qualifications.err = s.flights.restingBecause(c.qualifications.key, now)
		c.qualifications.rests = c.qualifications.err != nil
	}
}

// consider takes found into the view if the request admits it and nothing
// newer is there. It is the only place that rejects evidence as too old. What is
// past its usable age answers nothing, nor does anything older then.
func (s *Service) consider(c *check, v *view, found Found, now time.Time) {
	evidence := found.Evidence
	if evidence == nil ||
		evidence.FetchTime.After(now.Add(clockTolerance)) ||
		evidence.FetchTime.Before(c.req.MinEvidenceTime) {
		return
	}
	if v.found.Evidence != nil && !s.replaces(c, v, evidence, now) {
		return
	}
	life := s.ages.lifetimeOf(v.key, evidence, s.notReadyAllowed)
	if behind := evidence.setBack(now); behind > 0 {
		life.freshUntil, life.usableUntil = life.freshUntil.Add(-behind), life.usableUntil.Add(-behind)
	}
	if !now.Before(life.usableUntil) {
		v.found, v.fresh = Found{}, false
		return
	}
	v.found, v.life = found, life
	v.fresh = !found.Untrusted && now.Before(life.freshUntil) && c.youngEnough(evidence)
}

// youngEnough reports whether evidence satisfies the caller's max_age. The clock
// of another replica may be ahead by the tolerance, so its evidence may be that
// much older than it seems. This process's own is compared by both clocks: the
// monotonic one stands still while the machine sleeps, the wall clock may be set
// back.
func (c *check) youngEnough(evidence *Evidence) bool {
	switch {
	case !c.req.MaxAgeSet:
		return true
	case evidence.FetchedHere():
		return !evidence.started.Before(c.youngest) && !evidence.started.Round(0).Before(c.youngest.Round(0))
	default:
		return !evidence.FetchTime.Before(c.youngest.Add(clockTolerance))
	}
}

// bound is what a fetch must satisfy to answer the check. The evidence of a fetch
// bears the whole millisecond in which it starts, so that a fetch for
// min_evidence_time starts in a later one.
func (c *check) bound() recency {
	minimum := c.req.MinEvidenceTime
	bound := recency{started: ceilMillisecond(minimum), dated: minimum}
	if c.req.MaxAgeSet {
		bound.started = latest(bound.started, c.youngest)
		bound.dated = latest(bound.dated, c.youngest.Round(0).Add(clockTolerance))
	}
	return bound
}

func ceilMillisecond(t time.Time) time.Time {
	return t.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

// replaces reports whether evidence replaces that of the view: if it is dated
// later. Against what this process has fetched for this check, a date of another
// replica's clock proves nothing if it is still to come. Within the tolerance it
// does not lift a block, nor stand in for the fetch that the caller's max_age
// demanded.
func (s *Service) replaces(c *check, v *view, evidence *Evidence, now time.Time) bool {
	held := v.found.Evidence
	switch {
	case evidence.FetchTime.Before(held.FetchTime):
		return false
	case !v.asked, !held.FetchedHere(), evidence.FetchedHere():
		return true
	case evidence.FetchTime.After(now):
		return false
	case evidence.FetchTime.After(held.FetchTime.Add(clockTolerance)), s.blocks(c.req.Segment, evidence):
		return true
	default:
		return !s.blocks(c.req.Segment, held) && c.youngEnough(evidence)
	}
}

// blocks reports whether evidence alone keeps the segment from being allowed.
func (s *Service) blocks(segment Segment, evidence *Evidence) bool {
	switch {
	case evidence.Absence != AbsenceNone:
		return true
	case evidence.Facet == FacetAccount:
		return accountReason(evidence.Status, s.notReadyAllowed).Blocks
	default:
		return segment != SegmentCommercial && segmentReason(segment, evidence.Qualifications).Blocks
	}
}

// expire lets go of what became too old while the check waited: the moment of
// the answer counts, not that of the question.
func (s *Service) expire(c *check, now time.Time) {
	for _, v := range c.views() {
		switch {
		case v.found.Evidence == nil:
		case !now.Before(v.life.usableUntil):
			v.found, v.fresh = Found{}, false
			if v.err == nil {
				v.err = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Call: v.call, Err: errExpired}
			}
		case !v.asked && !now.Before(v.life.freshUntil):
			v.fresh = false
		}
	}
}

// refreshAhead renews evidence in the background in the last fifth of its fresh
// age, once, so that the callers after its end need not wait.
func (s *Service) refreshAhead(ctx context.Context, v *view, now time.Time) {
	evidence := v.found.Evidence
	fresh := v.life.freshUntil.Sub(evidence.FetchTime)
	if now.Sub(evidence.FetchTime) < fresh-fresh/5 || atomic.LoadUint32(&evidence.refreshAhead) != 0 {
		return
	}
	if s.refreshes.Add(1) > maxRefreshes || !atomic.CompareAndSwapUint32(&evidence.refreshAhead, 0, 1) {
		s.refreshes.Add(-1)
		return
	}
	key := v.key
	renewed := func() bool {
		held := s.store.Peek(key, s.now()).Evidence
		return held != nil && held.FetchTime.After(evidence.FetchTime)
	}
	renewing, span := startRenewal(ctx, key)
	refreshing := s.spawn(func() {
		defer s.refreshes.Add(-1)
		defer span.End()
		newer := evidence.FetchTime.Add(1)
		f := s.fetch(renewing, order{
			Key: key, bound: recency{started: newer, dated: newer}, lane: LaneBackground, enough: renewed,
		})
		if f != nil {
			<-f.done
		}
	})
	if !refreshing {
		s.refreshes.Add(-1)
	}
}
