package cachetest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Compare is how tests compare evidence: by its exported fields.
func Compare() cmp.Options {
	return cmp.Options{cmpopts.IgnoreUnexported(eligibility.Evidence{}), cmpopts.EquateEmpty()}
}

// start is the time of the tests, by the store's clock.
func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC) }

// Run holds a Store to its contract. newStore returns an empty store; now is
// the clock that it must use.
func Run(t *testing.T, newStore func(t *testing.T, now func() time.Time) evidence.Store) {
	t.Helper()
	runClocks(t, newStore)
	clock := start
	usable := start().Add(time.Hour)

	t.Run("an empty store holds nothing", func(t *testing.T) {
		store := newStore(t, clock)
		keys := []eligibility.Key{accountKey(1), qualificationsKey()}
		for i, found := range store.Load(context.Background(), keys) {
			if found.Evidence != nil || store.Peek(keys[i], start()).Evidence != nil {
				t.Errorf("%v: found %+v", keys[i], found)
			}
		}
	})
	t.Run("all that evidence says comes back", func(t *testing.T) {
		store := newStore(t, clock)
		for i, sample := range Samples(start()) {
			key := eligibility.Key{CustomerID: eligibility.CustomerID{byte(i + 1)}, Facet: sample.Facet}
			put(store, key, sample, usable)
			for place, found := range map[string]evidence.Found{
				"Peek": store.Peek(key, start()),
				"Load": store.Load(context.Background(), []eligibility.Key{key})[0],
			} {
				if diff := cmp.Diff(sample, found.Evidence, Compare()); diff != "" {
					t.Errorf("%s of sample %d (-want +got):\n%s", place, i, diff)
				}
			}
		}
	})
	t.Run("facets and customers are kept apart", func(t *testing.T) {
		store := newStore(t, clock)
		put(store, accountKey(1), account(start(), "Allowed"), usable)
		founds := store.Load(context.Background(), []eligibility.Key{qualificationsKey(), accountKey(2), accountKey(1)})
		if founds[0].Evidence != nil || founds[1].Evidence != nil || founds[2].Evidence == nil {
			t.Errorf("found %+v", founds)
		}
	})
	t.Run("newer evidence replaces older", func(t *testing.T) {
		store := newStore(t, clock)
		put(store, accountKey(1), account(start(), "Allowed"), usable)
		put(store, accountKey(1), account(start().Add(1), "NotAllowed"), usable)
		wantNotAllowed(t, store)
	})
	t.Run("older evidence never replaces newer", func(t *testing.T) {
		store := newStore(t, clock)
		put(store, accountKey(1), account(start(), "NotAllowed"), usable)
		put(store, accountKey(1), account(start().Add(-1), "Allowed"), usable)
		wantNotAllowed(t, store)
	})
	runHistory(t, newStore)
	t.Run("not found replaces a status", func(t *testing.T) {
		store := newStore(t, clock)
		put(store, accountKey(1), account(start(), "Allowed"), usable)
		put(store, accountKey(1), &eligibility.Evidence{Absence: eligibility.AbsenceNotFound, FetchTime: start().Add(time.Second)}, usable)
		if found := store.Load(context.Background(), []eligibility.Key{accountKey(1)})[0]; found.Evidence == nil || found.Evidence.Absence != eligibility.AbsenceNotFound {
			t.Errorf("found %+v", found.Evidence)
		}
	})
}

// runHistory tests what a Store keeps of the past.
func runHistory(t *testing.T, newStore func(t *testing.T, now func() time.Time) evidence.Store) {
	t.Helper()
	usable := start().Add(time.Hour)
	at := func(ago time.Duration) time.Time { return start().Add(-ago) }
	t.Run("a customer of whom nothing is known has no history", func(t *testing.T) {
		wantHistory(t, newStore(t, start), 1)
	})
	t.Run("the history has what changed, newest first", func(t *testing.T) {
		store := newStore(t, start)
		held := &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: at(3*time.Second + 1)}
		put(store, accountKey(1), account(at(4*time.Second), "UnderReview"), usable)
		put(store, qualificationsKey(), held, usable)
		put(store, accountKey(1), account(at(3*time.Second), "UnderReview"), usable)
		put(store, accountKey(1), account(at(2*time.Second), "Allowed"), usable)
		put(store, accountKey(2), account(at(time.Second), "NotAllowed"), usable)
		put(store, accountKey(1), account(at(3*time.Second), "NotAllowed"), usable) // late
		wantHistory(t, store, 1,
			evidence.Past{Evidence: account(at(2*time.Second), "Allowed"), PreviousTime: at(3 * time.Second)},
			evidence.Past{Evidence: held},
			evidence.Past{Evidence: account(at(4*time.Second), "UnderReview"), ConfirmedTime: at(3 * time.Second)})
		wantHistory(t, store, 2, evidence.Past{Evidence: account(at(time.Second), "NotAllowed")})
		put(store, accountKey(2), account(at(time.Second/2), "NotAllowed"), usable)
		put(store, accountKey(2), account(at(time.Second/4), "NotAllowed"), usable)
		wantHistory(t, store, 2, evidence.Past{Evidence: account(at(time.Second), "NotAllowed"), ConfirmedTime: at(time.Second / 4)})
	})
	t.Run("all that evidence says is in the history", func(t *testing.T) {
		for i, sample := range Samples(start()) {
			store := newStore(t, start)
			put(store, eligibility.Key{CustomerID: eligibility.CustomerID{byte(i + 50)}, Facet: sample.Facet}, sample, usable)
			wantHistory(t, store, byte(i+50), evidence.Past{Evidence: sample})
		}
	})
	t.Run("the history is bounded for each facet", func(t *testing.T) {
		store := newStore(t, start)
		word := []string{"Allowed", "NotAllowed"}
		put(store, qualificationsKey(), &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: at(time.Hour)}, usable)
		for i := range 60 {
			put(store, accountKey(1), account(at(time.Minute-time.Duration(i)*time.Second), word[i%2]), usable)
		}
		pasts, err := store.History(context.Background(), eligibility.CustomerID{1})
		if err != nil || len(pasts) != 51 || !pasts[0].Evidence.FetchTime.Equal(at(time.Second)) || !pasts[49].Evidence.FetchTime.Equal(at(50*time.Second)) {
			t.Errorf("%d entries, error %v", len(pasts), err)
		}
	})
}

