package evidence

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// check is what is known while one question is being answered.
type check struct {
	req eligibility.Request
	// youngest is the caller's max_age, counted from its arrival: evidence
	// fetched earlier is not fresh. It carries a monotonic reading. Zero if the
	// caller set none.
	youngest       time.Time
	spares         *spares // bounds the fetches that no decision needs; nil for a single check
	failed         func()  // as in fetchRequest, for the account; may be nil
	known          bool    // some tier holds evidence about the customer, of any age
	account        view
	qualifications view
}

// view is what one check knows about one facet.
type view struct {
	eligibility.Held

	key            eligibility.Key
	mustRevalidate bool   // as in Found
	fetch          *fetch // the one that the check waits for, or nil
	waived         bool   // the check does not wait for the facet, which it does not need
	coolingDown    bool   // Err is of an earlier check: the facet failed and is not needed
	tooNew         bool   // min_evidence_time alone excludes evidence younger than FreshAge
}

// completed reports whether the check is done with the facet.
func (v *view) completed() bool { return v.Fresh || v.Err != nil || v.waived }

// found returns the evidence of the view as a store would.
func (v *view) found() Found {
	return Found{Evidence: v.Evidence, Tier: v.Tier, MustRevalidate: v.mustRevalidate}
}

// drop removes the evidence of the view.
func (v *view) drop() {
	v.Evidence, v.Tier, v.mustRevalidate, v.Fresh = nil, eligibility.TierNone, false, false
}

func (c *check) completed() bool { return c.account.completed() && c.qualifications.completed() }

func (c *check) views() [2]*view { return [2]*view{&c.account, &c.qualifications} }

func (c *check) view(facet eligibility.Facet) *view {
	if facet == eligibility.FacetQualifications {
		return &c.qualifications
	}
	return &c.account
}

// missing appends the keys of the views that are not completed.
func (c *check) missing(keys []eligibility.Key) []eligibility.Key {
	for _, v := range c.views() {
		if !v.completed() {
			keys = append(keys, v.key)
		}
	}
	return keys
}

// peek starts c, which is zero but for facets that are waived, with what this
// process holds.
func (s *Service) peek(ctx context.Context, c *check, req *eligibility.Request, now time.Time) {
	var founds [2]Found
	if c.qualifications.waived {
		founds[eligibility.FacetAccount] = s.store.Peek(eligibility.Key{CustomerID: req.CustomerID, Facet: eligibility.FacetAccount}, now)
	} else {
		founds[eligibility.FacetAccount], founds[eligibility.FacetQualifications] = s.store.PeekBoth(req.CustomerID, now)
	}
	s.start(ctx, c, req, &founds, now, now)
}

// start is peek with what was found, by facet, for a caller who arrived earlier.
func (s *Service) start(ctx context.Context, c *check, req *eligibility.Request, founds *[2]Found, arrived, now time.Time) {
	c.req = *req
	c.req.Segment = s.policy.SegmentFor(req.Segment, req.Operation)
	c.account.key = eligibility.Key{CustomerID: req.CustomerID, Facet: eligibility.FacetAccount}
	c.qualifications.key = eligibility.Key{CustomerID: req.CustomerID, Facet: eligibility.FacetQualifications}
	if req.MaxAgeSet {
		c.youngest = arrived.Add(-req.MaxAge)
	}
	s.admit(c, &c.account, founds[eligibility.FacetAccount], now)
	s.admit(c, &c.qualifications, founds[eligibility.FacetQualifications], now)
	for _, v := range c.views() {
		if v.Fresh {
			s.refreshEarly(ctx, c, v, now)
		}
	}
	if c.req.Segment == eligibility.SegmentCommercial && !c.qualifications.Fresh && !req.MaxAgeSet && req.MinEvidenceTime.IsZero() {
		c.qualifications.Err = s.inflight.coolingDown(c.qualifications.key, now)
		c.qualifications.coolingDown = c.qualifications.Err != nil
	}
}

// admit puts found into the view if the request permits it and nothing newer is
// there. It is the only place that rejects evidence as too old. If evidence is past
// its usable age, neither it nor anything older answers.
func (s *Service) admit(c *check, v *view, found Found, now time.Time) {
	evidence := found.Evidence
	if evidence == nil || evidence.FetchTime.After(now) && evidence.FetchTime.After(now.Add(eligibility.ClockTolerance)) {
		return
	}
	c.known = true
	if evidence.FetchTime.Before(c.req.MinEvidenceTime) {
		v.tooNew = v.tooNew || c.req.LacksFresh && s.isYoung(c, v, found, now)
		return
	}
	if v.Evidence != nil && !s.replaces(c, v, evidence, now) {
		return
	}
	life := s.ages.LifetimeOf(v.key, evidence, s.policy, c.req.Operation, now)
	if !now.Before(life.UsableUntil) {
		v.drop()
		return
	}
	v.Evidence, v.Tier, v.mustRevalidate, v.Lifetime = evidence, found.Tier, found.MustRevalidate, life
	v.Fresh = !found.MustRevalidate && now.Before(life.FreshUntil) && c.youngEnough(evidence)
}

// adoptNewer admits what this process holds by now if it is newer than what the view
// has, or a block of the same millisecond.
func (s *Service) adoptNewer(c *check, v *view, held Found, now time.Time) {
	known := v.Evidence
	if held.Evidence != nil && (known == nil || held.Evidence.FetchTime.After(known.FetchTime) ||
		held.Evidence.FetchTime.Equal(known.FetchTime) && s.blocks(c, held.Evidence) && !s.blocks(c, known)) {
		s.admit(c, v, held, now)
		v.Fetched = v.Fetched && v.Evidence == known
	}
}

// youngEnough reports whether evidence satisfies the caller's max_age.
func (c *check) youngEnough(evidence *eligibility.Evidence) bool {
	return !c.req.MaxAgeSet || evidence.FetchedSince(c.youngest)
}

// bound is what a fetch must satisfy to answer the check. The evidence of a fetch
// bears the whole millisecond in which it starts, so that a fetch for
// min_evidence_time starts in a later one.
func (c *check) bound() recency {
	minimum := c.req.MinEvidenceTime
	bound := recency{started: ceilMillisecond(minimum), dated: minimum}
	if c.req.MaxAgeSet {
		bound.started = latest(bound.started, c.youngest)
		bound.dated = latest(bound.dated, c.youngest.Round(0).Add(eligibility.ClockTolerance))
	}
	return bound
}

func ceilMillisecond(t time.Time) time.Time {
	return t.Add(time.Millisecond - 1).Truncate(time.Millisecond)
}

// replaces reports whether evidence replaces that of the view: if it is dated
// later. What this process has fetched for this check yields to a date of another
// replica's clock only if the date is later than clocks differ and not still to
// come. Otherwise nobody knows which is newer, and the evidence must neither lift a
// block nor stand in for the fetch that the caller's max_age demanded.
func (s *Service) replaces(c *check, v *view, evidence *eligibility.Evidence, now time.Time) bool {
	held := v.Evidence
	switch {
	case evidence.FetchTime.Before(held.FetchTime):
		return false
	case !v.Fetched, !held.FetchedHere(), evidence.FetchedHere(), s.blocks(c, evidence):
		return true
	case evidence.FetchTime.After(held.FetchTime.Add(eligibility.ClockTolerance)) && !evidence.FetchTime.After(now):
		return true
	default:
		return !s.blocks(c, held) && c.youngEnough(evidence)
	}
}
