package evidence_test

import (
	"context"
	"encoding/binary"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// freshAge returns the fresh age of the customer's evidence that was just fetched.
func freshAge(answer eligibility.Answer) time.Duration {
	return answer.ExpireTime.Sub(answer.EvidenceTime)
}

func TestEarlyRefresh(t *testing.T) {
	t.Parallel()
	account, held := eligibility.FacetAccount, eligibility.FacetQualifications
	for name, test := range map[string]func(t *testing.T, service *evidence.Service, source *narrow, store *memory){
		"used in the last half": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			first := mustCheck(t, service, commercial)
			fresh := freshAge(first)
			time.Sleep(percent(fresh, 51))
			for range 100 {
				mustCheck(t, service, commercial)
			}
			time.Sleep(percent(fresh, 28)) // 79
			if n := source.count(account); n != 1 {
				t.Errorf("%d fetches before the last fifth", n)
			}
			time.Sleep(percent(fresh, 17)) // 96
			if n := source.count(account); n != 2 {
				t.Errorf("%d fetches, want one early refresh", n)
			}
			if lane := source.lanes[eligibility.Key{CustomerID: customer}]; lane != evidence.LaneRefresh {
				t.Errorf("lane %v", lane)
			}
			time.Sleep(percent(fresh, 10))
			answer := mustCheck(t, service, commercial)
			if answer.Stale || answer.Tier != eligibility.TierLocal || !answer.EvidenceTime.After(first.EvidenceTime) {
				t.Errorf("after the fresh age: %+v, want renewed evidence from the local tier", answer)
			}
		},
		"used in the last twentieth": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			first := mustCheck(t, service, commercial)
			time.Sleep(percent(freshAge(first), 96))
			source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding())
			for range 100 {
				if answer := mustCheck(t, service, commercial); answer.Tier != eligibility.TierLocal {
					t.Fatal("a caller waited for the early refresh")
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := source.count(account); n != 2 {
				t.Errorf("%d fetches, want one early refresh", n)
			}
		},
		"not used in the last half": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			fresh := freshAge(mustCheck(t, service, commercial))
			time.Sleep(percent(fresh, 49))
			mustCheck(t, service, commercial)
			time.Sleep(percent(fresh, 52))
			if n := source.count(account); n != 1 {
				t.Errorf("%d fetches, want no early refresh", n)
			}
			if answer := mustCheck(t, service, commercial); answer.Tier != eligibility.TierPartnerCenter {
				t.Errorf("answered from tier %v", answer.Tier)
			}
		},
		"prefetched in the last half": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			fresh := freshAge(mustCheck(t, service, commercial))
			time.Sleep(percent(fresh, 51))
			service.Prefetch(t.Context(), []eligibility.CustomerID{customer}, eligibility.SegmentCommercial)
			time.Sleep(percent(fresh, 45))
			if n := source.count(account); n != 2 {
				t.Errorf("%d fetches, want one early refresh", n)
			}
		},
		"found in the shared tier in the last half": func(t *testing.T, service *evidence.Service, source *narrow, store *memory) {
			fresh := freshAge(mustCheck(t, service, commercial))
			time.Sleep(percent(fresh, 51))
			store.mu.Lock()
			store.shared, store.held, store.mustRevalidate = store.held, map[eligibility.Key]*eligibility.Evidence{}, false
			store.mu.Unlock()
			checkBatch(t.Context(), service, []eligibility.Request{commercial})
			if n := service.RefreshesScheduled(); n != 1 {
				t.Fatalf("%d are scheduled, want one", n)
			}
			time.Sleep(percent(fresh, 45))
			if n := source.count(account); n != 1 {
				t.Errorf("%d fetches, although this process does not hold the evidence", n)
			}
		},
		"a refresh that fails": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			fresh := freshAge(mustCheck(t, service, commercial))
			source.set(failing(eligibility.KindUnavailable), failing(eligibility.KindUnavailable))
			time.Sleep(percent(fresh, 60))
			for range 39 {
				if answer := mustCheck(t, service, commercial); answer.Stale {
					t.Fatal("fresh evidence called stale")
				}
				time.Sleep(percent(fresh, 1))
			}
			if n := source.count(account); n != 2 {
				t.Errorf("%d fetches, want one early refresh", n)
			}
		},
		"newer evidence before it is due": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			fresh := freshAge(mustCheck(t, service, commercial))
			time.Sleep(percent(fresh, 60))
			mustCheck(t, service, commercial)
			now := commercial
			now.MaxAgeSet = true
			mustCheck(t, service, now)
			time.Sleep(percent(fresh, 40))
			if n := source.count(account); n != 2 {
				t.Errorf("%d fetches, want no refresh of what is newer", n)
			}
		},
		"evicted before it is due": func(t *testing.T, service *evidence.Service, source *narrow, store *memory) {
			fresh := freshAge(mustCheck(t, service, commercial))
			time.Sleep(percent(fresh, 60))
			mustCheck(t, service, commercial)
			store.mu.Lock()
			clear(store.held)
			store.mu.Unlock()
			time.Sleep(percent(fresh, 40))
			if n := source.count(account); n != 1 {
				t.Errorf("%d fetches, although nothing is held", n)
			}
		},
		"qualifications, by who needs them": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			mustCheck(t, service, education())
			time.Sleep(9 * time.Minute) // the last half of 13.5 to 16.5 min
			mustCheck(t, service, commercial)
			if n := service.RefreshesScheduled(); n != 1 {
				t.Errorf("%d are scheduled, want the account's", n)
			}
			mustCheck(t, service, education())
			time.Sleep(7 * time.Minute)
			if n := source.count(held); n != 2 {
				t.Errorf("%d fetches, want one early refresh", n)
			}
		},
		"a wrong ID": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			source.set(absent(eligibility.AbsenceNotFound), absent(eligibility.AbsenceNotFound))
			for range 50 {
				_, err := service.Check(t.Context(), commercial)
				wantKind(t, err, eligibility.KindNotFound)
				time.Sleep(time.Second)
			}
			if n := source.count(account); n != 1 {
				t.Errorf("%d fetches, want one", n)
			}
		},
		"many at once": func(t *testing.T, service *evidence.Service, source *narrow, _ *memory) {
			const many = 1000
			ask := func() {
				for _, id := range ids(many) {
					mustCheck(t, service, eligibility.Request{CustomerID: id})
				}
			}
			ask()
			time.Sleep(8 * time.Minute) // in the last half of all
			source.set(status(eligibility.AccountStatusAllowed).after(time.Second), holding())
			ask()
			most := 0
			for range 4 * 60 {
				synctest.Wait()
				most = max(most, service.RefreshesInFlight())
				time.Sleep(time.Second)
			}
			if most > evidence.MaxRefreshes {
				t.Errorf("%d in flight", most)
			}
			if n := source.count(account); n != 2*many {
				t.Errorf("%d fetches, want each of %d customers renewed once", n, many)
			}
		},
		"more than are scheduled": func(t *testing.T, service *evidence.Service, _ *narrow, store *memory) {
			fetched := time.Now()
			time.Sleep(6 * time.Minute)
			for i := range evidence.MaxScheduled + 10 {
				var id eligibility.CustomerID
				binary.BigEndian.PutUint32(id[:], uint32(i))
				for _, facet := range []eligibility.Facet{account, held} {
					store.Put(eligibility.Key{CustomerID: id, Facet: facet}, &eligibility.Evidence{
						Facet: facet, Status: eligibility.AccountStatusAllowed, FetchTime: fetched,
					})
				}
				mustCheck(t, service, eligibility.Request{CustomerID: id})
			}
			if n := service.RefreshesScheduled(); n != evidence.MaxScheduled {
				t.Errorf("%d are scheduled, want %d", n, evidence.MaxScheduled)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				source, store := &narrow{room: math.MaxInt}, newMemory()
				source.set(status(eligibility.AccountStatusAllowed), holding())
				service, stop := serve(t, source, store, evidence.Config{})
				defer stop()
				test(t, service, source, store)
			})
		})
	}
}

