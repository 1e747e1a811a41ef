package evidence

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Known is what the tiers know about a customer.
type Known struct {
	CustomerID eligibility.CustomerID
	Answer     eligibility.Answer
}

// Known returns the current answers about purchases by customers, in their order. It
// queries the tiers only, the shared one once for all customers and, if that failed,
// once more for as long as ctx allows, 2 s at most; it starts no fetch. Customers about
// whom nothing is known that decides are left out. An answer by evidence that is no
// longer fresh is stale. complete is false if the shared tier could not be read, so
// that more may be known.
func (s *Service) Known(ctx context.Context, ids []eligibility.CustomerID, segment eligibility.Segment) (known []Known, complete bool) {
	now := s.now()
	open := make([]check, len(ids))
	for i := range open {
		s.recall(&open[i], ids[i], segment, now)
	}
	complete = s.loadKnown(ctx, open, s.store.Load)
	if !complete && ctx.Err() == nil {
		patient, cancel := context.WithTimeout(ctx, reloadTimeout)
		defer cancel()
		complete = s.loadKnown(patient, open, s.store.LoadWithin)
	}
	known = make([]Known, 0, len(open))
	for i := range open {
		c := &open[i]
		if answer, err := s.decideKnown(segment, c.account.Held, c.qualifications.Held, now); err == nil {
			known = append(known, Known{c.req.CustomerID, answer})
		}
	}
	return known, complete
}

// recall starts c with what this process holds about a customer. Unlike peek, it
// renews nothing.
func (s *Service) recall(c *check, id eligibility.CustomerID, segment eligibility.Segment, now time.Time) {
	c.req = eligibility.Request{CustomerID: id, Segment: segment}
	c.account.key = eligibility.Key{CustomerID: id, Facet: eligibility.FacetAccount}
	c.qualifications.key = eligibility.Key{CustomerID: id, Facet: eligibility.FacetQualifications}
	account, qualifications := s.store.PeekBoth(id, now)
	s.admit(c, &c.account, account, now)
	s.admit(c, &c.qualifications, qualifications, now)
}

// loadKnown queries the shared tier once for all that is not fresh. It returns false if
// some of it could not be read.
func (s *Service) loadKnown(ctx context.Context, open []check, query func(context.Context, []eligibility.Key) []Found) (complete bool) {
	keys := make([]eligibility.Key, 0, 2*len(open))
	views := make([]*view, 0, 2*len(open))
	of := make([]*check, 0, 2*len(open))
	for i := range open {
		for _, v := range open[i].views() {
			if !v.Fresh {
				keys, views, of = append(keys, v.key), append(views, v), append(of, &open[i])
			}
		}
	}
	if len(keys) == 0 {
		return true
	}
	now := s.now()
	complete = true
	for i, found := range query(ctx, keys) {
		s.admit(of[i], views[i], found, now)
		complete = complete && !found.Unread
	}
	return complete
}

// decideKnown decides about a purchase by what is held. It never stands in for
// evidence that is missing: a block because of when_undecidable is an answer to a
// caller who asked.
func (s *Service) decideKnown(segment eligibility.Segment, account, qualifications eligibility.Held, now time.Time) (eligibility.Answer, error) {
	policy := s.policy
	policy.BlockUndecidable = false
	return eligibility.Decide(policy, segment, eligibility.OperationPurchase, account, qualifications, now)
}

// Comparison is what a change of evidence means for purchases in a segment.
type Comparison struct {
	// Differs reports whether the change makes a difference. Otherwise the rest is
	// not set.
	Differs bool
	// Before and After are the answers before and after the change; nil if what was
	// known did not decide. Each is as of the time of its evidence about the facet
	// that changed; about the other facet it is by what the tiers hold.
	Before, After *eligibility.Answer
	// Passes reports whether the evidence after the change by itself permits the
	// purchase. The other facet may block it, or be unknown.
	Passes bool
	// Unread reports that the shared tier could not be read: another comparison may
	// return answers that are missing.
	Unread bool
}

// Compare returns what a change of the evidence under key means for purchases in
// segment: whether the decision, its reasons or the qualification that the segment
// asks for differ. before is nil if nothing was known. It queries the tiers only,
// within ctx.
func (s *Service) Compare(ctx context.Context, key eligibility.Key, before, after *eligibility.Evidence, segment eligibility.Segment) Comparison {
	if !s.policy.Differs(segment, before, after) {
		return Comparison{}
	}
	other := eligibility.Key{CustomerID: key.CustomerID, Facet: eligibility.FacetQualifications}
	if key.Facet == eligibility.FacetQualifications {
		other.Facet = eligibility.FacetAccount
	}
	found, unread := s.store.Peek(other, s.now()), false
	if found.Evidence == nil || found.MustRevalidate {
		loaded := s.store.Load(ctx, []eligibility.Key{other})[0]
		unread = loaded.Unread
		if loaded.Evidence != nil {
			found = loaded
		}
	}
	return Comparison{
		Differs: true, Unread: unread, Passes: !s.policy.Blocks(segment, eligibility.OperationPurchase, after),
		Before: s.answerOf(key, before, other, found, segment), After: s.answerOf(key, after, other, found, segment),
	}
}

// answerOf answers as of the time of evidence, with what was found about the other
// facet. It returns nil if they do not decide.
func (s *Service) answerOf(key eligibility.Key, evidence *eligibility.Evidence, other eligibility.Key, found Found, segment eligibility.Segment) *eligibility.Answer {
	if evidence == nil {
		return nil
	}
	now := evidence.FetchTime
	changed := s.held(key, evidence, eligibility.TierLocal, now)
	beside := eligibility.Held{}
	if found.Evidence != nil {
		beside = s.held(other, found.Evidence, found.Tier, now)
	}
	if key.Facet == eligibility.FacetQualifications {
		changed, beside = beside, changed
	}
	answer, err := s.decideKnown(segment, changed, beside, now)
	if err != nil {
		return nil
	}
	return &answer
}

// held is evidence as a check at now would hold it.
func (s *Service) held(key eligibility.Key, evidence *eligibility.Evidence, tier eligibility.Tier, now time.Time) eligibility.Held {
	life := s.ages.LifetimeOf(key, evidence, s.policy, eligibility.OperationPurchase, now)
	return eligibility.Held{Evidence: evidence, Tier: tier, Lifetime: life, Fresh: now.Before(life.FreshUntil)}
}
