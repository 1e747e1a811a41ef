package evidence

import (
	"context"
	"errors"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// rightFresh is the right to demand evidence younger than eligibility.FreshAge.
const rightFresh = "fresh"

// isYoung reports whether found, which min_evidence_time excludes, would be fresh
// without it and is younger than FreshAge.
func (s *Service) isYoung(c *check, v *view, found Found, now time.Time) bool {
	return !found.MustRevalidate && now.Sub(found.Evidence.FetchTime) < eligibility.FreshAge &&
		now.Before(s.ages.LifetimeOf(v.key, found.Evidence, s.policy, c.req.Operation, now).FreshUntil)
}

// denyNewer refuses to fetch facets for nothing but the min_evidence_time of a caller
// who lacks the right fresh, and reports whether it refused any. Without the account
// there is no decision, so that nothing else is fetched either. Qualifications that
// no decision needs are left out.
func (s *Service) denyNewer(c *check) (denied bool) {
	denies := func(v *view) bool { return v.tooNew && !v.completed() && v.Evidence == nil }
	failure := func() error { return &eligibility.Error{Kind: eligibility.KindPermissionDenied, Right: rightFresh} }
	switch {
	case denies(&c.account):
		c.fail(failure())
		return true
	case !denies(&c.qualifications):
		return false
	case c.req.Segment == eligibility.SegmentCommercial:
		c.qualifications.waived = true
		return false
	default:
		c.qualifications.Err = failure()
		return true
	}
}

// takeNewCustomer counts the customer of the check as a new one if that is what it
// is: no tier holds anything about it, and its account is not being fetched. If its
// caller has none left, it fails the check and returns false. If the shared tier was
// not read, the customer counts as new.
func (s *Service) takeNewCustomer(ctx context.Context, c *check) bool {
	left, _ := ctx.Value(NewCustomersKey{}).(*allowance.NewCustomers)
	if left == nil || c.known || errors.Is(ctx.Err(), context.Canceled) || s.inflight.fetching(c.account.key) {
		return true
	}
	now := s.now()
	account, qualifications := s.store.PeekBoth(c.req.CustomerID, now) // a fetch may have finished since
	s.admit(c, &c.account, account, now)
	s.admit(c, &c.qualifications, qualifications, now)
	if c.known {
		return true
	}
	// A caller without time must not escape the count of all replicas.
	asking := context.WithoutCancel(ctx)
	if deadline, limited := ctx.Deadline(); limited {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(asking, max(time.Until(deadline), revalidateTimeout))
		defer cancel()
	}
	customer := allowance.Customer{Partner: s.partner, ID: c.req.CustomerID}
	granted, retryAfter := left.Take(asking, customer)
	if !granted {
		c.fail(&eligibility.Error{Kind: eligibility.KindCallerLimited, RetryAfter: retryAfter})
		return false
	}
	c.failed = func() { left.Failed(customer) }
	return true
}
