package evidence_test

import (
	"context"
	"encoding/binary"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// narrow is a scripted source whose budget has room for that many calls.
type narrow struct {
	scripted

	room  int
	lanes map[eligibility.Key]evidence.Lane // of the latest call; guarded by mu
}

func (n *narrow) Room(_ context.Context, lane evidence.Lane) int {
	if lane != evidence.LanePrefetch && lane != evidence.LaneReview {
		panic("room of another lane")
	}
	return n.room
}

func (*narrow) Obstacles(context.Context) []evidence.Obstacle { return nil }

func (n *narrow) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	n.mu.Lock()
	if n.lanes == nil {
		n.lanes = make(map[eligibility.Key]evidence.Lane)
	}
	n.lanes[query.Key] = query.Priority.Lane()
	n.mu.Unlock()
	return n.scripted.Fetch(ctx, query)
}

func ids(n int) []eligibility.CustomerID {
	made := make([]eligibility.CustomerID, n)
	for i := range made {
		binary.BigEndian.PutUint32(made[i][12:], uint32(i)+1)
	}
	return made
}

func wantPrefetched(t *testing.T, what string, got, want evidence.Prefetched) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

func TestPrefetch(t *testing.T) {
	t.Parallel()
	one := []eligibility.CustomerID{customer}
	commercial, education := eligibility.SegmentCommercial, eligibility.SegmentEducation
	for name, test := range map[string]func(t *testing.T, service *evidence.Service, source *narrow){
		"a commercial customer takes one call, and no spare one": func(t *testing.T, service *evidence.Service, source *narrow) {
			wantPrefetched(t, "cold", service.Prefetch(t.Context(), one, commercial), evidence.Prefetched{Fetching: 1})
			time.Sleep(2 * time.Second)
			wantPrefetched(t, "after it", service.Prefetch(t.Context(), one, commercial), evidence.Prefetched{Fresh: 1})
			if accounts, held := source.count(eligibility.FacetAccount), source.count(eligibility.FacetQualifications); accounts != 1 || held != 0 {
				t.Errorf("%d and %d calls, want 1 and 0", accounts, held)
			}
			if lane := source.lanes[eligibility.Key{CustomerID: customer}]; lane != evidence.LanePrefetch {
				t.Errorf("lane %v", lane)
			}
		},
		"another segment takes two": func(t *testing.T, service *evidence.Service, source *narrow) {
			service.Prefetch(t.Context(), one, commercial)
			time.Sleep(2 * time.Second)
			wantPrefetched(t, "half of it there", service.Prefetch(t.Context(), one, education), evidence.Prefetched{Fetching: 1})
			time.Sleep(2 * time.Second)
			wantPrefetched(t, "after it", service.Prefetch(t.Context(), one, education), evidence.Prefetched{Fresh: 1})
			if accounts, held := source.count(eligibility.FacetAccount), source.count(eligibility.FacetQualifications); accounts != 1 || held != 1 {
				t.Errorf("%d and %d calls, want 1 each", accounts, held)
			}
		},
		"the check that follows does not wait": func(t *testing.T, service *evidence.Service, _ *narrow) {
			service.Prefetch(t.Context(), one, education)
			time.Sleep(2 * time.Second)
			if answer := mustCheck(t, service, eligibility.Request{CustomerID: customer, Segment: education}); answer.Tier != eligibility.TierLocal {
				t.Errorf("tier %v", answer.Tier)
			}
		},
		"repeated while the fetch is in flight": func(t *testing.T, service *evidence.Service, source *narrow) {
			source.room = 1
			for range 5 {
				wantPrefetched(t, "joined", service.Prefetch(t.Context(), one, commercial), evidence.Prefetched{Fetching: 1})
			}
			source.room = 2
			twice := []eligibility.CustomerID{customer, customer, ids(1)[0]}
			wantPrefetched(t, "twice in one", service.Prefetch(t.Context(), twice, commercial), evidence.Prefetched{Fetching: 3})
			time.Sleep(2 * time.Second)
			if n := source.count(eligibility.FacetAccount); n != 2 {
				t.Errorf("%d calls, want 2", n)
			}
		},
		"answers that there is no customer are fresh": func(t *testing.T, service *evidence.Service, source *narrow) {
			for _, absence := range []eligibility.Absence{eligibility.AbsenceNotFound, eligibility.AbsenceNotServed} {
				source.set(absent(absence), absent(absence))
				wantPrefetched(t, "cold", service.Prefetch(t.Context(), one, commercial), evidence.Prefetched{Fetching: 1})
				synctest.Wait()
				wantPrefetched(t, "commercial", service.Prefetch(t.Context(), one, commercial), evidence.Prefetched{Fresh: 1})
				wantPrefetched(t, "education", service.Prefetch(t.Context(), one, education), evidence.Prefetched{Fresh: 1})
				time.Sleep(2 * time.Minute)
			}
		},
		"failures are not": func(t *testing.T, service *evidence.Service, source *narrow) {
			source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
			for range 2 {
				wantPrefetched(t, "cold", service.Prefetch(t.Context(), one, education), evidence.Prefetched{Fetching: 1})
				synctest.Wait()
			}
		},
		"a budget with little room": func(t *testing.T, service *evidence.Service, source *narrow) {
			source.room = 5
			wantPrefetched(t, "both facets or none", service.Prefetch(t.Context(), ids(3), education), evidence.Prefetched{Fetching: 2, Refused: 1})
			if n := source.count(eligibility.FacetAccount) + source.count(eligibility.FacetQualifications); n > 4 {
				t.Errorf("%d calls, want 4", n)
			}
		},
		"a budget without room": func(t *testing.T, service *evidence.Service, source *narrow) {
			source.room = -3
			wantPrefetched(t, "cold", service.Prefetch(t.Context(), ids(3), commercial), evidence.Prefetched{Refused: 3})
		},
		"a check joins it": func(t *testing.T, service *evidence.Service, source *narrow) {
			service.Prefetch(t.Context(), one, commercial)
			mustCheck(t, service, eligibility.Request{CustomerID: customer})
			if n := source.count(eligibility.FacetAccount); n != 1 {
				t.Errorf("%d calls, want one", n)
			}
		},
		"a caller who has left": func(t *testing.T, service *evidence.Service, source *narrow) {
			ctx, leave := context.WithCancel(t.Context())
			leave()
			wantPrefetched(t, "cold", service.Prefetch(ctx, one, commercial), evidence.Prefetched{Fetching: 1})
			time.Sleep(2 * time.Second)
			if n := source.count(eligibility.FacetAccount); n != 1 {
				t.Errorf("%d calls, want one", n)
			}
		},
		"nobody": func(t *testing.T, service *evidence.Service, _ *narrow) {
			wantPrefetched(t, "none", service.Prefetch(t.Context(), nil, commercial), evidence.Prefetched{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				source := &narrow{room: 100}
				source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding().after(time.Second))
				service, stop := serve(t, source, newMemory(), evidence.Config{})
				defer stop()
				test(t, service, source)
			})
		})
	}
}

