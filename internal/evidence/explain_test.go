package evidence_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// obstructed is a source that is never asked, and has obstacles.
type obstructed struct {
	evidence.Source

	obstacles []evidence.Obstacle
}

func (o obstructed) Obstacles(context.Context) []evidence.Obstacle { return o.obstacles }

// pastStore is a store with a history of its own.
type pastStore struct {
	*memory

	pasts []evidence.Past
	err   error
}

func (s *pastStore) History(context.Context, eligibility.CustomerID) ([]evidence.Past, error) {
	return s.pasts, s.err
}

func explainer(t *testing.T, store evidence.Store, now time.Time, policy eligibility.Policy, obstacles ...evidence.Obstacle) *evidence.Service {
	t.Helper()
	service, err := evidence.New(obstructed{neverAsked(t), obstacles}, store, evidence.Config{Now: func() time.Time { return now }, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// outcomeOf is an explained answer in one word: the kind of the error, or the decision
// with its first reason.
func outcomeOf(s evidence.SegmentExplanation) string {
	text := ""
	if s.Err != nil {
		var failure *eligibility.Error
		errors.As(s.Err, &failure)
		return failure.Kind.String()
	}
	if s.Answer.Stale {
		text = "stale "
	}
	return text + s.Answer.Reasons[0].Code.String()
}

func outcomesOf(e evidence.Explanation) (all []string) {
	for _, s := range e.Segments {
		all = append(all, outcomeOf(s))
	}
	return all
}

var explainedID = eligibility.CustomerID{1, 2, 3}

func key(facet eligibility.Facet) eligibility.Key {
	return eligibility.Key{CustomerID: explainedID, Facet: facet}
}

// An explanation has the answers by what each tier holds, and those that an obstacle
// leaves, and asks Partner Center nothing.
func TestExplainNow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 14, 2, 0, 0, time.UTC)
	throttled := evidence.Obstacle{Kind: evidence.ObstaclePause, Host: evidence.HostPartnerCenter, Until: now.Add(time.Minute), Err: &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: time.Minute}}
	waits := evidence.Obstacle{Kind: evidence.ObstacleBudget, Host: evidence.HostPartnerCenter, Until: now.Add(time.Millisecond)}
	approved := eligibility.Qualification{Type: eligibility.QualificationEducation, VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved"}
	allowed := func(age time.Duration) *eligibility.Evidence {
		return accountOf(eligibility.AccountStatusAllowed, now.Add(-age))
	}
	for name, row := range map[string]struct {
		local, shared, held *eligibility.Evidence // of the account, and the qualifications
		policy              eligibility.Policy
		obstacles           []evidence.Obstacle
		want                []string // by segment
		tiers               []eligibility.Tier
	}{
		"nobody has asked": {
			want: []string{"not_known", "not_known", "not_known", "not_known"},
		},
		"nobody has asked, and Partner Center cannot be": {
			obstacles: []evidence.Obstacle{throttled}, want: []string{"throttled", "throttled", "throttled", "throttled"},
		},
		"a check would wait, no more": {
			obstacles: []evidence.Obstacle{waits}, want: []string{"not_known", "not_known", "not_known", "not_known"},
		},
		"blocks what is undecidable": {
			policy: eligibility.Policy{BlockUndecidable: true}, obstacles: []evidence.Obstacle{waits, throttled},
			want: []string{"UNDECIDABLE", "UNDECIDABLE", "UNDECIDABLE", "UNDECIDABLE"},
		},
		"that policy does not block what is merely not known": {
			policy: eligibility.Policy{BlockUndecidable: true}, want: []string{"not_known", "not_known", "not_known", "not_known"},
		},
		"fresh": {
			local: allowed(time.Minute), held: qualificationsOf(now.Add(-time.Minute), approved),
			want:  []string{"ACCOUNT_ALLOWED", "ACCOUNT_ALLOWED", "ACCOUNT_ALLOWED", "ACCOUNT_ALLOWED"},
			tiers: []eligibility.Tier{eligibility.TierLocal, eligibility.TierLocal},
		},
		"the shared tier has newer": {
			local: accountOf(eligibility.AccountStatusUnderReview, now.Add(-2*time.Minute)), shared: allowed(time.Minute),
			want:  []string{"ACCOUNT_ALLOWED", "not_known", "not_known", "not_known"},
			tiers: []eligibility.Tier{eligibility.TierLocal, eligibility.TierRedis},
		},
		"usable only": {
			local: allowed(20 * time.Minute), want: []string{"stale ACCOUNT_ALLOWED", "not_known", "not_known", "not_known"},
			tiers: []eligibility.Tier{eligibility.TierLocal},
		},
		"no longer usable": {
			local: allowed(2 * time.Hour), want: []string{"not_known", "not_known", "not_known", "not_known"},
			tiers: []eligibility.Tier{eligibility.TierLocal},
		},
		"no longer usable, with an obstacle": {
			local: allowed(2 * time.Hour), obstacles: []evidence.Obstacle{throttled}, want: []string{"throttled", "throttled", "throttled", "throttled"},
			tiers: []eligibility.Tier{eligibility.TierLocal},
		},
		"absent": {
			local: &eligibility.Evidence{Absence: eligibility.AbsenceNotServed, FetchTime: now.Add(-time.Second)},
			want:  []string{"not_served", "not_served", "not_served", "not_served"}, tiers: []eligibility.Tier{eligibility.TierLocal},
		},
	} {
		store := newMemory()
		for k, e := range map[eligibility.Key]*eligibility.Evidence{key(eligibility.FacetAccount): row.local, key(eligibility.FacetQualifications): row.held} {
			if e != nil {
				store.held[k] = e
			}
		}
		if row.shared != nil {
			store.shared[key(eligibility.FacetAccount)] = row.shared
		}
		e := explainer(t, store, now, row.policy, row.obstacles...).Explain(t.Context(), explainedID, eligibility.OperationPurchase, nil)
		if diff := cmp.Diff(row.want, outcomesOf(e)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		var tiers []eligibility.Tier
		for _, held := range e.Evidence {
			tiers = append(tiers, held.Tier)
		}
		if !slices.Equal(tiers, row.tiers) || e.Unread || e.HistoryUnread || !e.Time.Equal(now) || len(e.Obstacles) != len(row.obstacles) {
			t.Errorf("%s: tiers %v, %+v", name, tiers, e)
		}
	}
}

// A shared tier that cannot be read is reported, and what is at hand still explained.
func TestExplainWithoutTheSharedTier(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 14, 2, 0, 0, time.UTC)
	store := newMemory()
	store.held[key(eligibility.FacetAccount)] = accountOf(eligibility.AccountStatusAllowed, now)
	e := explainer(t, hanging{store}, now, eligibility.Policy{}).Explain(t.Context(), explainedID, eligibility.OperationPurchase, nil)
	if !e.Unread || !e.HistoryUnread || outcomesOf(e)[0] != "ACCOUNT_ALLOWED" {
		t.Errorf("%+v", e)
	}
	for at, want := range map[time.Time]string{now.Add(time.Millisecond): "ACCOUNT_ALLOWED", now.Add(-time.Millisecond): "not_known"} {
		e := explainer(t, hanging{store}, now.Add(time.Second), eligibility.Policy{}).Explain(t.Context(), explainedID, eligibility.OperationPurchase, &at)
		if !e.Unread || !e.HistoryUnread || outcomesOf(e)[0] != want {
			t.Errorf("%v: %+v", at, e)
		}
	}
	began := time.Now()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if e := explainer(t, hanging{store}, now, eligibility.Policy{}).Explain(ctx, explainedID, eligibility.OperationPurchase, nil); !e.Unread || time.Since(began) > time.Minute {
		t.Errorf("of a caller who has left: %+v", e)
	}
}

// hanging is a store whose shared tier never answers.
type hanging struct{ *memory }

func (h hanging) Load(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	founds := h.memory.Load(ctx, keys)
	for i := range founds {
		founds[i].Unread = true
	}
	return founds
}

func (h hanging) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	<-ctx.Done()
	return h.Load(ctx, keys)
}

