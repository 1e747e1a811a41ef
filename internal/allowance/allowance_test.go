package allowance_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
)

func newCallers(t testing.TB, config allowance.Config) *allowance.Callers {
	t.Helper()
	callers, err := allowance.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return callers
}

// A clock that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// No window has more requests than the burst and what the rate adds within it.
func TestNoWindowHasMoreRequestsThanBurstAndRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limit := allowance.Limit{
			RequestsPerSecond: rapid.IntRange(1, 3000).Draw(rt, "rate"), Burst: rapid.IntRange(0, 2000).Draw(rt, "burst"),
		}
		now := newClock()
		caller := newCallers(t, allowance.Config{Default: limit, Now: now.Now}).Of("checkout")
		type grant struct {
			at time.Time
			n  int
		}
		var grants []grant
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			now.pass(time.Duration(rapid.OneOf(rapid.Int64Range(0, 1e6), rapid.Int64Range(0, 3e9)).Draw(rt, "passes")))
			n := rapid.IntRange(1, 1500).Draw(rt, "n")
			// Requests of one moment may come with times a little apart.
			at := now.Now().Add(-time.Duration(rapid.Int64Range(0, 2e7).Draw(rt, "late")))
			granted, retryAfter := caller.Requests(at, n)
			if granted < 0 || granted > n || granted == n && retryAfter != 0 || granted < n && retryAfter <= 0 {
				rt.Fatalf("%d of %d, again in %v", granted, n, retryAfter)
			}
			grants = append(grants, grant{at, granted})
		}
		slices.SortFunc(grants, func(a, b grant) int { return a.at.Compare(b.at) })
		for from := range grants {
			total := 0
			for _, g := range grants[from:] {
				total += g.n
				passed := g.at.Sub(grants[from].at)
				if most := float64(max(limit.Burst, 1)) + passed.Seconds()*float64(limit.RequestsPerSecond); float64(total) > most+1e-6 {
					rt.Fatalf("%d requests within %v, at most %v are allowed", total, passed, most)
				}
			}
		}
	})
}

// After the time that a refusal states, so many requests are granted as it promises.
func TestARefusalStatesWhenToAskAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limit := allowance.Limit{RequestsPerSecond: rapid.IntRange(1, 3000).Draw(rt, "rate"), Burst: rapid.IntRange(1, 2000).Draw(rt, "burst")}
		now := newClock()
		caller := newCallers(t, allowance.Config{Default: limit, Now: now.Now}).Of("checkout")
		for range 20 {
			now.pass(time.Duration(rapid.Int64Range(0, 2e9).Draw(rt, "passes")))
			n := rapid.IntRange(1, 4000).Draw(rt, "n")
			granted, retryAfter := caller.Requests(now.Now(), n)
			if granted == n {
				continue
			}
			now.pass(retryAfter - 1)
			missing := min(n-granted, limit.Burst)
			if early, _ := caller.Requests(now.Now(), missing); early == missing {
				rt.Fatalf("%d were granted before %v", missing, retryAfter)
			} else {
				missing -= early
			}
			now.pass(1)
			if again, _ := caller.Requests(now.Now(), missing); again != missing {
				rt.Fatalf("%d of %d were granted after %v", again, missing, retryAfter)
			}
		}
	})
}

// A clock that is set costs a caller no more than its burst, and grants no more than
// one.
func TestRequestsWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-10 * 365 * 24 * time.Hour, -time.Hour, -10 * time.Second, -time.Second, time.Second, time.Hour} {
		now := newClock()
		caller := newCallers(t, allowance.Config{Default: allowance.Limit{RequestsPerSecond: 10, Burst: 20}, Now: now.Now}).Of("checkout")
		caller.Requests(now.Now(), 20)
		now.pass(by)
		if granted, _ := caller.Requests(now.Now(), 1000); granted > 20 {
			t.Errorf("set by %v: %d at once", by, granted)
		}
		now.pass(8 * time.Second) // the skew and the burst
		if granted, _ := caller.Requests(now.Now(), 20); granted != 20 {
			t.Errorf("set by %v, 8 s later: %d of 20", by, granted)
		}
	}
}

