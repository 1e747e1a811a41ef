package evidence_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

var accountKey = eligibility.Key{CustomerID: customer, Facet: eligibility.FacetAccount}

// elsewhere is evidence that another replica has fetched, by its own clock.
func elsewhere(status eligibility.AccountStatus, at time.Time) *eligibility.Evidence {
	return &eligibility.Evidence{Status: status, FetchTime: at}
}

// The clock of another replica may be a second ahead: its evidence is that much
// older than it seems, and satisfies max_age only if it still does then.
func TestMaxAgeAllowsForTheClocksOfOtherReplicas(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name     string
		dated    time.Duration // by the other clock, before now
		maxAge   time.Duration
		answered bool
	}{
		{"max_age=0s, fetched before the question by a clock that is 0.9 s ahead", -900 * time.Millisecond, 0, false},
		{"max_age=0s, fetched now", 0, 0, false},
		{"within max_age, but not by the tolerance", 4001 * time.Millisecond, 5 * time.Second, false},
		{"within max_age by the tolerance", 4 * time.Second, 5 * time.Second, true},
		{"past max_age", 5001 * time.Millisecond, 5 * time.Second, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for tier := range 2 {
				bubbleOf(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
					source.set(status(eligibility.AccountStatusNotAllowed), holding())
					where := store.held
					if tier == 1 {
						where = store.shared
					}
					where[accountKey] = elsewhere(eligibility.AccountStatusAllowed, time.Now().Add(-row.dated))
					req := commercial
					req.MaxAge, req.MaxAgeSet = row.maxAge, true
					answer := mustCheck(t, service, req)
					if answered := source.count(eligibility.FacetAccount) == 0; answered != row.answered {
						t.Errorf("tier %d: answered without a fetch: %t", tier, answered)
					}
					if allowed := answer.Decision == eligibility.DecisionAllowed; allowed != row.answered {
						t.Errorf("tier %d: decision %d", tier, answer.Decision)
					}
				})
			}
		})
	}
}

// min_evidence_time is compared as it is: a receipt is valid at every replica.
func TestAReceiptIsValidAtEveryReplica(t *testing.T) {
	bubble(t, evidence.Config{}, func(t *testing.T, service *evidence.Service, source *scripted, store *memory) {
		source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
		for _, ahead := range []time.Duration{-time.Minute, 0, 900 * time.Millisecond} {
			shown := time.Now().Add(ahead)
			store.shared[accountKey] = elsewhere(eligibility.AccountStatusAllowed, shown)
			req := commercial
			req.MinEvidenceTime = shown
			if answer := mustCheck(t, service, req); !answer.EvidenceTime.Equal(shown) || answer.Stale {
				t.Errorf("%v ahead: %+v", ahead, answer)
			}
		}
	})
}

// claims is a memory that records the claims, and their levels at that time.
type claims struct {
	*memory
	made   chan evidence.Claim
	levels chan evidence.Lane
}

func newClaims(most int) *claims {
	return &claims{newMemory(), make(chan evidence.Claim, most), make(chan evidence.Lane, most)}
}

func (c *claims) Acquire(_ context.Context, claim evidence.Claim) evidence.Acquisition {
	c.levels <- claim.Priority.Lane()
	c.made <- claim
	return evidence.Acquisition{}
}

func TestClaimsAllowForTheClocksOfOtherReplicas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newClaims(10)
		service, stop := serve(t, &scripted{account: status(eligibility.AccountStatusAllowed)}, store, evidence.Config{})
		defer stop()
		now := time.Now()
		for name, row := range map[string]struct {
			req  eligibility.Request
			want time.Time
		}{
			"no bound":          {eligibility.Request{}, time.Time{}},
			"max_age=0s":        {eligibility.Request{MaxAgeSet: true}, now.Add(time.Second)},
			"max_age=5s":        {eligibility.Request{MaxAgeSet: true, MaxAge: 5 * time.Second}, now.Add(-4 * time.Second)},
			"min_evidence_time": {eligibility.Request{MinEvidenceTime: now.Add(-3 * time.Second)}, now.Add(-3 * time.Second)},
			"the later of both": {eligibility.Request{MaxAgeSet: true, MaxAge: 5 * time.Second, MinEvidenceTime: now.Add(-3 * time.Second)}, now.Add(-3 * time.Second)},
		} {
			copy(row.req.CustomerID[:], name)
			mustCheck(t, service, row.req)
			synctest.Wait()
			for len(store.made) > 0 {
				if claim := <-store.made; claim.CustomerID == row.req.CustomerID && !claim.NotBefore.Equal(row.want) {
					t.Errorf("%s: not before %v, want %v", name, claim.NotBefore, row.want)
				}
			}
		}
	})
}

