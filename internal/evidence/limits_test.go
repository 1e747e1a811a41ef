package evidence_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// bounded returns a context of a caller with so many new customers a minute.
func bounded(t *testing.T, perMinute int) context.Context {
	t.Helper()
	return boundedBy(t, allowance.Config{}, perMinute)
}

func boundedBy(t *testing.T, config allowance.Config, perMinute int) context.Context {
	t.Helper()
	config.Default = allowance.Limit{NewCustomersPerMinute: perMinute, NewCustomers: allowance.BoundWithoutBatch}
	callers, err := allowance.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return context.WithValue(t.Context(), evidence.NewCustomersKey{}, callers.Of("checkout").NewCustomers(false))
}

func limited(err error) bool { return isKind(err, eligibility.KindCallerLimited) }

func denied(err error) bool {
	known, ok := errors.AsType[*eligibility.Error](err)
	return ok && known.Kind == eligibility.KindPermissionDenied && known.Right == "fresh"
}

func isKind(err error, kind eligibility.Kind) bool {
	known, ok := errors.AsType[*eligibility.Error](err)
	return ok && known.Kind == kind
}

func asking(n int) eligibility.Request {
	return eligibility.Request{CustomerID: eligibility.CustomerID{0: byte(n), 1: byte(n >> 8), 15: byte(n)}} //nolint:gosec // its low bytes
}

// A caller that guesses IDs spends its allowance: Partner Center is called for no
// more customers than that, and for those of another caller nevertheless.
func TestGuessedIDsSpendTheAllowance(t *testing.T) {
	t.Parallel()
	source := &scripted{account: absent(eligibility.AbsenceNotFound), held: absent(eligibility.AbsenceNotFound)}
	service, stop := serve(t, source, newMemory(), evidence.Config{})
	defer stop()
	guesser, refused := bounded(t, 10), 0
	for i := range 1000 {
		_, err := service.Check(guesser, asking(i))
		switch {
		case limited(err):
			refused++
			if known, _ := errors.AsType[*eligibility.Error](err); known.RetryAfter <= 0 || known.RetryAfter > allowance.Window {
				t.Fatalf("again in %v", known.RetryAfter)
			}
		case !isKind(err, eligibility.KindNotFound):
			t.Fatal(err)
		}
	}
	if n := source.count(eligibility.FacetAccount); n != 10 || refused != 990 {
		t.Errorf("%d fetches, %d refused", n, refused)
	}
	for i := range 10 { // "not found" is something known
		if _, err := service.Check(guesser, asking(i)); !isKind(err, eligibility.KindNotFound) {
			t.Fatalf("customer %d, asked about again: %v", i, err)
		}
	}
	source.set(status(eligibility.AccountStatusAllowed), holding())
	if _, err := service.Check(bounded(t, 10), asking(2000)); err != nil {
		t.Errorf("another caller: %v", err)
	}
	if _, err := service.Check(t.Context(), asking(2001)); err != nil {
		t.Errorf("a caller without a limit: %v", err)
	}
}

