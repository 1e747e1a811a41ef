package evidence

import (
	"context"
	"errors"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

var (
	errTooOld     = errors.New("the fetch brought nothing recent enough")
	errSuperseded = errors.New("another replica knows newer evidence, which is out of reach or too old")
)

// fetch fetches the facets that are not completed and waits for them: for the
// account, and for the qualifications if the decision needs them, as long as ctx
// allows; for qualifications that it does not need, no longer than the grace. If the
// caller waits for one customer, it also queries the shared tier again before it
// gives up.
func (s *Service) fetch(ctx context.Context, c *check, in Lane) {
	if !s.awaitMinimum(ctx, c) || ctx.Err() != nil && (in < LaneCheckout || errors.Is(ctx.Err(), context.Canceled)) {
		s.leave(ctx, c)
		return
	}
	// A caller who has run out of time gets nothing of the fetch, but the
	// next one does.
	issued := time.Now()
	s.startFetches(ctx, c, in)
	look := reloadTime(ctx, in)
	var known time.Time // when nothing but qualifications that are not needed was left to wait for
	for c.account.fetch != nil || c.qualifications.fetch != nil {
		var grace <-chan time.Time
		if c.account.fetch == nil && !s.needsQualifications(c) {
			if known.IsZero() {
				known = time.Now()
			}
			left := s.graceLeft(c, issued, known)
			if left <= 0 {
				s.abandon(c)
				continue
			}
			grace = time.After(left)
		}
		select {
		case <-c.account.fetch.finished():
			s.complete(c, &c.account)
		case <-c.qualifications.fetch.finished():
			s.complete(c, &c.qualifications)
		case <-grace: // counted again above
		case <-look:
			look = nil
			s.reload(ctx, c)
		case <-ctx.Done():
			s.leave(ctx, c)
		}
	}
	if in == LaneCheckout {
		s.reload(ctx, c)
	}
	s.revalidate(ctx, c)
}

// startFetches starts the fetches of the facets that are not completed, the
// account's first.
func (s *Service) startFetches(ctx context.Context, c *check, in Lane) {
	for _, v := range c.views() {
		if v.completed() {
			continue
		}
		o := fetchRequest{Key: v.key, bound: c.bound(), lane: in, enough: func() bool {
			now := s.now()
			s.admit(c, v, s.store.Peek(v.key, now), now)
			return v.Fresh
		}}
		if v == &c.account {
			o.failed = c.failed
		}
		if v == &c.account || c.req.Segment != eligibility.SegmentCommercial {
			v.fetch = s.inflight.start(ctx, o)
			continue
		}
		o.lane, o.account = LaneSpare, c.account.fetch
		v.fetch, v.waived = c.spares.fetch(func() *fetch { return s.inflight.start(ctx, o) })
	}
}

// graceLeft is how much longer the check waits for qualifications that it does not
// need: no longer than startGrace for their fetch to leave the queue. A commercial
// check does not wait at all if it has usable ones or got the account without a
// fetch.
func (s *Service) graceLeft(c *check, issued, known time.Time) time.Duration {
	commercial := c.req.Segment == eligibility.SegmentCommercial
	switch {
	case c.nothingToGain(), commercial && (!c.account.Fetched || c.qualifications.Evidence != nil):
		return 0
	case c.qualifications.fetch.isSent():
		return s.grace - time.Since(known)
	default:
		return min(s.grace-time.Since(known), startGrace-time.Since(issued))
	}
}

// revalidate adopts the evidence that other replicas announced while the check
// waited. If newer evidence was announced but is out of reach, it drops what the
// check holds.
func (s *Service) revalidate(ctx context.Context, c *check) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revalidateTimeout)
	defer cancel()
	for _, v := range c.views() {
		before := v.Evidence
		if before == nil {
			now := s.now()
			s.admit(c, v, s.store.Peek(v.key, now), now)
		} else if later, lost := s.put(ctx, v.key, before); later.Evidence != nil {
			s.admit(c, v, later, s.now())
		} else if lost && !(v.Fetched && before.FetchedHere() && s.blocks(c, before)) {
			v.drop()
		}
		if before != nil && v.Evidence == nil {
			v.Err = &eligibility.Error{Kind: eligibility.KindUnavailable, RetryAfter: leftEarlyRetry, Call: v.Call, Err: errSuperseded}
		}
		if v.Evidence != before {
			v.Fetched = false
		}
		if v.Fresh {
			v.Err = nil
		}
	}
}

// reloadTime returns when a caller who waits for one customer queries the shared
// tier again if it still has no evidence: while there is time for it.
func reloadTime(ctx context.Context, in Lane) <-chan time.Time {
	deadline, limited := ctx.Deadline()
	if !limited || in < LaneCheckout {
		return nil
	}
	return time.After(time.Until(deadline) - reloadReserve(time.Until(deadline)))
}

// reloadReserve is how much of a caller's remaining time is kept for a last query of
// the shared tier.
func reloadReserve(left time.Duration) time.Duration { return min(left/4, maxReloadReserve) }

