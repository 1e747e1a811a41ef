package evidence_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// neverAsked is a source that fails the test if it is asked.
func neverAsked(t *testing.T) evidence.Source { //nolint:ireturn // the port
	t.Helper()
	return fetchFunc(func(context.Context, evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
		t.Error("Partner Center was asked")
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindUnavailable}
	})
}

func accountOf(status eligibility.AccountStatus, fetched time.Time) *eligibility.Evidence {
	return &eligibility.Evidence{Status: status, StatusText: fmt.Sprint(status), FetchTime: fetched}
}

func qualificationsOf(fetched time.Time, held ...eligibility.Qualification) *eligibility.Evidence {
	return &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: held, FetchTime: fetched}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Millisecond)
	store := newMemory()
	of := ids(7)
	put := func(tier map[eligibility.Key]*eligibility.Evidence, id eligibility.CustomerID, evidence *eligibility.Evidence) {
		tier[eligibility.Key{CustomerID: id, Facet: evidence.Facet}] = evidence
	}
	put(store.held, of[0], accountOf(eligibility.AccountStatusAllowed, now.Add(-time.Second)))
	put(store.shared, of[1], accountOf(eligibility.AccountStatusUnderReview, now.Add(-time.Second)))
	// of[2] is not known.
	put(store.shared, of[3], &eligibility.Evidence{Absence: eligibility.AbsenceNotFound, FetchTime: now.Add(-time.Second)})
	put(store.held, of[4], accountOf(eligibility.AccountStatusAllowed, now.Add(-30*time.Minute)))
	put(store.shared, of[5], accountOf(eligibility.AccountStatusAllowed, now.Add(-2*time.Hour)))
	put(store.held, of[6], accountOf(eligibility.AccountStatusUnderReview, now.Add(-2*time.Minute)))
	put(store.shared, of[6], accountOf(eligibility.AccountStatusAllowed, now.Add(-time.Second)))
	service, stop := serve(t, neverAsked(t), store, evidence.Config{
		Now: func() time.Time { return now }, Policy: eligibility.Policy{BlockUndecidable: true},
	})
	defer stop()
	got, complete := service.Known(t.Context(), of, eligibility.SegmentCommercial)
	want := []struct {
		id       eligibility.CustomerID
		decision eligibility.Decision
		stale    bool
	}{
		{of[0], eligibility.DecisionAllowed, false},
		{of[1], eligibility.DecisionBlocked, false},
		{of[4], eligibility.DecisionAllowed, true},
		{of[6], eligibility.DecisionAllowed, false},
	}
	if len(got) != len(want) || !complete {
		t.Fatalf("%d answers, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		if got[i].CustomerID != w.id || got[i].Answer.Decision != w.decision || got[i].Answer.Stale != w.stale {
			t.Errorf("answer %d: %+v, want %+v", i, got[i], w)
		}
	}
	if store.loads != 1 {
		t.Errorf("%d queries of the shared tier, want one for all customers", store.loads)
	}
	if got, _ := service.Known(t.Context(), of, eligibility.SegmentEducation); len(got) != 2 { // the two that are blocked by their account alone
		for _, known := range got {
			if known.Answer.Decision != eligibility.DecisionBlocked {
				t.Errorf("allowed without the qualification: %+v", known)
			}
		}
	}
	if got, complete := service.Known(t.Context(), nil, eligibility.SegmentCommercial); len(got) != 0 || !complete {
		t.Errorf("of nobody: %+v", got)
	}
}

// deafOnce is a store whose shared tier cannot be read the first time.
type deafOnce struct{ *memory }

func (d deafOnce) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	founds := make([]evidence.Found, len(keys))
	for i := range founds {
		founds[i].Unread = true
	}
	return founds
}

func TestKnownQueriesTheSharedTierOnceMore(t *testing.T) {
	t.Parallel()
	store := deafOnce{newMemory()}
	store.shared[eligibility.Key{CustomerID: customer}] = accountOf(eligibility.AccountStatusAllowed, time.Now().Add(-time.Second).Truncate(time.Millisecond))
	service, stop := serve(t, neverAsked(t), store, evidence.Config{})
	defer stop()
	if got, complete := service.Known(t.Context(), []eligibility.CustomerID{customer}, eligibility.SegmentCommercial); len(got) != 1 || !complete {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, complete := service.Known(ctx, []eligibility.CustomerID{customer}, eligibility.SegmentCommercial); len(got) != 0 || complete {
		t.Errorf("for a caller who has left: %+v", got)
	}
}

// deaf is a store whose shared tier cannot be read.
type deaf struct{ deafOnce }

func (d deaf) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return d.Load(ctx, keys)
}