func wantHistory(t *testing.T, store evidence.Store, customer byte, want ...evidence.Past) {
	t.Helper()
	pasts, err := store.History(context.Background(), eligibility.CustomerID{customer})
	if diff := cmp.Diff(want, pasts, Compare()); diff != "" || err != nil {
		t.Errorf("error %v, history of %d (-want +got):\n%s", err, customer, diff)
	}
}

// runClocks tests the behavior of a Store if clocks differ from its own,
// which stands at [start].
func runClocks(t *testing.T, newStore func(t *testing.T, now func() time.Time) evidence.Store) {
	t.Helper()
	clock := start
	usable := start().Add(time.Hour)
	t.Run("evidence from the future is absent and in nobody's way", func(t *testing.T) {
		store := newStore(t, clock)
		put(store, accountKey(1), account(start().Add(time.Second+1), "Allowed"), usable)
		if found := store.Load(context.Background(), []eligibility.Key{accountKey(1)})[0]; found.Evidence != nil || store.Peek(accountKey(1), start()).Evidence != nil {
			t.Errorf("found %+v", found)
		}
		put(store, accountKey(1), account(start(), "NotAllowed"), usable)
		wantNotAllowed(t, store)
	})
	t.Run("a second ahead is no future, as clocks differ", func(t *testing.T) {
		store := newStore(t, clock)
		put(store, accountKey(1), account(start().Add(time.Second), "NotAllowed"), usable)
		put(store, accountKey(1), account(start(), "Allowed"), usable)
		wantNotAllowed(t, store)
	})
}

// Samples are pieces of evidence of every form, fetched at the given time.
func Samples(fetched time.Time) []*eligibility.Evidence {
	return []*eligibility.Evidence{
		account(fetched, "Allowed"),
		account(fetched, "Not Ready"),
		account(fetched, "Suspended"),
		{Status: eligibility.AccountStatusNone, FetchTime: fetched, CorrelationID: "c"},
		{Absence: eligibility.AbsenceNotFound, FetchTime: fetched},
		{Facet: eligibility.FacetQualifications, Absence: eligibility.AbsenceNotServed, FetchTime: fetched},
		{Facet: eligibility.FacetQualifications, FetchTime: fetched},
		{Facet: eligibility.FacetQualifications, FetchTime: fetched, CorrelationID: "c", RequestID: "r", Qualifications: []eligibility.Qualification{
			{
				Type: eligibility.QualificationEducation, TypeText: "Education",
				VettingStatus: eligibility.VettingDenied, VettingStatusText: "Denied", VettingReason: "Not an Education Customer",
				VettingCreatedTime: time.Date(2020, 12, 3, 10, 37, 38, 885000000, time.UTC),
			},
			{Type: eligibility.QualificationStateOwnedEntity, TypeText: "StateOwnedEntity"},
			{TypeText: "Größe", VettingStatus: eligibility.VettingUnrecognized, VettingStatusText: "Expired"},
			{Type: eligibility.QualificationNonprofit, TypeText: "nonprofit", VettingCreatedTime: time.Unix(-1, 5).UTC()},
		}},
	}
}

func account(fetched time.Time, word string) *eligibility.Evidence {
	return &eligibility.Evidence{
		Status: eligibility.ParseAccountStatus(word), StatusText: word,
		FetchTime: fetched, CorrelationID: "7b0c5b1e-7a3f-4f1f-9c59-1c1a8a4ad5a5", RequestID: "2f0c7a34-6b52-4f0e-8a3d-0c9be1f4d7a1",
	}
}

func accountKey(n byte) eligibility.Key {
	return eligibility.Key{CustomerID: eligibility.CustomerID{n}}
}

func qualificationsKey() eligibility.Key {
	return eligibility.Key{CustomerID: eligibility.CustomerID{1}, Facet: eligibility.FacetQualifications}
}

func put(store evidence.Store, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time) {
	store.Put(key, evidence)
	store.Share(context.Background(), key, evidence, keepUntil)
}

func wantNotAllowed(t *testing.T, store evidence.Store) {
	t.Helper()
	const want = "NotAllowed"
	for place, found := range map[string]evidence.Found{
		"Peek": store.Peek(accountKey(1), start()),
		"Load": store.Load(context.Background(), []eligibility.Key{accountKey(1)})[0],
	} {
		if found.Evidence == nil || found.Evidence.StatusText != want {
			t.Errorf("%s: %+v, want %s", place, found.Evidence, want)
		}
	}
}
