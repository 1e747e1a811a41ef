package cache

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// drawEvidence draws evidence about the account of a few facts, fetched around now.
func drawEvidence(t *rapid.T, now time.Time) *eligibility.Evidence {
	at := now.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "fetched")) * 700 * time.Millisecond)
	evidence := &eligibility.Evidence{FetchTime: at}
	if rapid.Bool().Draw(t, "fetched here") {
		evidence.SetFetchTime(at)
	}
	evidence.Status = rapid.SampledFrom([]eligibility.AccountStatus{eligibility.AccountStatusAllowed, eligibility.AccountStatusNotReady, eligibility.AccountStatusUnderReview, eligibility.AccountStatusNotAllowed}).Draw(t, "status")
	return evidence
}

// What confirm accepts without a write to the table, decide would have decided.
func TestConfirmIsDecide(t *testing.T) {
	t.Parallel()
	confirmed := 0
	rapid.Check(t, func(t *rapid.T) {
		tier, err := newLocal(10, 1<<20, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		now := fetched
		moment := func(label string) *time.Time {
			at := now.Add(time.Duration(rapid.IntRange(-2, 2).Draw(t, label)) * time.Second)
			return &at
		}
		for range rapid.IntRange(0, 3).Draw(t, "announcements") {
			tier.tombs.add(accountKey, *moment("announced"), *moment("arrived"))
		}
		c := new(customer)
		if rapid.Bool().Draw(t, "held") {
			c.hold(eligibility.FacetAccount, entry{evidence: drawEvidence(t, now), confirmed: moment("confirmed")})
		}
		found := entry{evidence: drawEvidence(t, now), confirmed: moment("confirmed now")}
		old, held := c.entry(eligibility.FacetAccount)
		if held && rapid.Bool().Draw(t, "the same") {
			found.evidence = old.evidence
		}
		if fromFuture(found.evidence, now) {
			return
		}
		next := new(customer)
		if held {
			next.hold(eligibility.FacetAccount, old)
		}
		var want entry
		var ok bool
		tier.decide(accountKey, next, found, now, &want, &ok)
		got, known := found, tier.tombs.of(accountKey.CustomerID)
		if !tier.confirm(int(accountKey.Facet), c, &known, &got, now) {
			return
		}
		confirmed++
		wantHeld, _ := next.entry(eligibility.FacetAccount)
		gotHeld, _ := c.entry(eligibility.FacetAccount)
		for name, pair := range map[string][2]entry{"returned": {want, got}, "held": {wantHeld, gotHeld}} {
			if !ok || pair[0].evidence != pair[1].evidence || !pair[0].confirmed.Equal(*pair[1].confirmed) {
				t.Errorf("%s: %+v of %v, want %+v of %v (%t)", name, pair[1].evidence, pair[1].confirmed, pair[0].evidence, pair[0].confirmed, ok)
			}
		}
	})
	if confirmed == 0 {
		t.Error("nothing was confirmed")
	}
}

// A confirmation of what was held before does not confirm what replaced it.
func TestAConfirmationIsLostWithWhatItConfirmed(t *testing.T) {
	t.Parallel()
	tier, err := newLocal(10, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	later := fetched.Add(time.Second)
	tier.put(accountKey, entry{evidence: &eligibility.Evidence{FetchTime: fetched}, confirmed: &fetched}, later)
	before := tier.get(accountKey.CustomerID)
	tier.requireRevalidation(accountKey)
	before.facets[eligibility.FacetAccount].confirm(&later)
	if now, _ := tier.get(accountKey.CustomerID).entry(eligibility.FacetAccount); !now.confirmed.Equal(unconfirmed) {
		t.Errorf("confirmed at %v", now.confirmed)
	}
}

// inBothOrders returns two tiers that were given both steps: each has the step of its
// place first.
func inBothOrders(t *testing.T, steps [2]func(*local)) (tiers [2]*local) {
	t.Helper()
	for first := range tiers {
		tier, err := newLocal(10, 1<<20, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		steps[first](tier)
		steps[1-first](tier)
		tiers[first] = tier
	}
	return tiers
}

// If nobody knows which of two is newer, a review stays or comes in place of an account
// that is not ready: no policy allows a purchase under review.
func TestAReviewIsStricterThanAnAccountThatIsNotReady(t *testing.T) {
	t.Parallel()
	now := fetched
	own, ahead := now.Add(-200*time.Millisecond), now.Add(500*time.Millisecond)
	for _, status := range []eligibility.AccountStatus{eligibility.AccountStatusNotReady, eligibility.AccountStatusUnderReview} {
		here := &eligibility.Evidence{Status: status}
		here.SetFetchTime(own)
		there := &eligibility.Evidence{Status: eligibility.AccountStatusNotReady + eligibility.AccountStatusUnderReview - status, FetchTime: ahead}
		steps := [2]func(*local){
			func(l *local) { l.put(accountKey, entry{evidence: here, confirmed: &own}, now) },
			func(l *local) { l.applyMessage(accountKey, there, &now, now, true) },
		}
		for first, tier := range inBothOrders(t, steps) {
			e, _ := tier.get(accountKey.CustomerID).entry(eligibility.FacetAccount)
			if e.evidence == nil || e.evidence.Status != eligibility.AccountStatusUnderReview || !e.confirmed.Equal(unconfirmed) {
				t.Errorf("status %d here, step %d first: %+v", status, first, e)
			}
		}
	}
}

// So do qualifications none of which is approved, or none at all, against one that is.
func TestWhatApprovesNothingIsStricter(t *testing.T) {
	t.Parallel()
	now := fetched
	own, ahead := now.Add(-200*time.Millisecond), now.Add(500*time.Millisecond)
	approved := eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{{Type: eligibility.QualificationEducation, VettingStatus: eligibility.VettingApproved}}}
	denied := eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{{Type: eligibility.QualificationEducation, VettingStatus: eligibility.VettingDenied}}}
	absent := eligibility.Evidence{Facet: eligibility.FacetQualifications, Absence: eligibility.AbsenceNotFound}
	for name, row := range map[string]struct {
		here, there eligibility.Evidence
		dated       time.Time // there
	}{
		"denied there": {approved, denied, ahead}, "denied here": {denied, approved, ahead}, "absent there": {approved, absent, ahead}, "absent here": {absent, approved, ahead},
		"denied there in the same millisecond": {approved, denied, own}, "denied here in the same millisecond": {denied, approved, own},
	} {
		here, there := &row.here, &row.there
		here.SetFetchTime(own)
		there.FetchTime = row.dated.Truncate(time.Millisecond)
		steps := [2]func(*local){
			func(l *local) { l.put(qualificationsKey, entry{evidence: here, confirmed: &own}, now) },
			func(l *local) { l.applyMessage(qualificationsKey, there, &now, now, true) },
		}
		for first, tier := range inBothOrders(t, steps) {
			e, held := tier.get(qualificationsKey.CustomerID).entry(eligibility.FacetQualifications)
			if !held || approves(e.evidence) {
				t.Errorf("%s, step %d first: %+v", name, first, e.evidence)
			}
		}
	}
}

// An announcement ahead of this clock may be of a block. What this process has just
// fetched stands against it only if no policy allows a purchase by it.
func TestOnlyABlockStandsAgainstAnAnnouncementFromAhead(t *testing.T) {
	t.Parallel()
	now := fetched
	account := func(status eligibility.AccountStatus) *eligibility.Evidence {
		return &eligibility.Evidence{Status: status}
	}
	education := func(vetting eligibility.VettingStatus) *eligibility.Evidence {
		return &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{{Type: eligibility.QualificationEducation, VettingStatus: vetting}}}
	}
	for here, stands := range map[*eligibility.Evidence]bool{
		account(eligibility.AccountStatusAllowed): false, account(eligibility.AccountStatusNone): false, account(eligibility.AccountStatusNotReady): false,
		account(eligibility.AccountStatusUnderReview): true, account(eligibility.AccountStatusNotAllowed): true,
		education(eligibility.VettingApproved): false, education(eligibility.VettingDenied): true,
	} {
		tier, err := newLocal(10, 1<<20, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		key := keyOf(accountKey.CustomerID, int(here.Facet))
		tier.tombs.add(key, now.Add(500*time.Millisecond), now)
		here.SetFetchTime(now.Add(-200 * time.Millisecond))
		_, ok := tier.put(key, entry{evidence: here, confirmed: &here.FetchTime}, now)
		e, held := tier.get(key.CustomerID).entry(key.Facet)
		if ok != stands || held != stands || held && !e.confirmed.Equal(unconfirmed) {
			t.Errorf("%+v stands: %t, held: %t (%+v)", here, ok, held, e)
		}
	}
}

// What happens to one facet leaves the other as it is, and the customer goes with the
// last of them.
func TestTheFacetsAreHeldApart(t *testing.T) {
	t.Parallel()
	now := fetched.Add(time.Second)
	held := [2]*eligibility.Evidence{{FetchTime: fetched, Status: eligibility.AccountStatusAllowed}, {FetchTime: fetched, Facet: eligibility.FacetQualifications}}
	type half struct {
		Evidence  *eligibility.Evidence
		Confirmed bool
	}
	newer := &eligibility.Evidence{FetchTime: now, Status: eligibility.AccountStatusNotAllowed}
	for name, row := range map[string]struct {
		do   func(*local, eligibility.Key)
		want half
	}{
		"revalidated": {func(l *local, key eligibility.Key) { l.requireRevalidation(key) }, half{Confirmed: false}},
		"announced":   {func(l *local, key eligibility.Key) { l.applyMessage(key, newer, &now, now, false) }, half{newer, true}},
		"dropped": {func(l *local, key eligibility.Key) {
			l.tombs.add(key, now, now)
			l.put(key, entry{evidence: &eligibility.Evidence{Facet: key.Facet, FetchTime: fetched.Add(time.Millisecond)}, confirmed: &now}, now)
		}, half{}},
	} {
		for _, key := range []eligibility.Key{accountKey, qualificationsKey} {
			tier, err := newLocal(10, 1<<20, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			tier.putBoth(key.CustomerID, [2]entry{{held[0], &fetched}, {held[1], &fetched}}, now)
			row.do(tier, key)
			want := [2]half{{held[0], true}, {held[1], true}}
			if want[key.Facet] = row.want; name == "revalidated" {
				want[key.Facet].Evidence = held[key.Facet]
			}
			var got [2]half
			for facet := range got {
				if e, ok := tier.get(key.CustomerID).entry(eligibility.Facet(facet)); ok {
					got[facet] = half{e.evidence, !e.confirmed.Equal(unconfirmed)}
				}
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b *eligibility.Evidence) bool { return a == b })); diff != "" {
				t.Errorf("%s, %v (-want +got):\n%s", name, key.Facet, diff)
			}
			if name == "dropped" {
				other := eligibility.Key{CustomerID: key.CustomerID, Facet: 1 - key.Facet}
				row.do(tier, other)
				if tier.customers.EstimatedSize() != 0 {
					t.Error("an empty customer is held")
				}
			}
		}
	}
}