// Concurrent requests get exactly what there is, and no caller gets another's.
func TestConcurrentCallersGetTheirOwn(t *testing.T) {
	t.Parallel()
	callers := newCallers(t, allowance.Config{
		Default: allowance.Limit{RequestsPerSecond: 1, Burst: 100, Concurrent: 7},
		Callers: map[string]allowance.Limit{"large": {RequestsPerSecond: 1, Burst: 3000, Concurrent: 70}},
	})
	now := time.Now()
	var granted, most [3]atomic.Int64
	names := []string{"checkout", "basket", "large"}
	var all sync.WaitGroup
	for i, name := range names {
		for range 8 {
			all.Go(func() {
				for range 500 {
					caller := callers.Of(name)
					if n, _ := caller.Requests(now, 1); n == 1 {
						granted[i].Add(1)
					}
					if caller.Enter() {
						most[i].Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	for i, want := range []struct{ requests, concurrent int64 }{{100, 7}, {100, 7}, {3000, 70}} {
		if granted[i].Load() != want.requests || most[i].Load() != want.concurrent {
			t.Errorf("%s: %d requests, %d in progress, want %+v", names[i], granted[i].Load(), most[i].Load(), want)
		}
	}
	for range 7 {
		callers.Of("checkout").Leave()
	}
	if !callers.Of("checkout").Enter() {
		t.Error("nothing is in progress, and a call is refused")
	}
}

// Hostile names cost bounded memory, and neither the callers of the configuration
// nor those that are known their own state.
func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	now := newClock()
	callers := newCallers(t, allowance.Config{
		Default: allowance.Limit{RequestsPerSecond: 1, Burst: 1, NewCustomersPerMinute: 1, NewCustomers: allowance.BoundWithoutBatch},
		Callers: map[string]allowance.Limit{"named": {RequestsPerSecond: 1, Burst: 1}},
		Now:     now.Now,
	})
	known := callers.Of("known")
	known.Requests(now.Now(), 1)
	var own, shared int
	seen := make(map[*allowance.Caller]bool)
	for i := range 12_000 {
		caller := callers.Of(fmt.Sprint("hostile ", i))
		caller.Requests(now.Now(), 1)
		if seen[caller] {
			shared++
		} else {
			own++
		}
		seen[caller] = true
	}
	if own != 10_000 || shared != 2000 { // with "known" and the shared one
		t.Errorf("%d have a state of their own, %d share one", own, shared)
	}
	if callers.Of("known") != known {
		t.Error("a known caller has lost its state")
	}
	if granted, _ := callers.Of("named").Requests(now.Now(), 1); granted != 1 {
		t.Error("a caller of the configuration is limited by others")
	}
	if callers.Of(strings.Repeat("x", 10_000)) != callers.Of(strings.Repeat("y", 10_000)) {
		t.Error("long names are kept")
	}
	now.pass(2 * time.Second) // all are idle again
	if a, b := callers.Of("new"), callers.Of("newer"); a == b {
		t.Error("idle callers are not dropped")
	}
}

// A caller who is in the middle of something is not dropped.
func TestOnlyUnusedCallersAreDropped(t *testing.T) {
	t.Parallel()
	now := newClock()
	callers := newCallers(t, allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1000, Burst: 1, Concurrent: 1, NewCustomersPerMinute: 1, NewCustomers: allowance.BoundWithoutBatch}, Now: now.Now})
	busy := callers.Of("busy")
	busy.Enter()
	charged := callers.Of("charged")
	charged.NewCustomers(false).Take(t.Context(), allowance.Customer{})
	idle := callers.Of("idle")
	now.pass(2 * time.Second)
	for i := range 10_001 {
		callers.Of(fmt.Sprint("hostile ", i))
	}
	if callers.Of("busy") != busy || callers.Of("charged") != charged {
		t.Error("a caller with a call in progress or a charge was dropped")
	}
	if callers.Of("idle") == idle {
		t.Error("an idle caller was not dropped")
	}
}

func TestZeroLimitsNobody(t *testing.T) {
	t.Parallel()
	caller := newCallers(t, allowance.Config{}).Of("anonymous")
	for range 10_000 {
		if granted, _ := caller.Requests(time.Now(), 1000); granted != 1000 || !caller.Enter() {
			t.Fatal("limited")
		}
	}
	if caller.NewCustomers(false) != nil {
		t.Error("new customers are limited")
	}
}

func BenchmarkCaller(b *testing.B) {
	callers := newCallers(b, allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1_000_000, Burst: 1_000_000, Concurrent: 512, NewCustomersPerMinute: 60, NewCustomers: allowance.BoundWithoutBatch}})
	for i := range 1000 {
		callers.Of(fmt.Sprint("caller ", i))
	}
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			caller := callers.Of("checkout")
			caller.Requests(now, 1)
			if caller.Enter() {
				caller.Leave()
			}
			_ = caller.NewCustomers(false)
		}
	})
}

func TestACallerCostsNoAllocation(t *testing.T) { //nolint:paralleltest // counts allocations
	callers := newCallers(t, allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1, Burst: 10, Concurrent: 512, NewCustomersPerMinute: 60, NewCustomers: allowance.BoundWithoutBatch}})
	callers.Of("checkout")
	name, now := strings.Clone("checkout"), time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		caller := callers.Of(name)
		caller.Requests(now, 1)
		if caller.Enter() {
			caller.Leave()
		}
		_ = caller.NewCustomers(false)
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}