func (hanging) History(ctx context.Context, _ eligibility.CustomerID) ([]evidence.Past, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// An earlier time has the facts that were known then, as long as they were usable
// after their last confirmation.
func TestExplainThen(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(minutes float64) time.Time { return noon.Add(time.Duration(minutes * float64(time.Minute))) }
	account := func(status eligibility.AccountStatus, minutes float64) *eligibility.Evidence {
		e := accountOf(status, at(minutes))
		e.CorrelationID = "c"
		return e
	}
	pasts := []evidence.Past{ // newest first, the facets mixed
		{Evidence: &eligibility.Evidence{Absence: eligibility.AbsenceNotFound, FetchTime: at(300)}, PreviousTime: at(200)},
		{Evidence: qualificationsOf(at(90), eligibility.Qualification{Type: eligibility.QualificationEducation, VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved"}), PreviousTime: at(80)},
		{Evidence: account(eligibility.AccountStatusAllowed, 60), PreviousTime: at(50), ConfirmedTime: at(200)},
		{Evidence: qualificationsOf(at(30), eligibility.Qualification{Type: eligibility.QualificationEducation, VettingStatus: eligibility.VettingDenied, VettingStatusText: "Denied"}), ConfirmedTime: at(80)},
		{Evidence: account(eligibility.AccountStatusUnderReview, 10), ConfirmedTime: at(50)},
	}
	store := &pastStore{memory: newMemory(), pasts: pasts}
	service := explainer(t, store, at(400), eligibility.Policy{BlockUndecidable: true})
	for _, row := range []struct {
		at                    time.Time
		commercial, education string
	}{
		{at(-100000), "not_known", "not_known"},
		{at(10).Add(-time.Nanosecond), "not_known", "not_known"},
		{at(10), "ACCOUNT_UNDER_REVIEW", "ACCOUNT_UNDER_REVIEW"},
		{at(10).Add(time.Nanosecond), "ACCOUNT_UNDER_REVIEW", "ACCOUNT_UNDER_REVIEW"},
		{at(30), "ACCOUNT_UNDER_REVIEW", "ACCOUNT_UNDER_REVIEW"},
		{at(50), "ACCOUNT_UNDER_REVIEW", "ACCOUNT_UNDER_REVIEW"},
		{at(59), "stale ACCOUNT_UNDER_REVIEW", "stale ACCOUNT_UNDER_REVIEW"}, // confirmed at 50, fresh for a minute
		{at(60), "ACCOUNT_ALLOWED", "ACCOUNT_ALLOWED"},
		{at(200), "ACCOUNT_ALLOWED", "stale ACCOUNT_ALLOWED"}, // the qualifications are of 90
		{at(225), "stale ACCOUNT_ALLOWED", "stale ACCOUNT_ALLOWED"},
		{at(299), "not_known", "not_known"}, // an hour after 200, no longer usable
		{at(300), "not_found", "not_found"},
		{at(302), "not_known", "not_known"},
	} {
		e := service.Explain(t.Context(), explainedID, eligibility.OperationPurchase, &row.at)
		got := outcomesOf(e)
		if got[0] != row.commercial || got[1] != row.education {
			t.Errorf("%v: %v, want %s and %s", row.at, got, row.commercial, row.education)
		}
		if !e.Time.Equal(row.at) || len(e.Obstacles) > 0 {
			t.Errorf("%+v", e)
		}
		for _, s := range e.Segments {
			if a := s.Answer; !a.ExpireTime.IsZero() || !a.RecheckTime.IsZero() || a.Tier != eligibility.TierNone {
				t.Errorf("%v: %+v has what is not known", row.at, a)
			}
		}
	}
	e := service.Explain(t.Context(), explainedID, eligibility.OperationPurchase, nil)
	type change struct {
		before, after       bool // known
		evidence, confirmed float64
	}
	var got []change
	for _, c := range e.History {
		got = append(got, change{c.Before != nil, c.After != nil, c.After.FetchTime.Sub(noon).Minutes(), c.Confirmed.Sub(noon).Minutes()})
	}
	want := []change{{true, true, 300, 300}, {true, true, 60, 200}, {false, true, 10, 50}, {true, true, 90, 90}, {false, true, 30, 80}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(change{})); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	// What a tier holds confirms the last change, or is a change that the history lacks.
	store.pasts = pasts[2:]
	store.held[key(eligibility.FacetAccount)] = account(eligibility.AccountStatusAllowed, 395)
	then := at(300)
	if e := service.Explain(t.Context(), explainedID, eligibility.OperationPurchase, &then); outcomesOf(e)[0] != "ACCOUNT_ALLOWED" || !e.Segments[0].Answer.EvidenceTime.Equal(at(60)) || !e.History[0].Confirmed.Equal(at(395)) {
		t.Errorf("%+v", e)
	}
	store.held[key(eligibility.FacetAccount)] = account(eligibility.AccountStatusNotAllowed, 395)
	if then = at(396); outcomesOf(service.Explain(t.Context(), explainedID, eligibility.OperationPurchase, &then))[0] != "ACCOUNT_NOT_ALLOWED" {
		t.Error("evidence that the history lacks is not known")
	}
}

// What a store has of a month in which a customer was fetched every six hours answers for
// all of it, although no tier has the evidence any longer.
func TestExplainTheMonthOfACustomerWhoIsNotAskedAboutNow(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 10, 28, 0, 0, 0, 0, time.UTC)
	server, now := cachetest.StartRedis(t), began
	client := server.Client()
	defer func() { _ = client.Close() }()
	store, err := cache.New(cache.Config{Now: func() time.Time { return now }, Redis: cache.RedisConfig{
		Addresses: []string{server.Address}, Namespace: "n", ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	account := key(eligibility.FacetAccount)
	fetch := func(word string) {
		store.Share(t.Context(), account, &eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word, FetchTime: now}, now.Add(24*time.Hour))
	}
	for range 30 * 4 {
		fetch("Allowed")
		now = now.Add(6 * time.Hour)
	}
	blocked := now
	fetch("NotAllowed")
	now = now.Add(36 * time.Hour)
	found, err := client.Keys(t.Context(), "*:account").Result()
	if err != nil || len(found) != 1 || client.Del(t.Context(), found...).Err() != nil { // it expires
		t.Fatalf("%v, %v", found, err)
	}
	service := explainer(t, store, now, eligibility.Policy{})
	for at, want := range map[time.Time]string{
		began.Add(-1):                          "not_known",
		began:                                  "ACCOUNT_ALLOWED",
		began.Add(15*24*time.Hour + time.Hour): "ACCOUNT_ALLOWED",
		blocked.Add(-6 * time.Hour):            "ACCOUNT_ALLOWED",
		blocked.Add(-1):                        "not_known", // the last confirmation was six hours before
		blocked.Add(time.Minute):               "ACCOUNT_NOT_ALLOWED",
		now:                                    "not_known",
	} {
		e := service.Explain(t.Context(), explainedID, eligibility.OperationPurchase, &at)
		if got := outcomesOf(e)[0]; got != want || len(e.History) != 2 || e.History[0].Before == nil {
			t.Errorf("%v: %s, want %s, %d changes", at.Sub(began), got, want, len(e.History))
		}
		if known := !at.Before(began); known != (len(e.Evidence) == 1) {
			t.Errorf("%v: evidence %+v", at.Sub(began), e.Evidence)
		}
	}
}

// On a customer's day, the explanation of each instant agrees with what was answered.
func TestAnExplanationAgreesWithWhatWasAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, explainADay)
}

func explainADay(t *testing.T) {
	var clock atomic.Int64
	clock.Store(time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC).UnixNano())
	now := func() time.Time { return time.Unix(0, clock.Load()).UTC() }
	source := &scripted{}
	store := cachetest.NewMemory(now)
	service, err := evidence.New(source, store, evidence.Config{Now: now, QualificationsGrace: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	words := []string{"Allowed", "UnderReview", "NotAllowed", "Allowed", "Not Ready", "Unknown", "Vetted"}
	vetting := []string{"InReview", "Approved", "Denied", ""}
	type instant struct {
		at                    time.Time
		commercial, education string
	}
	var day []instant
	answered := func(segment eligibility.Segment) string {
		answer, err := service.Check(t.Context(), eligibility.Request{CustomerID: explainedID, Segment: segment})
		synctest.Wait() // until its fetches have ended, which later checks would share
		return outcomeOf(evidence.SegmentExplanation{Answer: answer, Err: err})
	}
	for flip := range 30 {
		account := outcome{evidence: eligibility.Evidence{Status: eligibility.ParseAccountStatus(words[flip%len(words)]), StatusText: words[flip%len(words)]}}
		held, _ := eligibility.ParseQualification("Education", vetting[flip/2%len(vetting)], "", time.Time{})
		qualifications := outcome{evidence: eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{held}}}
		switch flip {
		case 9: // the customer is gone for a while
			account.evidence = eligibility.Evidence{Absence: eligibility.AbsenceNotFound}
			qualifications = account
			qualifications.evidence.Facet = eligibility.FacetQualifications
		case 17: // Partner Center is
			failure := &eligibility.Error{Kind: eligibility.KindUnavailable}
			account, qualifications = outcome{err: failure}, outcome{err: failure}
		}
		source.set(account, qualifications)
		for range 4 {
			clock.Add(int64(11*time.Minute) + int64(flip))
			day = append(day, instant{now(), answered(eligibility.SegmentCommercial), answered(eligibility.SegmentEducation)})
		}
	}
	for _, i := range day {
		clock.Add(int64(time.Second))
		e := service.Explain(t.Context(), explainedID, eligibility.OperationPurchase, &i.at)
		if got := outcomesOf(e); got[0] != i.commercial || got[1] != i.education {
			t.Errorf("%v: answered %s and %s, explained %v", i.at, i.commercial, i.education, got)
		}
	}
	kinds := make(map[string]bool)
	for _, i := range day {
		kinds[i.commercial] = true
	}
	if len(day) != 120 || !kinds["not_found"] || len(kinds) < 8 {
		t.Errorf("the day has only %v", kinds)
	}
}
