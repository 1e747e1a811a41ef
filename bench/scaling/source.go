package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// partnerCenter plays Partner Center for one replica, behind that replica's own
// budget. It answers at once and counts.
type partnerCenter struct {
	accounts, qualifications []outcome

	now     func() time.Time
	calls   *atomic.Int64
	bucket  *rate.Limiter // nil without a budget
	reserve float64
}

var _ eligibility.Source = (*partnerCenter)(nil)

// newPartnerCenter has a budget as internal/pcclient/throttle.go makes one: a
// tenth of it may go at once, and half of that tenth is for urgent calls only.
func newPartnerCenter(now func() time.Time, calls *atomic.Int64, budgetPerMinute int) *partnerCenter {
	p := &partnerCenter{accounts: accounts(), qualifications: qualifications(), now: now, calls: calls}
	if budgetPerMinute > 0 {
		burst := max(1, budgetPerMinute/10)
		p.bucket = rate.NewLimiter(rate.Limit(float64(budgetPerMinute)/time.Minute.Seconds()), burst)
		p.reserve = float64(burst / 2)
	}
	return p
}

// Fetch implements eligibility.Source.
func (p *partnerCenter) Fetch(_ context.Context, query eligibility.Query) (eligibility.Evidence, eligibility.Call, error) {
	if wait := p.take(query.Priority.Lane()); wait > 0 {
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: wait, Err: errBudget}
	}
	p.calls.Add(1)
	outcomes := p.accounts
	if query.Facet == eligibility.FacetQualifications {
		outcomes = p.qualifications
	}
	return answerTo(query.Key, outcomes), eligibility.Call{Attempts: 1, Status: 200}, nil
}

var errBudget = errors.New("the budget is spent")

// take takes a call from the budget, or returns when there is one to take. An
// urgent call may go up to a second ahead of the budget, which is what it would
// wait; one in the background, which would wait for longer, is refused.
func (p *partnerCenter) take(lane eligibility.Lane) (wait time.Duration) {
	if p.bucket == nil {
		return 0
	}
	const maxBudgetWait = time.Second
	now := p.now()
	if lane == eligibility.LaneCheckout {
		reservation := p.bucket.ReserveN(now, 1)
		if wait = reservation.DelayFrom(now); wait <= maxBudgetWait {
			return 0
		}
		reservation.CancelAt(now)
		return wait
	}
	missing := p.reserve + 1 - p.bucket.TokensAt(now)
	if missing <= 0 && p.bucket.AllowN(now, 1) {
		return 0
	}
	return max(time.Duration(missing/float64(p.bucket.Limit())*float64(time.Second)), time.Millisecond)
}