func TestKnownReportsASharedTierThatCannotBeRead(t *testing.T) {
	t.Parallel()
	store := deaf{deafOnce{newMemory()}}
	now := time.Now().Truncate(time.Millisecond)
	store.held[eligibility.Key{CustomerID: customer}] = accountOf(eligibility.AccountStatusAllowed, now.Add(-30*time.Minute))
	service, stop := serve(t, neverAsked(t), store, evidence.Config{})
	defer stop()
	if got, complete := service.Known(t.Context(), []eligibility.CustomerID{customer}, eligibility.SegmentCommercial); len(got) != 1 || complete {
		t.Errorf("%+v, complete %t", got, complete)
	}
	key := eligibility.Key{CustomerID: customer}
	before, after := accountOf(eligibility.AccountStatusNotAllowed, now.Add(-time.Second)), accountOf(eligibility.AccountStatusAllowed, now)
	if got := service.Compare(t.Context(), key, before, after, eligibility.SegmentEducation); !got.Unread || got.After != nil {
		t.Errorf("%+v", got)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Millisecond)
	long := now.Add(-48 * time.Hour) // no evidence of then is usable now
	store := newMemory()
	service, stop := serve(t, neverAsked(t), store, evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}})
	defer stop()
	account := eligibility.Key{CustomerID: customer}
	held := eligibility.Key{CustomerID: customer, Facet: eligibility.FacetQualifications}
	review, allowed := accountOf(eligibility.AccountStatusUnderReview, long), accountOf(eligibility.AccountStatusAllowed, long.Add(time.Hour))
	approved := qualificationsOf(long, qualification(eligibility.QualificationEducation, eligibility.VettingApproved))

	got := service.Compare(t.Context(), account, review, allowed, eligibility.SegmentCommercial)
	if !got.Differs || got.Before == nil || got.After == nil || got.Before.Decision != eligibility.DecisionBlocked || got.After.Decision != eligibility.DecisionAllowed {
		t.Fatalf("%+v", got)
	}
	if got.Before.Stale || got.After.Stale || !got.Before.EvidenceTime.Equal(review.FetchTime) || !got.After.EvidenceTime.Equal(allowed.FetchTime) {
		t.Errorf("not as of the change: %+v, %+v", got.Before, got.After)
	}
	if got := service.Compare(t.Context(), account, nil, allowed, eligibility.SegmentCommercial); !got.Differs || got.Before != nil || got.After == nil {
		t.Errorf("first seen: %+v", got)
	}
	if got := service.Compare(t.Context(), account, allowed, allowed, eligibility.SegmentCommercial); got != (evidence.Comparison{}) {
		t.Errorf("nothing differs: %+v", got)
	}
	gone := &eligibility.Evidence{Absence: eligibility.AbsenceNotFound, FetchTime: now}
	if got := service.Compare(t.Context(), account, allowed, gone, eligibility.SegmentCommercial); !got.Differs || got.Before == nil || got.After != nil {
		t.Errorf("gone: %+v", got)
	}
	// Without the qualification, what the account allows is not decided.
	if got := service.Compare(t.Context(), account, review, allowed, eligibility.SegmentEducation); !got.Differs || got.Before == nil || got.After != nil {
		t.Errorf("without the other facet: %+v", got)
	}
	if got := service.Compare(t.Context(), account, review, allowed, eligibility.SegmentEducation); !got.Passes || got.Unread {
		t.Errorf("the account itself permits: %+v", got)
	}
	deaf, stopDeaf := serve(t, neverAsked(t), deafOnce{store}, evidence.Config{})
	defer stopDeaf()
	if got := deaf.Compare(t.Context(), account, review, allowed, eligibility.SegmentEducation); !got.Unread || got.Before.Decision != eligibility.DecisionBlocked || got.After != nil {
		t.Errorf("if the other facet cannot be read: %+v", got)
	}
	if got := deaf.Compare(t.Context(), account, allowed, review, eligibility.SegmentEducation); got.Passes || got.After == nil {
		t.Errorf("a block needs no other facet: %+v", got)
	}
	store.shared[held] = approved
	if got := service.Compare(t.Context(), account, review, allowed, eligibility.SegmentEducation); got.After == nil || got.After.Decision != eligibility.DecisionAllowed || len(got.After.Reasons) != 2 {
		t.Errorf("with the other facet in the shared tier: %+v", got)
	}
	store.held[account] = allowed
	inReview := qualificationsOf(long, qualification(eligibility.QualificationEducation, eligibility.VettingInReview))
	later := qualificationsOf(long.Add(time.Hour), approved.Qualifications...)
	if got := service.Compare(t.Context(), held, inReview, later, eligibility.SegmentEducation); !got.Differs || got.Before.Decision != eligibility.DecisionBlocked || got.After.Decision != eligibility.DecisionAllowed {
		t.Errorf("of the qualifications: %+v", got)
	}
	if got := service.Compare(t.Context(), held, inReview, later, eligibility.SegmentCommercial); got.Differs {
		t.Errorf("of the qualifications, commercial: %+v", got)
	}
}

