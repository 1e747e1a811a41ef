package eligibility

import (
	"context"
	"errors"
	"time"
)

// ask fetches what is not fresh and waits for it: for the account, and for the
// qualifications where the decision needs them, as long as ctx allows; for
// qualifications that it does not need, no longer than the grace.
func (s *Service) ask(ctx context.Context, c *check, req *Request, now time.Time, in lane) {
	notBefore := req.MinEvidenceTime
	if req.MaxAgeSet && now.Add(-req.MaxAge).After(notBefore) {
		notBefore = now.Add(-req.MaxAge)
	}
	if !waitUntil(ctx, notBefore.Sub(now)) {
		c.leave(ctx)
		return
	}
	for _, v := range [...]*view{&c.account, &c.qualifications} {
		if !v.fresh {
			v.flight = s.fetch(ctx, v.key, notBefore, in)
		}
	}
	var grace <-chan time.Time
	for c.account.flight != nil || c.qualifications.flight != nil {
		if grace == nil && c.account.flight == nil && !s.needsQualifications(c, req) {
			grace = time.After(s.grace)
		}
		select {
		case <-c.account.flight.landed():
			s.settle(&c.account, req)
		case <-c.qualifications.flight.landed():
			s.settle(&c.qualifications, req)
		case <-grace:
			c.qualifications.flight = nil
			c.qualifications.err = errGrace
		case <-ctx.Done():
			c.leave(ctx)
		}
	}
}

// errGrace is why qualifications that were not needed are missing.
var errGrace = errors.New("qualifications not waited for")

// waitUntil waits for d, if it is positive, and reports whether ctx goes on.
func waitUntil(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// settle takes the result of the view's flight, which has landed.
func (s *Service) settle(v *view, req *Request) {
	f := v.flight
	v.flight, v.call, v.err = nil, f.call, f.err
	if f.err == nil {
		s.consider(v, Found{Evidence: f.evidence, Tier: TierPartnerCenter}, req, f.start)
		v.fresh = v.found.Evidence != nil
	}
}

// leave gives up on what has not landed when ctx ended.
func (c *check) leave(ctx context.Context) {
	failure := &Error{Kind: KindCanceled, Err: ctx.Err()}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		failure = &Error{Kind: KindUnavailable, RetryAfter: leftEarlyRetry, Err: ctx.Err()}
	}
	for _, v := range [...]*view{&c.account, &c.qualifications} {
		if !v.fresh && v.err == nil {
			v.flight, v.err = nil, failure
		}
	}
}