// What any tier holds is not new: of either facet, of any age, and absence.
func TestKnownCustomersCostNothing(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for name, held := range map[string]struct {
		facet    eligibility.Facet
		evidence eligibility.Evidence
		age      time.Duration
		inRedis  bool
	}{
		"stale":                       {evidence: eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, age: 30 * time.Minute},
		"expired":                     {evidence: eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, age: 30 * day},
		"expired in Redis":            {evidence: eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, age: 30 * day, inRedis: true},
		"absence that has expired":    {evidence: eligibility.Evidence{Absence: eligibility.AbsenceNotFound}, age: time.Hour},
		"not served":                  {evidence: eligibility.Evidence{Absence: eligibility.AbsenceNotServed}, age: time.Hour, inRedis: true},
		"qualifications":              {facet: eligibility.FacetQualifications, age: time.Minute},
		"expired qualifications":      {facet: eligibility.FacetQualifications, age: 30 * day},
		"qualifications in Redis":     {facet: eligibility.FacetQualifications, age: time.Minute, inRedis: true},
		"expired in Redis, no status": {evidence: eligibility.Evidence{Status: eligibility.AccountStatusNone}, age: 30 * day, inRedis: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newMemory()
			held.evidence.Facet = held.facet
			held.evidence.SetFetchTime(time.Now().Add(-held.age))
			into := store.held
			if held.inRedis {
				into = store.shared
			}
			into[eligibility.Key{CustomerID: customer, Facet: held.facet}] = &held.evidence
			source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
			service, stop := serve(t, source, store, evidence.Config{})
			defer stop()
			if _, err := service.Check(bounded(t, 0), eligibility.Request{CustomerID: customer}); err != nil {
				t.Error(err)
			}
			if n := source.count(eligibility.FacetAccount); n != 1 {
				t.Errorf("%d fetches", n)
			}
		})
	}
}

// Concurrent checks of one new customer cost one, of their caller or of another, both
// facets together, whatever the segment.
func TestAFetchInFlightCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent, goOn := make(chan struct{}, 10), make(chan struct{})
		source := fetchFunc(func(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
			query.Started()
			sent <- struct{}{}
			<-goOn
			if query.Facet == eligibility.FacetQualifications {
				return eligibility.Evidence{}, eligibility.Call{Attempts: 1}, nil
			}
			return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{Attempts: 1}, nil
		})
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		defer stop()
		one, none := bounded(t, 1), bounded(t, 0)
		var all sync.WaitGroup
		check := func(ctx context.Context, segment eligibility.Segment) {
			all.Go(func() {
				if _, err := service.Check(ctx, eligibility.Request{CustomerID: customer, Segment: segment}); err != nil {
					t.Error(err)
				}
			})
		}
		for range 20 { // they may all come before the fetch
			check(one, eligibility.SegmentEducation)
		}
		<-sent
		<-sent
		for range 20 {
			check(one, eligibility.SegmentCommercial)
			check(none, eligibility.SegmentCommercial)
		}
		if _, err := service.Check(one, asking(7)); !limited(err) {
			t.Errorf("another customer: %v", err)
		}
		synctest.Wait() // all wait for the fetches
		close(goOn)
		all.Wait()
	})
}

// Retries of a customer whose fetch failed cost nothing, unless calls to Partner
// Center keep failing for it.
func TestRetriesInAnOutage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ attempts, fetches int }{
		"Partner Center is not called": {attempts: 0},
		"it is called and fails":       {attempts: 1, fetches: 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fetches := 0 // the account's; one at a time
			var fails sync.Mutex
			away := true
			source := fetchFunc(func(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
				fails.Lock()
				defer fails.Unlock()
				if query.Facet == eligibility.FacetAccount {
					fetches++
				}
				if away {
					return eligibility.Evidence{}, eligibility.Call{Attempts: test.attempts}, &eligibility.Error{Kind: eligibility.KindUnavailable}
				}
				return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{Attempts: 1}, nil
			})
			service, stop := serve(t, source, newMemory(), evidence.Config{})
			defer stop()
			caller := bounded(t, 1)
			refused := false
			for range 50 { // some may share a fetch that has just failed
				_, err := service.Check(caller, eligibility.Request{CustomerID: customer})
				if refused = limited(err); !refused && !isKind(err, eligibility.KindUnavailable) {
					t.Fatal(err)
				}
			}
			fails.Lock()
			away = false
			if test.fetches > 0 && fetches != test.fetches || refused != (test.fetches > 0) {
				t.Errorf("%d fetches, want %d; refused %v", fetches, test.fetches, refused)
			}
			fails.Unlock()
			for !refused {
				_, err := service.Check(caller, eligibility.Request{CustomerID: customer})
				if err == nil {
					break
				}
				if !isKind(err, eligibility.KindUnavailable) {
					t.Fatalf("after the outage: %v", err)
				}
			}
		})
	}
}