// unsent is a source whose calls wait for the budget until they are released.
type unsent struct {
	narrow

	release chan struct{}
}

func (u *unsent) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	select {
	case <-u.release:
		return u.narrow.Fetch(ctx, query)
	case <-ctx.Done():
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled}
	}
}

// However many callers prefetch, no more fetches wait than the budget has room
// for, and nobody waits for them.
func TestPrefetchesTogetherFitIntoTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const callers, room = 8, 50
		source := &unsent{narrow: narrow{room: room}, release: make(chan struct{})}
		source.set(status(eligibility.AccountStatusAllowed), holding())
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		defer stop()
		began, all := time.Now(), ids(9*1000)
		var mu sync.Mutex
		var sum evidence.Prefetched
		var prefetching sync.WaitGroup
		for i := range callers {
			prefetching.Go(func() {
				got := service.Prefetch(t.Context(), all[i*1000:(i+1)*1000], eligibility.SegmentCommercial)
				mu.Lock()
				defer mu.Unlock()
				sum.Fetching += got.Fetching
				sum.Refused += got.Refused
			})
		}
		prefetching.Wait()
		if time.Since(began) != 0 {
			t.Errorf("callers waited %v for fetches", time.Since(began))
		}
		wantPrefetched(t, "all callers", sum, evidence.Prefetched{Fetching: room, Refused: 8000 - room})
		close(source.release)
		synctest.Wait()
		if n := source.count(eligibility.FacetAccount); n != room {
			t.Errorf("%d calls, want %d", n, room)
		}
		wantPrefetched(t, "once they were sent", service.Prefetch(t.Context(), all[8000:], eligibility.SegmentCommercial),
			evidence.Prefetched{Fetching: room, Refused: 1000 - room})
	})
}

