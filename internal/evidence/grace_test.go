package evidence_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// queued is a Source with a queue for the qualifications, as a spent budget makes
// one: their requests are sent after that time.
type queued struct {
	*scripted
	queue time.Duration
}

func (q *queued) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	if query.Facet == eligibility.FacetQualifications {
		select {
		case <-time.After(q.queue):
		case <-ctx.Done():
			return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled}
		}
	}
	return q.scripted.Fetch(ctx, query)
}

func (q *queued) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*queued) Obstacles(context.Context) []evidence.Obstacle { return nil }

// A commercial check waits for qualifications only while they are really being
// fetched, if it waited for its account and has no others to show.
func TestNoGraceForQualificationsThatAreOnlyQueued(t *testing.T) {
	t.Parallel()
	const slow = time.Second
	const old = 20 * time.Minute
	for _, row := range []struct {
		name    string
		queue   time.Duration
		latency time.Duration // of the account
		held    time.Duration // age of the account in the local tier; 0 is none
		usable  time.Duration // age of usable qualifications there; 0 is none
		took    time.Duration
		known   bool
	}{
		{"queued", time.Minute, 100 * time.Millisecond, 0, 0, 100 * time.Millisecond, false},
		{"queued, and the account answers at once", time.Minute, 0, 0, 0, 20 * time.Millisecond, false},
		{"sent at once", 0, 100 * time.Millisecond, 0, 0, 350 * time.Millisecond, false},
		{"sent while the account is fetched", 50 * time.Millisecond, 100 * time.Millisecond, 0, 0, 350 * time.Millisecond, false},
		{"sent, with usable ones at hand", 0, 100 * time.Millisecond, 0, old, 100 * time.Millisecond, true},
		{"sent, with the account from a tier", 0, 100 * time.Millisecond, time.Minute, 0, 0, false},
		{"sent, with the account from a tier and usable ones", 0, 100 * time.Millisecond, time.Minute, old, 0, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := newMemory()
				source := &queued{&scripted{account: status(eligibility.AccountStatusAllowed).after(row.latency), held: holding().after(slow)}, row.queue}
				service, stop := serve(t, source, store, evidence.Config{})
				defer stop()
				if row.held > 0 {
					store.held[accountKey] = elsewhere(eligibility.AccountStatusAllowed, time.Now().Add(-row.held))
				}
				if row.usable > 0 {
					key := eligibility.Key{CustomerID: customer, Facet: eligibility.FacetQualifications}
					store.held[key] = &eligibility.Evidence{Facet: key.Facet, FetchTime: time.Now().Add(-row.usable)}
				}
				began := time.Now()
				answer := mustCheck(t, service, commercial)
				if took := time.Since(began); took != row.took {
					t.Errorf("took %v, want %v", took, row.took)
				}
				if known := answer.Qualifications != nil; known != row.known || answer.Stale || answer.Cause != nil {
					t.Errorf("%+v: want qualifications %t, and neither stale nor a failure", answer, row.known)
				}
				time.Sleep(2 * time.Minute)
			})
		})
	}
}

// permit is a Source with one permit, which the first request takes.
type permit struct {
	mu    sync.Mutex
	left  int
	taken []eligibility.Facet
}

func (p *permit) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	if query.Facet == eligibility.FacetAccount {
		time.Sleep(time.Millisecond) // a queue that the account leaves later
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled}
	}
	p.left--
	p.taken = append(p.taken, query.Facet)
	query.Started()
	return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{}, nil
}

func (p *permit) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*permit) Obstacles(context.Context) []evidence.Obstacle { return nil }

func TestTheLastPermitIsTheAccounts(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(t *testing.T, service *evidence.Service){
		"a check": func(t *testing.T, service *evidence.Service) { mustCheck(t, service, commercial) },
		"a batch": func(t *testing.T, service *evidence.Service) {
			if result := checkBatch(t.Context(), service, []eligibility.Request{commercial}); result[0].err != nil {
				t.Error(result[0].err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				source := &permit{left: 1}
				service, stop := serve(t, source, newMemory(), evidence.Config{})
				defer stop()
				ask(t, service)
			})
		})
	}
}

