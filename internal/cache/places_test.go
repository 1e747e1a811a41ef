package cache

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// lookedUp returns what a tier holds about the accounts of customers, as each of its
// look-ups returns it.
func lookedUp(tier *local, ids ...eligibility.CustomerID) (got [][]*eligibility.Evidence) {
	held := make([]*customer, len(ids))
	tier.lookUp(ids, held)
	one := make([]*customer, len(ids))
	for i, id := range ids {
		one[i] = tier.get(id)
	}
	for _, look := range [][]*customer{held, one} {
		var evidence []*eligibility.Evidence
		for _, c := range look {
			e, _ := c.entry(eligibility.FacetAccount)
			evidence = append(evidence, e.evidence)
		}
		got = append(got, evidence)
	}
	return got
}

// samePlace returns customers who share a place.
func samePlace(tier *local) (a, b eligibility.CustomerID) {
	a[15] = 1
	for i := uint64(2); ; i++ {
		binary.BigEndian.PutUint64(b[8:], i)
		if tier.place(a) == tier.place(b) {
			return a, b
		}
	}
}

// Customers whose IDs differ in few bits, wherever these are, have places of their own.
func TestPlacesOfIDsThatAreNotRandom(t *testing.T) {
	t.Parallel()
	const customers = 10_000
	tier, err := newLocal(customers, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for at := range 13 {
		places := make(map[*atomic.Pointer[customer]]bool)
		for i := range uint32(customers) {
			id := eligibility.CustomerID{6: 0x40, 8: 0x80}
			binary.BigEndian.PutUint32(id[at:], i)
			places[tier.place(id)] = true
		}
		if len(places) < customers/2 {
			t.Errorf("from byte %d: %d places", at, len(places))
		}
	}
}

func TestCustomersWhoShareAPlace(t *testing.T) {
	t.Parallel()
	tier, err := newLocal(10, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a, b := samePlace(tier)
	ofA, ofB := &eligibility.Evidence{FetchTime: fetched}, &eligibility.Evidence{FetchTime: fetched}
	expect := func(wantA, wantB *eligibility.Evidence) {
		t.Helper()
		for range 2 {
			for _, got := range lookedUp(tier, a, b, a) {
				if got[0] != wantA || got[1] != wantB || got[2] != wantA {
					t.Errorf("got %p, want %p, %p, %p", got, wantA, wantB, wantA)
				}
			}
		}
	}
	expect(nil, nil)
	tier.put(keyOf(a, 0), entry{evidence: ofA, confirmed: &fetched}, fetched)
	expect(ofA, nil)
	tier.put(keyOf(b, 0), entry{evidence: ofB, confirmed: &fetched}, fetched)
	expect(ofA, ofB)
	tier.customers.Invalidate(a)
	expect(nil, ofB)
}

// What was evicted or replaced is not found in its place: a block that was announced
// after it would be missed.
func TestAPlaceHasNothingThatIsGone(t *testing.T) {
	t.Parallel()
	tier, err := newLocal(10, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	id := accountKey.CustomerID
	allowed := &eligibility.Evidence{FetchTime: fetched, Status: eligibility.AccountStatusAllowed}
	blocked := &eligibility.Evidence{FetchTime: fetched.Add(time.Second), Status: eligibility.AccountStatusNotAllowed}
	now := fetched.Add(time.Minute)
	for name, end := range map[string]struct {
		do   func()
		want *eligibility.Evidence
	}{
		"replaced": {func() { tier.applyMessage(accountKey, blocked, &now, now, true) }, blocked},
		"dropped": {func() {
			tier.change(id, func(next *customer) bool { next.drop(eligibility.FacetAccount); return true })
		}, nil},
		"evicted": {func() { tier.customers.SetMaximum(0); tier.evicted.Store(0) }, nil},
	} {
		tier.customers.SetMaximum(1000)
		tier.customers.Invalidate(id)
		tier.tombs = newTombstones(time.Minute)
		tier.put(accountKey, entry{evidence: allowed, confirmed: &now}, now)
		before := tier.get(id)
		end.do()
		if tier.place(id).Load() == before {
			t.Errorf("%s: its memory is kept", name)
		}
		tier.place(id).Store(before) // a look-up that began before
		for _, got := range lookedUp(tier, id) {
			if got[0] != end.want {
				t.Errorf("%s: got %p, want %p", name, got[0], end.want)
			}
		}
	}
}

// Once customers are evicted, the table learns of each look-up, so that it keeps those
// that are asked about.
func TestTheTableSeesLookUpsOnceItEvicts(t *testing.T) {
	t.Parallel()
	tier, err := newLocal(10, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	evidence := &eligibility.Evidence{FetchTime: fetched}
	tier.put(accountKey, entry{evidence: evidence, confirmed: &fetched}, fetched)
	tier.evicted.Add(1)
	tier.place(accountKey.CustomerID).Store(&customer{id: accountKey.CustomerID}) // shows who reads it
	for _, got := range lookedUp(tier, accountKey.CustomerID) {
		if got[0] != evidence {
			t.Error("looked up in a place")
		}
	}
	if _, ok := tier.customers.GetEntryQuietly(accountKey.CustomerID); !ok {
		t.Error("not held")
	}
}

// A look-up that begins after a change sees it, whoever else looks up the customer, or one
// who shares the place.
func TestLookUpsRaceWithChanges(t *testing.T) {
	t.Parallel()
	tier, err := newLocal(10, 1<<20, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a, b := samePlace(tier)
	now := fetched.Add(time.Hour)
	var done atomic.Int64 // the newest change to both
	const changes = 2000
	var callers sync.WaitGroup
	for range 3 {
		callers.Go(func() {
			for done.Load() < changes {
				begun := done.Load()
				least := fetched.Add(time.Duration(begun) * time.Millisecond)
				for _, got := range lookedUp(tier, a, b) {
					for _, evidence := range got {
						if begun > 0 && (evidence == nil || evidence.FetchTime.Before(least)) {
							t.Errorf("%+v, want what was fetched at %v", evidence, least)
							return
						}
					}
				}
			}
		})
	}
	for i := int64(1); i <= changes; i++ {
		evidence := &eligibility.Evidence{FetchTime: fetched.Add(time.Duration(i) * time.Millisecond)}
		tier.applyMessage(keyOf(a, 0), evidence, &now, now, true)
		tier.applyMessage(keyOf(b, 0), evidence, &now, now, true)
		done.Store(i)
	}
	callers.Wait()
}
