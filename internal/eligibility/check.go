package eligibility

import (
	"context"
	"sync/atomic"
	"time"
)

// check is what is known while one question is being answered.
type check struct {
	account        view
	qualifications view
}

// view is what one check knows about one facet.
type view struct {
	key    Key
	found  Found // newest usable evidence; its Evidence is nil where there is none
	life   lifetime
	fresh  bool    // found answers without asking Partner Center
	flight *flight // the fetch waited for, or nil
	call   Call
	err    error // why asking failed
}

func (c *check) complete() bool { return c.account.fresh && c.qualifications.fresh }

func (c *check) view(facet Facet) *view {
	if facet == FacetQualifications {
		return &c.qualifications
	}
	return &c.account
}

// missing appends the keys of the views that are not fresh.
func (c *check) missing(keys []Key) []Key {
	if !c.account.fresh {
		keys = append(keys, c.account.key)
	}
	if !c.qualifications.fresh {
		keys = append(keys, c.qualifications.key)
	}
	return keys
}

// peek starts a check with what this process holds.
func (s *Service) peek(req *Request, now time.Time) check {
	c := check{
		account:        view{key: Key{CustomerID: req.CustomerID, Facet: FacetAccount}},
		qualifications: view{key: Key{CustomerID: req.CustomerID, Facet: FacetQualifications}},
	}
	for _, v := range [...]*view{&c.account, &c.qualifications} {
		s.consider(v, s.store.Peek(v.key), req, now)
		if v.fresh {
			s.refreshAhead(v, now)
		}
	}
	return c
}

// consider takes found into the view if the request admits it and nothing
// newer is there. All that makes evidence too old to answer is decided here.
func (s *Service) consider(v *view, found Found, req *Request, now time.Time) {
	evidence := found.Evidence
	if evidence == nil ||
		evidence.FetchTime.After(now.Add(clockTolerance)) ||
		evidence.FetchTime.Before(req.MinEvidenceTime) {
		return
	}
	life := s.ages.lifetimeOf(v.key, evidence, s.notReadyAllowed)
	if !now.Before(life.usableUntil) {
		return
	}
	if v.found.Evidence != nil && evidence.FetchTime.Before(v.found.Evidence.FetchTime) {
		return
	}
	v.found, v.life = found, life
	v.fresh = !found.Untrusted && now.Before(life.freshUntil) &&
		!(req.MaxAgeSet && evidence.FetchTime.Before(now.Add(-req.MaxAge)))
}

// refreshAhead renews evidence in the background in the last fifth of its fresh
// age, once, so that the callers after its end need not wait.
func (s *Service) refreshAhead(v *view, now time.Time) {
	evidence := v.found.Evidence
	fresh := v.life.freshUntil.Sub(evidence.FetchTime)
	if now.Sub(evidence.FetchTime) < fresh-fresh/5 || atomic.LoadUint32(&evidence.refreshAhead) != 0 {
		return
	}
	if s.refreshes.Add(1) > maxRefreshes || !atomic.CompareAndSwapUint32(&evidence.refreshAhead, 0, 1) {
		s.refreshes.Add(-1)
		return
	}
	key, notBefore := v.key, evidence.FetchTime.Add(1)
	refreshing := s.spawn(func() {
		defer s.refreshes.Add(-1)
		<-s.fetch(context.Background(), key, notBefore, background).done
	})
	if !refreshing {
		s.refreshes.Add(-1)
	}
}