// unreadable is a store whose shared tier replies to the last query only.
type unreadable struct {
	*memory
	queried bool // LoadWithin was called
}

func (u *unreadable) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	founds := make([]evidence.Found, len(keys))
	for i, key := range keys {
		founds[i] = u.Peek(key, time.Time{})
		founds[i].Unread = true
	}
	return founds
}

func (u *unreadable) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	u.queried = true
	return u.memory.Load(ctx, keys)
}

// If Redis could not be read, a customer counts as new, and one that Redis holds is
// answered nevertheless.
func TestUnreadEvidenceAnswersACallerWithoutAllowance(t *testing.T) {
	t.Parallel()
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
	store := &unreadable{memory: newMemory()}
	known := &eligibility.Evidence{Status: eligibility.AccountStatusAllowed}
	known.SetFetchTime(time.Now().Add(-time.Minute))
	store.shared[eligibility.Key{CustomerID: customer}] = known
	service, stop := serve(t, source, store, evidence.Config{})
	defer stop()
	caller := bounded(t, 1)
	if _, err := service.Check(caller, asking(1)); err != nil {
		t.Errorf("within the allowance: %v", err)
	}
	if _, err := service.Check(caller, asking(2)); !limited(err) {
		t.Errorf("beyond the allowance: %v", err)
	}
	if answer, err := service.Check(caller, eligibility.Request{CustomerID: customer}); err != nil || answer.Tier != eligibility.TierRedis {
		t.Errorf("a customer that Redis holds: %+v, %v", answer, err)
	}
	if n := source.count(eligibility.FacetAccount); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// A definite miss is not queried again: refused guesses cost one read.
func TestARefusedGuessIsReadOnce(t *testing.T) {
	t.Parallel()
	store := newMemory()
	service, stop := serve(t, &scripted{}, store, evidence.Config{})
	defer stop()
	caller := bounded(t, 0)
	for i := range 10 {
		if _, err := service.Check(caller, asking(i)); !limited(err) {
			t.Fatal(err)
		}
	}
	if store.loads != 10 {
		t.Errorf("%d reads for 10 guesses", store.loads)
	}
}

// A caller without time is counted by Shared nevertheless.
func TestACallerWithoutTimeDoesNotEscapeTheCountOfAll(t *testing.T) {
	t.Parallel()
	source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
	service, stop := serve(t, source, newMemory(), evidence.Config{})
	defer stop()
	counted := 0
	ctx := boundedBy(t, allowance.Config{Shared: takes(func(ctx context.Context) bool {
		counted++
		return ctx.Err() == nil
	})}, 10)
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(-time.Second))
	defer cancel()
	for i := range 5 {
		_, err := service.Check(ctx, asking(i))
		if err != nil && !isKind(err, eligibility.KindDeadlineExceeded) { // the answer may be there before anybody waits
			t.Fatal(err)
		}
	}
	if counted != 5 {
		t.Errorf("counted %d", counted)
	}
}

// takes is an allowance.Shared.
type takes func(ctx context.Context) bool

func (f takes) TakeNewCustomer(ctx context.Context, _ string, _ int) (granted bool, wait time.Duration, err error) {
	return f(ctx), time.Second, nil
}

// An answer of the policy never stands in for a refusal.
func TestRefusalsAreNotUndecidable(t *testing.T) {
	t.Parallel()
	service, stop := serve(t, &scripted{}, newMemory(), evidence.Config{Policy: eligibility.Policy{BlockUndecidable: true}})
	defer stop()
	if answer, err := service.Check(bounded(t, 0), asking(1)); !limited(err) {
		t.Errorf("%+v, %v", answer, err)
	}
}