// flooded is a memory into which another replica's messages come all the time: each
// look finds evidence dated that much ahead of, or behind, the clock.
type flooded struct {
	*memory
	mu     sync.Mutex
	status eligibility.AccountStatus
	ahead  time.Duration
	from   time.Time // no message before
}

func (f *flooded) receive() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); !now.Before(f.from) {
		f.memory.mu.Lock()
		f.held[accountKey] = elsewhere(f.status, now.Add(f.ahead))
		f.memory.mu.Unlock()
	}
}

func (f *flooded) Peek(key eligibility.Key, now time.Time) evidence.Found {
	f.receive()
	return f.memory.Peek(key, now)
}

func (f *flooded) PeekBoth(id eligibility.CustomerID, now time.Time) (account, qualifications evidence.Found) {
	return peekBoth(f, id, now)
}

func (f *flooded) PeekAll(ids []eligibility.CustomerID, now time.Time, founds *[evidence.PeekAtOnce][2]evidence.Found) {
	for i, id := range ids {
		founds[i][0], founds[i][1] = peekBoth(f, id, now)
	}
}

func (f *flooded) Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	f.receive()
	return f.memory.Put(key, evidence)
}

// The evidence that this process has fetched for a caller decides, unless another replica's
// evidence is certainly later, or blocks.
func TestAFetchOfOnesOwnDecidesAgainstOtherClocks(t *testing.T) {
	t.Parallel()
	const allowed, blocked = eligibility.AccountStatusAllowed, eligibility.AccountStatusNotAllowed
	for _, row := range []struct {
		operation eligibility.Operation
		name      string
		own       eligibility.AccountStatus
		other     eligibility.AccountStatus
		dated     time.Duration // relative to the clock when it is received
		latency   time.Duration // of the own fetch
		want      eligibility.Decision
	}{
		{0, "dated 0.9 s ahead again and again", blocked, allowed, 900 * time.Millisecond, 300 * time.Millisecond, eligibility.DecisionBlocked},
		{0, "dated 0.9 s ahead, a slow fetch", blocked, allowed, 900 * time.Millisecond, 5 * time.Second, eligibility.DecisionBlocked},
		{0, "dated 0.9 s ahead, and it blocks", allowed, blocked, 900 * time.Millisecond, 300 * time.Millisecond, eligibility.DecisionBlocked},
		{0, "dated after the start of the fetch, within the tolerance", blocked, allowed, -100 * time.Millisecond, time.Second, eligibility.DecisionBlocked},
		{0, "the same, and it blocks", allowed, blocked, -100 * time.Millisecond, time.Second, eligibility.DecisionBlocked},
		{0, "dated later than any clocks differ", blocked, allowed, -100 * time.Millisecond, 3 * time.Second, eligibility.DecisionAllowed},
		{0, "the same, and it blocks", allowed, blocked, -100 * time.Millisecond, 3 * time.Second, eligibility.DecisionBlocked},
		{0, "dated before the fetch", allowed, blocked, -2 * time.Second, time.Second, eligibility.DecisionAllowed},
		{0, "both allow", allowed, allowed, 900 * time.Millisecond, time.Second, eligibility.DecisionAllowed},
		{eligibility.OperationRenewal, "a renewal under review: dated 0.9 s ahead, and it blocks", eligibility.AccountStatusUnderReview, blocked, 900 * time.Millisecond, 300 * time.Millisecond, eligibility.DecisionBlocked},
		{eligibility.OperationRenewal, "a renewal under review: dated 0.9 s ahead again and again", blocked, eligibility.AccountStatusUnderReview, 900 * time.Millisecond, 300 * time.Millisecond, eligibility.DecisionBlocked},
		{eligibility.OperationRenewal, "a renewal under review: dated later than any clocks differ", blocked, eligibility.AccountStatusUnderReview, -100 * time.Millisecond, 3 * time.Second, eligibility.DecisionAllowed},
		{eligibility.OperationRenewal, "a renewal under review: both allow", eligibility.AccountStatusUnderReview, allowed, 900 * time.Millisecond, time.Second, eligibility.DecisionAllowed},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &flooded{memory: newMemory(), status: row.other, ahead: row.dated}
				source := &scripted{account: status(row.own).after(row.latency), held: holding()}
				service, stop := serve(t, source, store, evidence.Config{Policy: eligibility.Policy{AllowReducing: true}})
				defer stop()
				req := commercial
				req.MaxAgeSet, req.Operation = true, row.operation
				for range 3 {
					if answer := mustCheck(t, service, req); answer.Decision != row.want {
						t.Errorf("decision %d of %+v, want %d", answer.Decision, answer, row.want)
					}
					time.Sleep(100 * time.Millisecond)
				}
			})
		})
	}
}

