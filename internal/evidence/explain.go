package evidence

import (
	"context"
	"errors"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// explainTimeout bounds each of the reads of the shared tier for an explanation, after
// the first, which has the time of a lookup.
const explainTimeout = 400 * time.Millisecond

// Explanation is what is known about a customer, and how checks are answered by it.
type Explanation struct {
	// Time is the time that the answers are as of.
	Time time.Time
	// Segments has the answers, commercial first.
	Segments []SegmentExplanation
	// Evidence is what each tier holds, the account's first or, for an earlier time,
	// what was known then.
	Evidence []HeldEvidence
	// Obstacles keep the source from calling Partner Center now. None are listed for an
	// earlier time.
	Obstacles []Obstacle
	// History has the changes, those of the account first, and of each facet the newest
	// first.
	History []Change
	// Unread reports that the shared tier could not be read, so that it may hold newer
	// evidence, and HistoryUnread the same of the history.
	Unread, HistoryUnread bool
}

// SegmentExplanation is the answer for one segment, and the rules that produced it.
type SegmentExplanation struct {
	Segment eligibility.Segment
	Rules   []eligibility.Applied
	// Answer counts unless Err is set, an *Error.
	Answer eligibility.Answer
	Err    error
}

// HeldEvidence is evidence that a tier holds, or that the history shows.
type HeldEvidence struct {
	*eligibility.Evidence

	Tier           eligibility.Tier // TierNone if it is from the history
	Lifetime       eligibility.Lifetime
	MustRevalidate bool
}

// Change is an entry of a customer's history.
type Change struct {
	// Before is nil if nothing was known before, or if that is no longer kept.
	Before, After *eligibility.Evidence
	// Confirmed is when the facts of After were last fetched, as far as is known.
	Confirmed time.Time
}

var errNotKnown = errors.New("nothing usable is known, and partner center was not asked")

func notKnown() error { return &eligibility.Error{Kind: eligibility.KindNotKnown, Err: errNotKnown} }

// Explain returns what is known about a customer, and the answers to checks of it: now
// if at is nil, else at that time, by the history. It starts no fetch and takes no
// permit. If the shared tier cannot be read within about a second, or within ctx, it
// goes on without.
func (s *Service) Explain(ctx context.Context, id eligibility.CustomerID, operation eligibility.Operation, at *time.Time) Explanation {
	now := s.now()
	found, unread := s.tiers(ctx, id, now)
	e := Explanation{Time: now, Unread: unread}
	pasts, unread := s.pasts(ctx, id)
	e.HistoryUnread = unread
	var facets [2]explained
	for i := range facets {
		f := &facets[i]
		f.key = eligibility.Key{CustomerID: id, Facet: eligibility.Facet(i)}
		for _, v := range found[i] {
			f.see(v)
		}
		f.changes = changesOf(f.key.Facet, pasts, f.newest)
		e.History = append(e.History, f.changes...)
	}
	if at == nil {
		e.Obstacles = s.source.Obstacles(ctx)
		for i := range facets {
			f := &facets[i]
			s.explainNow(f, found[i], operation, e.Obstacles, now)
			e.Evidence = append(e.Evidence, f.evidence...)
		}
	} else {
		e.Time = *at
		for i := range facets {
			f := &facets[i]
			s.explainThen(f, operation, e.Time)
			e.Evidence = append(e.Evidence, f.evidence...)
		}
	}
	for segment := eligibility.SegmentCommercial; segment <= eligibility.SegmentNonprofit; segment++ {
		explained := SegmentExplanation{Segment: segment}
		explained.Answer, explained.Rules, explained.Err = eligibility.Explain(s.policy, segment, operation, facets[0].held, facets[1].held, e.Time)
		if at != nil {
			a := &explained.Answer // when and where it was fetched last is not kept
			a.ExpireTime, a.RecheckTime, a.Tier = time.Time{}, time.Time{}, eligibility.TierNone
		}
		e.Segments = append(e.Segments, explained)
	}
	return e
}

// explained is what is known about one facet of the customer.
type explained struct {
	key      eligibility.Key
	newest   *eligibility.Evidence // of all tiers
	changes  []Change
	evidence []HeldEvidence
	held     eligibility.Held // what a check holds
}

func (f *explained) see(found Found) {
	if f.newest == nil || found.Evidence.FetchTime.After(f.newest.FetchTime) {
		f.newest = found.Evidence
	}
}

// tiers returns what each tier holds about each facet, the local tier first, and
// whether the shared tier could not be read.
func (s *Service) tiers(ctx context.Context, id eligibility.CustomerID, now time.Time) (found [2][]Found, unread bool) {
	var keys [2]eligibility.Key
	for i := range keys {
		keys[i] = eligibility.Key{CustomerID: id, Facet: eligibility.Facet(i)}
		if local := s.store.Peek(keys[i], now); local.Evidence != nil {
			found[i] = append(found[i], local)
		}
	}
	loaded := s.store.Load(ctx, keys[:])
	if (loaded[0].Unread || loaded[1].Unread) && ctx.Err() == nil {
		patient, cancel := context.WithTimeout(ctx, explainTimeout)
		defer cancel()
		loaded = s.store.LoadWithin(patient, keys[:])
	}
	for i, f := range loaded {
		unread = unread || f.Unread
		if f.Evidence != nil && (f.Tier != eligibility.TierLocal || len(found[i]) == 0) {
			found[i] = append(found[i], f)
		}
	}
	return found, unread
}

func (s *Service) pasts(ctx context.Context, id eligibility.CustomerID) (pasts []Past, unread bool) {
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	pasts, err := s.store.History(ctx, id)
	return pasts, err != nil
}

// changesOf returns the changes of one facet. newest is the newest evidence about it,
// which confirms the last change if it states the same; nil if there is none.
func changesOf(facet eligibility.Facet, pasts []Past, newest *eligibility.Evidence) (changes []Change) {
	var later Past // the entry after
	for _, past := range pasts {
		if past.Evidence.Facet != facet {
			continue
		}
		change := Change{After: past.Evidence, Confirmed: latest(past.Evidence.FetchTime, past.ConfirmedTime)}
		switch {
		case later.Evidence != nil:
			if !later.PreviousTime.IsZero() {
				changes[len(changes)-1].Before = past.Evidence
			}
		case newest != nil && newest.SameFacts(past.Evidence):
			change.Confirmed = latest(change.Confirmed, newest.FetchTime)
		}
		changes = append(changes, change)
		later = past
	}
	return changes
}

// explainNow makes of what the tiers hold what a check holds that does not ask Partner
// Center: because an obstacle keeps it from that, or because it gets no answer.
func (s *Service) explainNow(f *explained, found []Found, operation eligibility.Operation, obstacles []Obstacle, now time.Time) {
	c := check{req: eligibility.Request{CustomerID: f.key.CustomerID, Operation: operation}}
	v := view{key: f.key}
	for _, held := range found {
		s.admit(&c, &v, held, now)
		f.evidence = append(f.evidence, HeldEvidence{
			Evidence: held.Evidence, Tier: held.Tier, MustRevalidate: held.MustRevalidate,
			Lifetime: s.ages.LifetimeOf(f.key, held.Evidence, s.policy, operation, now),
		})
	}
	f.held = v.Held
	if f.held.Fresh {
		return
	}
	for _, obstacle := range obstacles {
		if obstacle.Err != nil {
			f.held.Err = obstacle.Err
			return
		}
	}
	if f.held.Evidence == nil {
		f.held.Err = notKnown()
	}
}

// explainThen makes of the history what a check held at a time.
func (s *Service) explainThen(f *explained, operation eligibility.Operation, at time.Time) {
	f.held.Err = notKnown()
	known, confirmed := f.knownAt(at)
	if known == nil {
		return
	}
	// The age of evidence counts from its last fetch. If that was later than at, there
	// may have been one right before.
	last := eligibility.Evidence{
		Facet: known.Facet, Absence: known.Absence, Status: known.Status, StatusText: known.StatusText, Qualifications: known.Qualifications,
		FetchTime: confirmed,
	}
	life := s.ages.LifetimeOf(f.key, &last, s.policy, operation, at)
	f.evidence = []HeldEvidence{{Evidence: known, Lifetime: life}}
	if at.Before(life.UsableUntil) {
		f.held = eligibility.Held{Evidence: known, Lifetime: life, Fresh: at.Before(life.FreshUntil)}
	}
}

// knownAt returns the evidence with the facts that were known at a time, and when they
// were last fetched; nil if none were.
func (f *explained) knownAt(at time.Time) (known *eligibility.Evidence, confirmed time.Time) {
	for _, change := range f.changes {
		if !change.After.FetchTime.After(at) {
			known, confirmed = change.After, change.Confirmed
			break
		}
	}
	if n := f.newest; n != nil && !n.FetchTime.After(at) && n.FetchTime.After(confirmed) {
		return n, n.FetchTime // and the history lacks it
	}
	return known, confirmed
}
