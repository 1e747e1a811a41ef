package eligibility

import (
	"context"
	"errors"
	"time"
)

var (
	errGrace   = errors.New("qualifications not waited for")
	errExpired = errors.New("evidence became too old while the caller waited")
	errTooOld  = errors.New("the fetch brought nothing recent enough")
)

// ask fetches what is not settled and waits for it: for the account, and for
// the qualifications where the decision needs them, as long as ctx allows; for
// qualifications that it does not need, no longer than the grace.
func (s *Service) ask(ctx context.Context, c *check, in Lane) {
	if !s.waitUntil(ctx, c.notBefore) || ctx.Err() != nil && (in < LaneCheckout || errors.Is(ctx.Err(), context.Canceled)) {
		s.leave(ctx, c)
		return
	}
	// A caller who has run out of time gets nothing of the fetch, but the
	// next one does.
	for _, v := range c.views() {
		if v.settled() {
			continue
		}
		urgency := in
		if v == &c.qualifications && c.req.Segment == SegmentCommercial {
			urgency = LaneSpare
		}
		v.flight = s.fetch(ctx, v.key, c.notBefore, urgency, func() bool {
			now := s.now()
			s.consider(c, v, s.store.Peek(v.key, now), now)
			return v.fresh
		})
	}
	var grace <-chan time.Time
	for c.account.flight != nil || c.qualifications.flight != nil {
		if c.account.flight == nil && !s.needsQualifications(c) {
			switch {
			case c.nothingToGain():
				c.qualifications.abandon()
				continue
			case grace == nil:
				grace = time.After(s.grace)
			}
		}
		select {
		case <-c.account.flight.landed():
			s.settle(c, &c.account)
		case <-c.qualifications.flight.landed():
			s.settle(c, &c.qualifications)
		case <-grace:
			c.qualifications.abandon()
		case <-ctx.Done():
			s.leave(ctx, c)
		}
	}
	s.lookAgain(ctx, c)
}

// lookAgain takes what other replicas have announced while the check waited,
// and lets go of what they have replaced by something that is out of reach.
func (s *Service) lookAgain(ctx context.Context, c *check) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookAgainTimeout)
	defer cancel()
	for _, v := range c.views() {
		before := v.found.Evidence
		if before == nil {
			now := s.now()
			s.consider(c, v, s.store.Peek(v.key, now), now)
		} else if newest := s.newest(ctx, v.key, before); newest == nil {
			v.found, v.fresh = Found{}, false
		} else if newest != before {
			s.consider(c, v, Found{Evidence: newest, Tier: TierRedis}, s.now())
		}
		if before != nil && v.found.Evidence == nil {
			v.err = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Call: v.call, Err: errSuperseded}
		}
		if v.found.Evidence != before {
			v.asked = false
		}
		if v.fresh {
			v.err = nil
		}
	}
}

// waitUntil waits for a moment that the caller's clock already shows, and
// reports whether it came before ctx ended.
func (s *Service) waitUntil(ctx context.Context, moment time.Time) bool {
	for {
		ahead := moment.Sub(s.now())
		if ahead <= 0 {
			return true
		}
		select {
		case <-time.After(ahead):
		case <-ctx.Done():
			return false
		}
	}
}

// nothingToGain reports whether the account's result makes the qualifications
// pointless: there is no such customer, or a commercial question has failed.
func (c *check) nothingToGain() bool {
	account := c.account.found.Evidence
	if account == nil {
		return c.req.Segment == SegmentCommercial
	}
	return account.Absence != AbsenceNone
}

// abandon stops waiting for the view's flight, which goes on.
func (v *view) abandon() {
	v.flight, v.left, v.err = nil, v.flight, errGrace
}

// settle takes the result of the view's flight, which has landed.
func (s *Service) settle(c *check, v *view) {
	f := v.flight
	v.flight, v.call, v.err = nil, f.call, f.err
	if f.err != nil {
		return
	}
	s.consider(c, v, Found{Evidence: f.evidence, Tier: f.tier}, s.now())
	switch {
	case v.found.Evidence == f.evidence:
		v.fresh, v.asked = true, true
	case !v.fresh:
		v.err = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Call: f.call, Err: errTooOld}
	}
}

// leave gives up on what has not landed when ctx ended.
func (s *Service) leave(ctx context.Context, c *check) {
	failure := &Error{Kind: KindCanceled, Err: ctx.Err()}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		failure = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Err: ctx.Err()}
	}
	for _, v := range c.views() {
		select {
		case <-v.flight.landed():
			s.settle(c, v)
		default:
			if !v.settled() {
				v.flight, v.err = nil, failure
			}
		}
	}
}