// TestCompareAllowsOnlyWhatDecideAllows holds Compare to the promise of all answers:
// none allows unless the account does and the segment's qualification is approved.
func TestCompareAllowsOnlyWhatDecideAllows(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Millisecond)
	rapid.Check(t, func(rt *rapid.T) {
		store := newMemory()
		service, err := evidence.New(neverAsked(t), store, evidence.Config{Policy: eligibility.Policy{BlockUndecidable: rapid.Bool().Draw(rt, "block")}})
		if err != nil {
			rt.Fatal(err)
		}
		draw := func(facet eligibility.Facet, name string) *eligibility.Evidence {
			at := now.Add(-time.Duration(rapid.IntRange(0, 72*60).Draw(rt, name+" age")) * time.Minute)
			switch {
			case rapid.IntRange(0, 5).Draw(rt, name+" kind") == 0:
				return nil
			case rapid.IntRange(0, 5).Draw(rt, name+" absent") == 0:
				return &eligibility.Evidence{Facet: facet, Absence: eligibility.AbsenceNotFound, FetchTime: at}
			case facet == eligibility.FacetAccount:
				return accountOf(eligibility.AccountStatus(rapid.Uint8Range(0, 8).Draw(rt, name+" status")), at)
			default:
				return qualificationsOf(at, qualification(eligibility.QualificationEducation, eligibility.VettingStatus(rapid.Uint8Range(0, 4).Draw(rt, name+" vetting"))))
			}
		}
		facet, beside := eligibility.FacetAccount, eligibility.FacetQualifications
		if rapid.Bool().Draw(rt, "of qualifications") {
			facet, beside = beside, facet
		}
		before, after, other := draw(facet, "before"), draw(facet, "after"), draw(beside, "other")
		if after == nil {
			return
		}
		if other != nil {
			store.held[eligibility.Key{CustomerID: customer, Facet: beside}] = other
		}
		segment := rapid.SampledFrom([]eligibility.Segment{eligibility.SegmentCommercial, eligibility.SegmentEducation}).Draw(rt, "segment")
		got := service.Compare(t.Context(), eligibility.Key{CustomerID: customer, Facet: facet}, before, after, segment)
		for evidence, answer := range map[*eligibility.Evidence]*eligibility.Answer{before: got.Before, after: got.After} {
			if answer == nil {
				continue
			}
			if answer.Cause != nil && answer.Reasons[0].Code == eligibility.ReasonUndecidable {
				rt.Fatalf("an answer that is none: %+v", answer)
			}
			if answer.Decision != eligibility.DecisionAllowed {
				continue
			}
			account, qualifications := evidence, other
			if facet == eligibility.FacetQualifications {
				account, qualifications = other, evidence
			}
			permits := account != nil && account.Absence == 0 && (account.Status == eligibility.AccountStatusAllowed || account.Status == eligibility.AccountStatusNone)
			if segment == eligibility.SegmentEducation {
				permits = permits && qualifications != nil && qualifications.Absence == 0 && qualifications.Qualifications[0].VettingStatus == eligibility.VettingApproved
			}
			if !permits {
				rt.Fatalf("allowed by %+v and %+v in segment %d", account, qualifications, segment)
			}
		}
	})
}
