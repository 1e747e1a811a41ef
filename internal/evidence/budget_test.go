package evidence_test

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// budgetFleet are two replicas with one Redis, one budget and one simulator.
type budgetFleet struct {
	server   *cachetest.Redis
	sim      *pcsim.Server
	replicas [2]*evidence.Service
	shared   budget.Shared
}

func startBudgetFleet(t *testing.T, perMinute int) *budgetFleet {
	t.Helper()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids(20) {
		if err := sim.SetCustomer(pcsim.Customer{ID: id.String(), Account: []pcsim.Step{{Status: "Allowed"}}}); err != nil {
			t.Fatal(err)
		}
	}
	far := httptest.NewServer(sim.Handler())
	t.Cleanup(far.Close)
	t.Cleanup(sim.Close)
	f := &budgetFleet{server: cachetest.StartRedis(t), sim: sim}
	for i := range f.replicas {
		store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
			Addresses: []string{f.server.Address}, ReadTimeout: time.Second, WriteTimeout: time.Second,
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		f.shared = store.SharedBudget()
		calls, err := budget.New(budget.Config{PerMinute: perMinute, Shared: f.shared})
		if err != nil {
			t.Fatal(err)
		}
		service, stop := serve(t, sourceOn(t, far.URL, calls), store, evidence.Config{})
		t.Cleanup(stop)
		f.replicas[i] = service
	}
	return f
}

// sourceOn returns a source that asks the simulator at url within a budget. It has a
// token.
func sourceOn(t *testing.T, url string, calls *budget.Budget) *pcclient.Source {
	t.Helper()
	file := filepath.Join(t.TempDir(), "refresh-token")
	if err := os.WriteFile(file, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := pcclient.New(pcclient.Config{
		BaseURL: url, Authority: url, TenantID: pcsim.DefaultTenantID, ClientID: pcsim.DefaultClientID,
		ClientSecret: pcsim.DefaultClientSecret, Audience: "https://api.partnercenter.microsoft.com",
		RefreshTokenFile: file, Budget: calls,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	return pcclient.NewSource(client)
}

// spend takes calls from the budget.
func (f *budgetFleet) spend(t *testing.T, perMinute, calls int) {
	t.Helper()
	for range calls {
		if _, err := f.shared.Do(t.Context(), budget.Step{Kind: budget.KindCharge, PerMinute: float64(perMinute), Calls: 1}); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *budgetFleet) check(t *testing.T, replica int, id eligibility.CustomerID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answer, err := f.replicas[replica].Check(ctx, eligibility.Request{CustomerID: id, Segment: eligibility.SegmentCommercial})
	if err != nil || answer.Decision != eligibility.DecisionAllowed {
		t.Fatalf("%+v, %v", answer, err)
	}
}

// A caller who waits for a customer that is prefetched does not wait in the lane of
// the prefetch, whichever replica he asks.
func TestACheckoutMovesAPrefetchUp(t *testing.T) {
	t.Parallel()
	for name, replica := range map[string]int{"the same replica": 0, "another replica": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const perMinute = 100 // a burst of 10, half of it not for prefetches
			f := startBudgetFleet(t, perMinute)
			id := ids(1)[0]
			f.spend(t, perMinute, 9) // the prefetch has to wait for 3.3 s
			began := time.Now()
			if got := f.replicas[0].Prefetch(t.Context(), ids(1), eligibility.SegmentCommercial); got.Fetching != 1 {
				t.Fatalf("%+v", got)
			}
			f.awaitLease(t)
			f.check(t, replica, id)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("took %v, as long as a prefetch", took)
			}
		})
	}
}

// awaitLease waits until a replica has the lease of a fetch.
func (f *budgetFleet) awaitLease(t *testing.T) {
	t.Helper()
	client, late := f.server.Client(), time.After(20*time.Second)
	for len(client.Keys(t.Context(), "*:lease").Val()) == 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatal("no lease")
		}
	}
}

// With the budget spent, the qualifications of commercial checks take no call from
// the accounts of other checks, here or at another replica.
func TestASpentBudgetServesOneCustomerACall(t *testing.T) {
	t.Parallel()
	const perMinute = 200
	f := startBudgetFleet(t, perMinute)
	f.spend(t, perMinute, 20)
	for i, id := range ids(8) {
		f.check(t, i%2, id)
	}
	if stats := f.sim.Stats(); stats.Account != 8 || stats.Qualifications != 0 {
		t.Errorf("%d calls for accounts and %d for qualifications, want 8 and 0", stats.Account, stats.Qualifications)
	}
}