// If the machine slept, what has expired costs nothing. If the clock was set back,
// what is fresh is renewed as before.
func TestEarlyRefreshesByAnotherClock(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		back int64 // seconds
		want int   // fetches
	}{
		"set back":          {3600, 100},
		"the machine slept": {-3600, 0},
	} {
		t.Run(name, func(t *testing.T) {
			steppedBubble(t, func(t *testing.T, service *evidence.Service, source *scripted, _ *memory, clock *stepped) {
				source.set(status(eligibility.AccountStatusAllowed), holding())
				for range 2 {
					time.Sleep(6 * time.Minute)
					for _, id := range ids(100) {
						mustCheck(t, service, eligibility.Request{CustomerID: id})
					}
				}
				if n := service.RefreshesScheduled(); n == 0 {
					t.Fatal("nothing is scheduled")
				}
				clock.back.Store(row.back)
				before := source.count(eligibility.FacetAccount)
				time.Sleep(time.Hour)
				if n := source.count(eligibility.FacetAccount); n-before != row.want {
					t.Errorf("%d fetches, want %d", n-before, row.want)
				}
				if n := service.RefreshesScheduled(); n != 0 {
					t.Errorf("%d are still scheduled", n)
				}
			})
		})
	}
}

// replicas are services with stores of their own on one Redis, under one clock
// that the test moves.
type replicas struct {
	t        *testing.T
	clock    atomic.Int64
	calls    atomic.Int64
	stores   []*cache.Store
	services []*evidence.Service
}

