package eligibility

import (
	"context"
	"sync/atomic"
	"time"
)

// check is what is known while one question is being answered.
type check struct {
	req Request
	// notBefore is when evidence must have been fetched to answer without
	// asking Partner Center: the caller's max_age, counted from its arrival,
	// and min_evidence_time.
	notBefore      time.Time
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
	left   *flight // a fetch that was not waited for, or nil
	call   Call
	err    error // why asking failed, or why it is not asked
	rests  bool  // err is of an earlier check: the facet failed and is not needed
}

// settled reports whether nothing more is to be learnt about the facet.
func (v *view) settled() bool { return v.fresh || v.err != nil }

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
	c.req, c.notBefore = *req, req.MinEvidenceTime
	c.account.key = Key{CustomerID: req.CustomerID, Facet: FacetAccount}
	c.qualifications.key = Key{CustomerID: req.CustomerID, Facet: FacetQualifications}
	if req.MaxAgeSet && now.Add(-req.MaxAge).After(c.notBefore) {
		c.notBefore = now.Add(-req.MaxAge)
	}
	for _, v := range c.views() {
		s.consider(c, v, s.store.Peek(v.key, now), now)
		if v.fresh {
			s.refreshAhead(ctx, v, now)
		}
	}
	if req.Segment == SegmentCommercial && !c.qualifications.fresh && c.notBefore.IsZero() {
		c.qualifications.err = s.flights.restingBecause(c.qualifications.key, now)
		c.qualifications.rests = c.qualifications.err != nil
	}
}

// consider takes found into the view if the request admits it and nothing
// newer is there. All that makes evidence too old to be taken is decided here.
// What is past its usable age answers nothing, nor does anything older then.
func (s *Service) consider(c *check, v *view, found Found, now time.Time) {
	evidence := found.Evidence
	if evidence == nil ||
		evidence.FetchTime.After(now.Add(clockTolerance)) ||
		evidence.FetchTime.Before(c.req.MinEvidenceTime) {
		return
	}
	if v.found.Evidence != nil && evidence.FetchTime.Before(v.found.Evidence.FetchTime) {
		return
	}
	life := s.ages.lifetimeOf(v.key, evidence, s.notReadyAllowed)
	if !now.Before(life.usableUntil) {
		v.found, v.fresh = Found{}, false
		return
	}
	v.found, v.life = found, life
	// A clock that runs ahead may have dated evidence after a caller came who
	// wants it no older than that: it does not count as asked for.
	ahead := c.req.MaxAgeSet && evidence.FetchTime.After(now)
	v.fresh = !found.Untrusted && !ahead && now.Before(life.freshUntil) && !evidence.FetchTime.Before(c.notBefore)
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
		if f := s.fetch(renewing, key, evidence.FetchTime.Add(1), LaneBackground, renewed); f != nil {
			<-f.done
		}
	})
	if !refreshing {
		s.refreshes.Add(-1)
	}
}