// reload queries the shared tier for the evidence without which the check
// would end with an error: the first query may have been skipped or have timed out.
func (s *Service) reload(ctx context.Context, c *check) {
	keys := s.lacking(c, make([]eligibility.Key, 0, 2))
	if len(keys) == 0 || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	for i, found := range s.store.LoadWithin(ctx, keys) {
		s.adopt(c, c.view(keys[i].Facet), found, s.now())
	}
}

// adopt admits what the shared tier holds in place of a fetch that has failed or
// has not finished.
func (s *Service) adopt(c *check, v *view, found Found, now time.Time) {
	s.admit(c, v, found, now)
	if v.Fresh {
		v.fetch, v.Err = nil, nil
	}
}

// lacking appends the keys of the evidence for lack of which the check would end
// with an error.
func (s *Service) lacking(c *check, keys []eligibility.Key) []eligibility.Key {
	account, qualifications := c.account.Evidence, c.qualifications.Evidence
	switch {
	case account != nil && !s.needsQualifications(c):
		return keys
	case account == nil && qualifications != nil && qualifications.Absence == eligibility.AbsenceNone && s.blocks(c, qualifications):
		return keys
	}
	if account == nil {
		keys = append(keys, c.account.key)
	}
	if qualifications == nil && c.req.Segment != eligibility.SegmentCommercial {
		keys = append(keys, c.qualifications.key)
	}
	return keys
}

// awaitMinimum waits until a fetch can satisfy min_evidence_time, which may be a
// moment ahead of this clock, and reports whether ctx allowed it. It does not wait
// for a moment that only a clock that was set back explains.
func (s *Service) awaitMinimum(ctx context.Context, c *check) bool {
	moment := ceilMillisecond(c.req.MinEvidenceTime)
	for {
		ahead := moment.Sub(s.now())
		if ahead <= 0 || ahead > eligibility.ClockTolerance+time.Millisecond {
			return true
		}
		select {
		case <-time.After(ahead):
		case <-ctx.Done():
			return false
		}
	}
}

// needsQualifications reports whether the decision still depends on them.
func (s *Service) needsQualifications(c *check) bool {
	return s.policy.NeedsQualifications(c.req.Segment, c.req.Operation, c.account.Evidence)
}

// blocks reports whether evidence alone keeps the answer from being an allowing one.
func (s *Service) blocks(c *check, evidence *eligibility.Evidence) bool {
	return s.policy.Blocks(c.req.Segment, c.req.Operation, evidence)
}

// nothingToGain reports whether the account's result makes the qualifications
// pointless: there is no such customer, or a commercial question has failed.
func (c *check) nothingToGain() bool {
	account := c.account.Evidence
	if account == nil {
		return c.req.Segment == eligibility.SegmentCommercial
	}
	return account.Absence != eligibility.AbsenceNone
}

// abandon stops waiting for the fetch of the qualifications, which goes on unless
// it has just ended.
func (s *Service) abandon(c *check) {
	v := &c.qualifications
	select {
	case <-v.fetch.finished():
		s.complete(c, v)
	default:
		v.fetch, v.waived = nil, true
	}
}

// complete records the result of the view's fetch, which has finished.
func (s *Service) complete(c *check, v *view) {
	f := v.fetch
	v.fetch, v.Call, v.Err = nil, f.call, f.err
	if f.err != nil {
		return
	}
	if f.lost && !s.blocks(c, f.evidence) {
		v.Err = &eligibility.Error{Kind: eligibility.KindUnavailable, RetryAfter: leftEarlyRetry, Call: f.call, Err: errSuperseded}
		return
	}
	now, known := s.now(), v.found()
	if f.evidence.FetchedHere() { // first: what else there is must be later by replaces
		v.drop()
	}
	s.admit(c, v, Found{Evidence: f.evidence, Tier: f.tier}, now)
	v.Fetched = v.Evidence == f.evidence
	s.admit(c, v, known, now)
	s.admit(c, v, f.rival, now)
	v.Fetched = v.Evidence != nil && (v.Evidence == f.evidence || v.Evidence == f.rival.Evidence)
	switch {
	case v.Fetched:
		v.Fresh = true
	case !v.Fresh:
		v.Err = &eligibility.Error{Kind: eligibility.KindUnavailable, RetryAfter: leftEarlyRetry, Call: f.call, Err: errTooOld}
	}
}

// leave gives up on the fetches that have not finished when ctx ended. Partner
// Center has not failed: the fetches go on.
func (s *Service) leave(ctx context.Context, c *check) {
	for _, v := range c.views() {
		select {
		case <-v.fetch.finished():
			s.complete(c, v)
		default:
		}
	}
	failure := &eligibility.Error{Kind: eligibility.KindCanceled, Err: ctx.Err()}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		failure = &eligibility.Error{Kind: eligibility.KindDeadlineExceeded, RetryAfter: leftEarlyRetry, Err: ctx.Err()}
	}
	c.fail(failure)
}

// fail ends the wait for the facets that are not completed.
func (c *check) fail(failure error) {
	for _, v := range c.views() {
		if !v.completed() {
			v.fetch, v.Err = nil, failure
		}
	}
}