func (r *replicas) now() time.Time { return time.Unix(0, r.clock.Load()) }

func (r *replicas) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	if query.Facet == eligibility.FacetAccount {
		r.calls.Add(1)
	}
	return eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, eligibility.Call{Attempts: 1}, nil
}

func (r *replicas) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*replicas) Obstacles(context.Context) []evidence.Obstacle { return nil }

func newReplicas(t *testing.T, server *cachetest.Redis, n int) *replicas {
	t.Helper()
	r := &replicas{t: t}
	r.clock.Store(time.Now().UnixNano()) // Redis confirms nothing that is older than its own start
	for range n {
		store, err := cache.New(cache.Config{Now: r.now, Redis: cache.RedisConfig{
			Addresses: []string{server.Address}, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		service, err := evidence.New(r, store, evidence.Config{Now: r.now})
		if err != nil {
			t.Fatal(err)
		}
		store.Heartbeat(t.Context())
		r.stores, r.services = append(r.stores, store), append(r.services, service)
	}
	return r
}

// ask asks one replica.
func (r *replicas) ask(replica int) eligibility.Answer {
	r.t.Helper()
	r.stores[replica].Heartbeat(r.t.Context())
	answer, err := r.services[replica].Check(r.t.Context(), commercial)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// pass lets time pass in small steps, each of which starts what is due.
func (r *replicas) pass(d time.Duration) {
	r.t.Helper()
	const steps = 200
	for range steps {
		r.clock.Add(int64(d / steps))
		for i, service := range r.services {
			r.stores[i].Heartbeat(r.t.Context())
			service.RefreshDue()
			limit := time.Now().Add(20 * time.Second)
			for service.RefreshesInFlight() > 0 {
				if time.Now().After(limit) {
					r.t.Fatal("an early refresh does not end")
				}
				time.Sleep(time.Millisecond)
			}
		}
	}
}

func TestEarlyRefreshByTheUseOfTheFleet(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		asked []int // replicas, in the last half
		away  bool  // Redis
		calls int64 // by the end of the fresh age
	}{
		"asked on one":              {asked: []int{1}, calls: 2},
		"asked on all":              {asked: []int{0, 1, 2}, calls: 2},
		"not asked":                 {calls: 1},
		"asked on two, Redis gone":  {asked: []int{0, 1}, away: true, calls: 3},
		"asked on none, Redis gone": {away: true, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			r := newReplicas(t, server, 3)
			r.pass(5 * time.Minute) // Redis has started just now, and may have lost what is older
			fresh := freshAge(r.ask(0))
			r.pass(percent(fresh, 30))
			for i := range r.services {
				r.ask(i) // all have it, from the first half
			}
			if n := r.calls.Load(); n != 1 {
				t.Fatalf("%d calls in the first half", n)
			}
			r.pass(percent(fresh, 30)) // 60
			for _, i := range row.asked {
				for range 3 {
					r.ask(i)
				}
			}
			if row.away {
				server.Kill()
			}
			r.pass(percent(fresh, 36)) // 96
			if n := r.calls.Load(); n != row.calls {
				t.Errorf("%d calls, want %d", n, row.calls)
			}
			r.pass(percent(fresh, 10)) // 106
			if len(row.asked) == 0 || row.away {
				return
			}
			for i := range r.services {
				if answer := r.ask(i); answer.Stale || answer.Tier == eligibility.TierPartnerCenter {
					t.Errorf("replica %d: %+v", i, answer)
				}
			}
			if n := r.calls.Load(); n != row.calls {
				t.Errorf("%d calls after the fresh age, want %d", n, row.calls)
			}
		})
	}
}