func TestPrefetchDuringTheShutdown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &narrow{room: 100}
		service, stop := serve(t, source, newMemory(), evidence.Config{})
		stop()
		wantPrefetched(t, "after it", service.Prefetch(t.Context(), ids(3), eligibility.SegmentCommercial), evidence.Prefetched{Refused: 3})
		if n := source.count(eligibility.FacetAccount); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}

// prefetchRig is the service over a real client, a simulator and a Redis.
func prefetchRig(t *testing.T, server *cachetest.Redis, perMinute int, script pcsim.Step) (*evidence.Service, *pcsim.Server) {
	t.Helper()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids(1000) {
		if err := sim.SetCustomer(pcsim.Customer{ID: id.String(), Account: []pcsim.Step{script}}); err != nil {
			t.Fatal(err)
		}
	}
	far := httptest.NewServer(sim.Handler())
	t.Cleanup(far.Close)
	t.Cleanup(sim.Close)
	calls, err := budget.New(budget.Config{PerMinute: perMinute})
	if err != nil {
		t.Fatal(err)
	}
	store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
		Addresses: []string{server.Address}, ReadTimeout: readTimeout, WriteTimeout: time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	service, stop := serve(t, sourceOn(t, far.URL, calls), store, evidence.Config{})
	t.Cleanup(stop)
	return service, sim
}

const readTimeout = 200 * time.Millisecond

func TestPrefetchWaitsForRedisOnly(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	service, sim := prefetchRig(t, server, 300, pcsim.Step{Failure: pcsim.FailureHang})
	prefetch := func(what string, most time.Duration) evidence.Prefetched {
		t.Helper()
		began := time.Now()
		got := service.Prefetch(t.Context(), ids(1000), eligibility.SegmentCommercial)
		if took := time.Since(began); took > most {
			t.Errorf("%s: took %v, want at most %v", what, took, most)
		}
		t.Logf("%s: %+v in %v", what, got, time.Since(began))
		if got.Fresh != 0 || got.Fetching+got.Refused != 1000 {
			t.Errorf("%s: %+v", what, got)
		}
		return got
	}
	// Generous for a busy machine; a fetch would take ten seconds.
	first := prefetch("partner center hangs", 5*time.Second)
	// The burst of 30, half of it for the lanes above, and 10 s at 5 a second.
	if first.Fetching < 50 || first.Fetching > 70 {
		t.Errorf("%d fetches, want about 65", first.Fetching)
	}
	server.Stall()
	defer server.Resume()
	prefetch("redis hangs too", readTimeout+5*time.Second)
	if n := sim.Stats().Account; n > 100 {
		t.Errorf("%d calls", n)
	}
}

// A large budget would let a whole prefetch start at once: the leases must not
// exceed what Redis takes within its timeout.
func TestAThousandPrefetchedCustomersCostThatManyCalls(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	service, sim := prefetchRig(t, server, 100_000, pcsim.Step{Status: "Allowed"})
	wantPrefetched(t, "cold", service.Prefetch(t.Context(), ids(1000), eligibility.SegmentCommercial), evidence.Prefetched{Fetching: 256, Refused: 744})
	limit := time.After(time.Minute)
	for got := (evidence.Prefetched{}); got.Fresh != 1000; {
		select {
		case <-limit:
			t.Fatalf("after a minute: %+v", got)
		case <-time.After(10 * time.Millisecond):
			got = service.Prefetch(t.Context(), ids(1000), eligibility.SegmentCommercial)
		}
	}
	// On a busy machine Redis takes its timeout now and then, and what it held is fetched again.
	if n := sim.Stats(); n.Account < 1000 || n.Account > 1500 || n.Qualifications != 0 {
		t.Errorf("%+v, want 1000 calls about accounts", n)
	}
}