// Qualifications that a decision needs do not wait for the account's request, nor
// once a caller who needs them has joined.
func TestNeededQualificationsDoNotWaitForTheAccount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held := make(chan evidence.Lane, 2)
		source := fetchFunc(func(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
			if query.Facet == eligibility.FacetQualifications {
				query.Started()
				held <- query.Priority.Lane()
				return eligibility.Evidence{}, eligibility.Call{}, nil
			}
			<-ctx.Done() // queued for ever
			return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled}
		})
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		go func() { _, _ = service.Check(ctx, commercial) }()
		synctest.Wait()
		if len(held) > 0 {
			t.Error("a commercial check's qualifications were sent before the account")
		}
		go func() { _, _ = service.Check(ctx, education()) }()
		synctest.Wait()
		if len(held) != 1 || <-held != evidence.LaneCheckout {
			t.Error("qualifications that are needed were not sent at once, in their level")
		}
		go func() {
			_, _ = service.Check(ctx, eligibility.Request{CustomerID: eligibility.CustomerID{9}, Segment: eligibility.SegmentEducation})
		}()
		synctest.Wait()
		if len(held) != 1 {
			t.Error("qualifications that are needed from the start were not sent")
		}
		<-ctx.Done()
	})
}

// The level is right when the fetch starts, not after: what is in a queue by then
// stays where it is, and what another replica's claim preempts is fetched twice.
func TestAFetchStartsAtTheLevelOfItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type start struct {
			facet eligibility.Facet
			level evidence.Lane
		}
		starts := make(chan start, 10)
		source := fetchFunc(func(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
			starts <- start{query.Facet, query.Priority.Lane()}
			query.Started()
			time.Sleep(time.Second)
			return eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, eligibility.Call{}, nil
		})
		store := newClaims(20)
		service, stop := serve(t, source, store, evidence.Config{})
		defer stop()
		fresh := education()
		fresh.MaxAgeSet = true
		want := func(what string, want evidence.Lane, n int) {
			t.Helper()
			synctest.Wait()
			for range n {
				if got := <-store.levels; got != want {
					t.Errorf("%s: claimed in level %d, want %d", what, got, want)
				}
				if got := <-starts; got.level != want {
					t.Errorf("%s: the %s starts in level %d, want %d", what, got.facet, got.level, want)
				}
			}
		}
		var asking sync.WaitGroup
		asking.Go(func() { checkBatch(t.Context(), service, []eligibility.Request{fresh}) })
		want("a batch", evidence.LaneBatch, 2)
		time.Sleep(100 * time.Millisecond)
		// Both need the next fetch: the batch first, then a caller who waits.
		asking.Go(func() { checkBatch(t.Context(), service, []eligibility.Request{fresh}) })
		synctest.Wait()
		asking.Go(func() { mustCheck(t, service, fresh) })
		time.Sleep(time.Second)
		want("the next fetch", evidence.LaneCheckout, 2)
		asking.Wait()
		asking.Go(func() {
			mustCheck(t, service, eligibility.Request{CustomerID: eligibility.CustomerID{9}, Segment: eligibility.SegmentEducation})
		})
		want("a caller", evidence.LaneCheckout, 2)
		asking.Wait()
	})
}

// The same under concurrency: no claim is made before its level is right.
func TestNoClaimIsMadeAtALowerLevel(t *testing.T) {
	t.Parallel()
	store := newClaims(2000)
	service, stop := serve(t, &scripted{account: status(eligibility.AccountStatusAllowed), held: holding()}, store, evidence.Config{})
	defer stop()
	var callers sync.WaitGroup
	for i := range 1000 {
		callers.Go(func() {
			mustCheck(t, service, eligibility.Request{CustomerID: eligibility.CustomerID{byte(i % 256), byte(i / 256)}, Segment: eligibility.SegmentEducation}) //nolint:gosec // below 1000
		})
	}
	callers.Wait()
	for range 2000 {
		if got := <-store.levels; got != evidence.LaneCheckout {
			t.Fatalf("a claim was made in level %d", got)
		}
	}
}