// Without the right fresh, min_evidence_time forces no fetch while young evidence is
// held; with it, or if none is held, it does.
func TestMinEvidenceTimeWithoutTheRightFresh(t *testing.T) {
	t.Parallel()
	const account, qualifications = eligibility.FacetAccount, eligibility.FacetQualifications
	second := time.Second
	for name, test := range map[string]struct {
		segment             eligibility.Segment
		account             eligibility.Evidence
		accountAge, heldAge time.Duration // 0: nothing is held
		inRedis             bool
		mustRevalidate      bool
		hasRight            bool
		minimum             time.Duration // before now; 0: now
		denied              bool
		fetched             [2]int // of the account, of the qualifications
	}{
		"young":                      {accountAge: 10 * second, heldAge: 10 * second, denied: true},
		"young in Redis":             {accountAge: 10 * second, heldAge: 10 * second, inRedis: true, denied: true},
		"with the right":             {accountAge: 10 * second, heldAge: 10 * second, hasRight: true, fetched: [2]int{1, 1}},
		"older":                      {accountAge: 40 * second, heldAge: 40 * second, fetched: [2]int{1, 1}},
		"recent enough":              {accountAge: 10 * second, heldAge: 10 * second, minimum: 20 * second},
		"nothing":                    {fetched: [2]int{1, 1}},
		"absent":                     {account: eligibility.Evidence{Absence: eligibility.AbsenceNotFound}, accountAge: 10 * second, denied: true},
		"to be revalidated":          {accountAge: 10 * second, heldAge: 40 * second, mustRevalidate: true, fetched: [2]int{1, 1}},
		"qualifications, not needed": {accountAge: 40 * second, heldAge: 10 * second, fetched: [2]int{1, 0}},
		"qualifications, needed":     {segment: eligibility.SegmentEducation, accountAge: 40 * second, heldAge: 10 * second, denied: true, fetched: [2]int{1, 0}},
		"qualifications of a block": {
			segment: eligibility.SegmentEducation, account: eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed},
			accountAge: 5 * second, heldAge: 10 * second, minimum: 7 * second,
		},
		"the account, young": {segment: eligibility.SegmentEducation, accountAge: 10 * second, heldAge: 40 * second, denied: true},
	} {
		for _, batch := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", batch ", batch), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					store := newMemory()
					into := store.held
					if test.inRedis {
						into = store.shared
					}
					store.mustRevalidate = test.mustRevalidate
					now, known := time.Now(), test.account
					if known.Status == eligibility.AccountStatusUnspecified && known.Absence == eligibility.AbsenceNone {
						known.Status = eligibility.AccountStatusAllowed
					}
					if test.accountAge > 0 {
						known.SetFetchTime(now.Add(-test.accountAge))
						into[eligibility.Key{CustomerID: customer, Facet: account}] = &known
					}
					if test.heldAge > 0 {
						held := &eligibility.Evidence{Facet: qualifications, Qualifications: holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved)).evidence.Qualifications}
						held.SetFetchTime(now.Add(-test.heldAge))
						into[eligibility.Key{CustomerID: customer, Facet: qualifications}] = held
					}
					source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}
					service, stop := serve(t, source, store, evidence.Config{})
					defer stop()
					req := eligibility.Request{CustomerID: customer, Segment: test.segment, MinEvidenceTime: now.Add(-test.minimum), LacksFresh: !test.hasRight}
					var err error
					if batch {
						err = checkBatch(t.Context(), service, []eligibility.Request{req})[0].err
					} else {
						_, err = service.Check(t.Context(), req)
					}
					if denied(err) != test.denied || !test.denied && err != nil {
						t.Errorf("denied %v, want %v: %v", denied(err), test.denied, err)
					}
					synctest.Wait()
					if got := [2]int{source.count(account), source.count(qualifications)}; got != test.fetched {
						t.Errorf("fetched %v, want %v", got, test.fetched)
					}
				})
			})
		}
	}
}