// Callers confirm one customer while messages replace its evidence: the newest message
// is held in the end, and what was announced before it never comes back.
func TestConfirmationsRaceWithMessages(t *testing.T) {
	t.Parallel()
	tier, err := newLocal(10, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	const messages = 500
	now := fetched.Add(messages * time.Millisecond)
	read := make(chan *eligibility.Evidence, messages)
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for evidence := range read {
				newest, ok := tier.put(accountKey, entry{evidence: evidence, confirmed: &now}, now)
				if ok && newest.evidence.FetchTime.Before(evidence.FetchTime) {
					t.Errorf("%v in place of %v", newest.evidence.FetchTime, evidence.FetchTime)
				}
			}
		})
	}
	last := fetched
	for i := range messages {
		last = fetched.Add(time.Duration(i) * time.Millisecond)
		evidence := &eligibility.Evidence{FetchTime: last, Status: eligibility.AccountStatusAllowed}
		read <- evidence
		tier.applyMessage(accountKey, evidence, &now, now, true)
		read <- evidence
	}
	close(read)
	callers.Wait()
	if e, _ := tier.get(accountKey.CustomerID).entry(eligibility.FacetAccount); e.evidence == nil || !e.evidence.FetchTime.Equal(last) {
		t.Errorf("holds %+v, want what was fetched at %v", e.evidence, last)
	}
}
