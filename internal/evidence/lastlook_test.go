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

// missing is a Store whose first query of the shared tier finds nothing, as one
// that was skipped or has timed out. The second takes as long as it needs.
type missing struct {
	*memory
	mu      sync.Mutex
	needs   time.Duration // of the second query
	queries [][]eligibility.Key
}

func (m *missing) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	founds := make([]evidence.Found, len(keys))
	for i, key := range keys {
		founds[i] = m.Peek(key, time.Time{})
	}
	return founds
}

func (m *missing) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	m.mu.Lock()
	m.queries = append(m.queries, keys)
	needs := m.needs
	m.mu.Unlock()
	if needs > 0 {
		select {
		case <-time.After(needs):
		case <-ctx.Done():
			return make([]evidence.Found, len(keys))
		}
	}
	return m.memory.Load(ctx, keys)
}

func missingStore(age time.Duration) *missing {
	m := &missing{memory: newMemory()}
	for i := range 250 {
		m.shared[eligibility.Key{CustomerID: eligibility.CustomerID{byte(i)}}] = elsewhere(eligibility.AccountStatusAllowed, time.Now().Add(-age))
	}
	return m
}

// A false miss is not final: before a check fails, it queries the shared tier again
// for as long as its caller has time.
func TestAFalseMissIsNotFinal(t *testing.T) {
	t.Parallel()
	const fresh, stale = time.Minute, 30 * time.Minute
	for _, row := range []struct {
		name     string
		age      time.Duration
		needs    time.Duration
		account  outcome
		deadline time.Duration
		took     time.Duration
		kind     eligibility.Kind // KindInternal is none
	}{
		{"a failure at once", fresh, 0, failing(eligibility.KindUnavailable), 2 * time.Second, 0, 0},
		{"a spent budget", fresh, 0, failing(eligibility.KindThrottled), 2 * time.Second, 0, 0},
		{"refused credentials", stale, 0, failing(eligibility.KindCredentials), 2 * time.Second, 0, 0},
		{"a slow shared tier", fresh, 1900 * time.Millisecond, failing(eligibility.KindThrottled), 2 * time.Second, 1900 * time.Millisecond, 0},
		{"a shared tier that hangs", fresh, time.Hour, failing(eligibility.KindThrottled), time.Second, time.Second, eligibility.KindThrottled},
		{"a shared tier that hangs, and a patient caller", fresh, time.Hour, failing(eligibility.KindThrottled), time.Minute, 2 * time.Second, eligibility.KindThrottled},
		{"Partner Center hangs", fresh, 0, status(eligibility.AccountStatusNotAllowed).after(9 * time.Second), 2 * time.Second, 1750 * time.Millisecond, 0},
		{"Partner Center hangs, stale evidence", stale, 0, status(eligibility.AccountStatusNotAllowed).after(9 * time.Second), 2 * time.Second, 2 * time.Second, 0},
		{"both hang", stale, time.Hour, status(eligibility.AccountStatusNotAllowed).after(9 * time.Second), 2 * time.Second, 2 * time.Second, eligibility.KindDeadlineExceeded},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := missingStore(row.age)
				store.needs = row.needs
				service, stop := serve(t, &scripted{account: row.account, held: holding()}, store, evidence.Config{})
				defer stop()
				ctx, cancel := context.WithTimeout(t.Context(), row.deadline)
				defer cancel()
				began := time.Now()
				answer, err := service.Check(ctx, eligibility.Request{})
				if took := time.Since(began); took != row.took {
					t.Errorf("took %v, want %v", took, row.took)
				}
				if row.kind != eligibility.KindInternal {
					wantKind(t, err, row.kind)
					return
				}
				if err != nil || answer.Decision != eligibility.DecisionAllowed || answer.Tier != eligibility.TierRedis || answer.Stale != (row.age == stale) {
					t.Errorf("%+v, %v: want what the shared tier holds", answer, err)
				}
			})
		})
	}
}

// An answer, a certain block and usable evidence need no second query, nor does a
// caller who has left.
func TestTheSharedTierIsQueriedAgainOnlyForLackOfEvidence(t *testing.T) {
	t.Parallel()
	denied := holding(qualification(eligibility.QualificationEducation, eligibility.VettingDenied))
	for name, row := range map[string]struct {
		account, held outcome
		segment       eligibility.Segment
	}{
		"answered":                         {status(eligibility.AccountStatusAllowed), holding(), eligibility.SegmentCommercial},
		"absent":                           {absent(eligibility.AbsenceNotFound), holding(), eligibility.SegmentEducation},
		"qualifications that nobody needs": {status(eligibility.AccountStatusAllowed), failing(eligibility.KindThrottled), eligibility.SegmentCommercial},
		"a block without qualifications":   {status(eligibility.AccountStatusNotAllowed), failing(eligibility.KindThrottled), eligibility.SegmentEducation},
		"a block without the account":      {failing(eligibility.KindThrottled), denied, eligibility.SegmentEducation},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := &missing{memory: newMemory()}
				service, stop := serve(t, &scripted{account: row.account, held: row.held}, store, evidence.Config{})
				defer stop()
				_, _ = service.Check(t.Context(), eligibility.Request{Segment: row.segment})
				checkBatch(t.Context(), service, []eligibility.Request{{CustomerID: customer, Segment: row.segment}})
				if len(store.queries) > 0 {
					t.Errorf("queried again for %v", store.queries)
				}
			})
		})
	}
}

// A batch queries the shared tier once more, for all that is open.
func TestABatchQueriesTheSharedTierOnceMore(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		account outcome
		needs   time.Duration
	}{
		"a failure at once":    {failing(eligibility.KindThrottled), time.Second},
		"Partner Center hangs": {status(eligibility.AccountStatusNotAllowed).after(9 * time.Second), 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := missingStore(time.Minute)
				store.needs = row.needs
				service, stop := serve(t, &scripted{account: row.account, held: holding()}, store, evidence.Config{})
				defer stop()
				reqs := make([]eligibility.Request, 500)
				for i := range reqs {
					reqs[i].CustomerID[0] = byte(i % 250)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				for i, result := range checkBatch(ctx, service, reqs) {
					if result.err != nil || result.answer.Decision != eligibility.DecisionAllowed || result.answer.Stale {
						t.Fatalf("item %d: %+v, %v", i, result.answer, result.err)
					}
				}
				if ctx.Err() != nil {
					t.Error("the batch took its whole deadline")
				}
				if len(store.queries) != 1 || len(store.queries[0]) != 250 {
					t.Errorf("%d queries, want one for 250 customers", len(store.queries))
				}
			})
		})
	}
}