// A check may wait for one facet longer than clocks differ. A block that another
// replica fetches during that time is later than what this process fetched before, even if
// its date is still to come here.
func TestABlockFetchedElsewhereDuringACheckDecides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := &flooded{
			memory: newMemory(), status: eligibility.AccountStatusNotAllowed,
			ahead: 900 * time.Millisecond, from: time.Now().Add(1500 * time.Millisecond),
		}
		approved := qualification(eligibility.QualificationEducation, eligibility.VettingApproved)
		source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding(approved).after(3 * time.Second)}
		service, stop := serve(t, source, store, evidence.Config{})
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		answer, err := service.Check(ctx, eligibility.Request{CustomerID: customer, Segment: eligibility.SegmentEducation})
		if err != nil || answer.Decision != eligibility.DecisionBlocked {
			t.Errorf("%+v, %v: want the later block", answer, err)
		}
	})
}

// Evidence that another replica fetched during a check is as fresh as the store
// confirms, and its tier is the one that held it.
func TestWhatArrivesDuringACheckKeepsItsConfirmation(t *testing.T) {
	t.Parallel()
	for _, unconfirmed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			store := &flooded{
				memory: newMemory(), status: eligibility.AccountStatusAllowed,
				ahead: -100 * time.Millisecond, from: time.Now().Add(1500 * time.Millisecond),
			}
			store.mustRevalidate = unconfirmed
			approved := qualification(eligibility.QualificationEducation, eligibility.VettingApproved)
			source := &scripted{account: status(eligibility.AccountStatusAllowed), held: holding(approved).after(3 * time.Second)}
			service, stop := serve(t, source, store, evidence.Config{})
			defer stop()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			answer, err := service.Check(ctx, eligibility.Request{CustomerID: customer, Segment: eligibility.SegmentEducation})
			if err != nil || answer.Stale != unconfirmed {
				t.Errorf("stale: %t, %v; want %t", answer.Stale, err, unconfirmed)
			}
			if answer.Account.FetchedHere() || answer.Tier == eligibility.TierRedis {
				t.Errorf("account of tier %d: %+v, want what the store received", answer.Tier, answer.Account)
			}
		})
	}
}

// lostElsewhere is a memory that knows of later evidence which is out of reach.
type lostElsewhere struct{ *memory }

func (lostElsewhere) Put(eligibility.Key, *eligibility.Evidence) *eligibility.Evidence { return nil }

func TestLaterEvidenceOutOfReachSuppressesNoBlock(t *testing.T) {
	t.Parallel()
	for own, kind := range map[eligibility.AccountStatus]eligibility.Kind{
		eligibility.AccountStatusNotAllowed: eligibility.KindInternal, // none
		eligibility.AccountStatusAllowed:    eligibility.KindUnavailable,
	} {
		service, stop := serve(t, &scripted{account: status(own)}, lostElsewhere{newMemory()}, evidence.Config{})
		answer, err := service.Check(t.Context(), commercial)
		stop()
		if kind != eligibility.KindInternal {
			wantKind(t, err, kind)
		} else if err != nil || answer.Decision != eligibility.DecisionBlocked {
			t.Errorf("%+v, %v: want the block that was just fetched", answer, err)
		}
	}
}
