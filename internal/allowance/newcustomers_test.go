package allowance_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
)

// sharedFunc is a Shared made of one function.
type sharedFunc func(ctx context.Context, caller string, perMinute int) (bool, time.Duration, error)

func (f sharedFunc) TakeNewCustomer(ctx context.Context, caller string, perMinute int) (bool, time.Duration, error) {
	return f(ctx, caller, perMinute)
}

func customer(n int) allowance.Customer {
	return allowance.Customer{Partner: "eu", ID: [16]byte{byte(n), byte(n >> 8), byte(n >> 16)}} //nolint:gosec // its low bytes
}

func newCustomersOf(t testing.TB, perMinute int, config allowance.Config) *allowance.NewCustomers {
	t.Helper()
	config.Default = allowance.Limit{NewCustomersPerMinute: perMinute, NewCustomers: allowance.BoundWithoutBatch}
	return newCallers(t, config).Of("checkout").NewCustomers(false)
}

// No window has more new customers than the limit, whatever Shared replies, unless
// the clock is set forward; and none is refused that the limit allows.
func TestNoWindowHasMoreNewCustomers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		perMinute := rapid.IntRange(1, 20).Draw(rt, "limit")
		now := newClock()
		lies := rapid.Bool().Draw(rt, "shared")
		config := allowance.Config{Now: now.Now}
		if lies {
			config.Shared = sharedFunc(func(context.Context, string, int) (bool, time.Duration, error) {
				var err error
				if rapid.Bool().Draw(rt, "fails") {
					err = errors.New("out of reach")
				}
				return rapid.Bool().Draw(rt, "grants"), time.Duration(rapid.Int64Range(-1e9, 1e12).Draw(rt, "wait")), err
			})
		}
		n := newCustomersOf(t, perMinute, config)
		var elapsed time.Duration
		var grants []time.Duration
		for i := range rapid.IntRange(1, 100).Draw(rt, "steps") {
			passes := time.Duration(rapid.OneOf(rapid.Int64Range(0, 1e9), rapid.Int64Range(0, 70e9)).Draw(rt, "passes"))
			elapsed += passes
			now.pass(passes)
			if rapid.IntRange(0, 9).Draw(rt, "set") == 0 {
				now.pass(-time.Duration(rapid.Int64Range(0, 1e13).Draw(rt, "set back by")))
			}
			granted, retryAfter := n.Take(rt.Context(), customer(i))
			within := 0
			for _, at := range grants {
				if elapsed-at < time.Minute {
					within++
				}
			}
			switch {
			case granted && within >= perMinute:
				rt.Fatalf("%d within a minute, the limit is %d", within+1, perMinute)
			case granted:
				grants = append(grants, elapsed)
			case retryAfter <= 0 || retryAfter > allowance.Window:
				rt.Fatalf("refused for %v", retryAfter)
			case !lies && len(grants) < perMinute:
				rt.Fatalf("refused after %d of %d", len(grants), perMinute)
			}
		}
	})
}

func TestACustomerCostsOnceAMinute(t *testing.T) {
	t.Parallel()
	now := newClock()
	n := newCustomersOf(t, 2, allowance.Config{Now: now.Now})
	take := func(i int) bool {
		granted, _ := n.Take(t.Context(), customer(i))
		return granted
	}
	for range 100 {
		if !take(1) {
			t.Fatal("a customer that is paid for was refused")
		}
	}
	if other := customer(1); !take(2) {
		t.Fatal("the second was refused")
	} else if other.Partner = "us"; take(3) {
		t.Fatal("a third was granted")
	} else if granted, _ := n.Take(t.Context(), other); granted {
		t.Fatal("the same ID at another partner cost nothing")
	}
	now.pass(62 * time.Second)
	if !take(3) || !take(4) || take(1) {
		t.Fatal("the charges of the last minute still count, or did not end")
	}
}

// A customer whose fetches fail is paid for again from the sixth fetch on: it must
// not spend the budget of all.
func TestFailingCustomersAreNotFreeForEver(t *testing.T) {
	t.Parallel()
	n := newCustomersOf(t, 3, allowance.Config{Now: newClock().Now})
	fetches := 0
	for range 100 {
		if granted, _ := n.Take(t.Context(), customer(1)); granted {
			fetches++
			n.Failed(customer(1))
		}
	}
	if fetches != 15 {
		t.Errorf("%d fetches for an allowance of 3, want 5 for each", fetches)
	}
}

// What Shared refuses costs nothing here, and is not asked for again before it
// allows.
func TestARefusalOfSharedHolds(t *testing.T) {
	t.Parallel()
	now := newClock()
	asked, refuses := 0, true
	n := newCustomersOf(t, 5, allowance.Config{Now: now.Now, Shared: sharedFunc(func(_ context.Context, caller string, perMinute int) (bool, time.Duration, error) {
		asked++
		if caller != "checkout" || perMinute != 5 {
			t.Errorf("asked for %q, %d", caller, perMinute)
		}
		return !refuses, 10 * time.Second, nil
	})})
	for i := range 1000 {
		if granted, retryAfter := n.Take(t.Context(), customer(i)); granted || retryAfter > 10*time.Second {
			t.Fatalf("granted %v, %v", granted, retryAfter)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	now.pass(10 * time.Second)
	refuses = false
	for i := range 5 {
		if granted, _ := n.Take(t.Context(), customer(i)); !granted {
			t.Errorf("customer %d was refused", i)
		}
	}
	if granted, _ := n.Take(t.Context(), customer(5)); granted {
		t.Error("shared grants more than the limit")
	}
}

// Concurrent checks of one customer share its charge and what Shared replies.
func TestConcurrentChecksOfOneCustomer(t *testing.T) {
	t.Parallel()
	for _, grants := range []bool{true, false} {
		asked := make(chan struct{}, 50) // one for each check, so that none is lost
		replies := make(chan struct{})
		n := newCustomersOf(t, 1, allowance.Config{Shared: sharedFunc(func(context.Context, string, int) (bool, time.Duration, error) {
			asked <- struct{}{}
			<-replies
			return grants, time.Minute, nil
		})})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if granted, _ := n.Take(t.Context(), customer(1)); granted != grants {
					t.Errorf("granted %v, shared replied %v", granted, grants)
				}
			})
		}
		select {
		case <-asked:
		case <-time.After(30 * time.Second):
			t.Error("shared was not asked")
		}
		close(replies)
		all.Wait()
		if more := len(asked); more != 0 {
			t.Errorf("asked %d times more", more)
		}
	}
}

// Concurrent checks of different customers get exactly the limit.
func TestConcurrentNewCustomers(t *testing.T) {
	t.Parallel()
	n := newCustomersOf(t, 60, allowance.Config{Shared: sharedFunc(func(context.Context, string, int) (bool, time.Duration, error) {
		return true, 0, nil
	})})
	var granted atomic.Int32
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 100 {
				if ok, _ := n.Take(t.Context(), customer(worker*1000+i)); ok {
					granted.Add(1)
				}
			}
		})
	}
	all.Wait()
	if granted.Load() != 60 {
		t.Errorf("%d were granted", granted.Load())
	}
}

func TestTheRightToBatchesLiftsTheDefaultOnly(t *testing.T) {
	t.Parallel()
	callers := newCallers(t, allowance.Config{
		Default: allowance.Limit{NewCustomersPerMinute: 60, NewCustomers: allowance.BoundWithoutBatch},
		Callers: map[string]allowance.Limit{"pipeline": {NewCustomersPerMinute: 10, NewCustomers: allowance.BoundAll}},
	})
	if callers.Of("checkout").NewCustomers(false) == nil || callers.Of("checkout").NewCustomers(true) != nil {
		t.Error("the default binds callers with the right to batches, or no others")
	}
	if callers.Of("pipeline").NewCustomers(true) == nil {
		t.Error("the limit of a named caller does not bind it")
	}
}

func TestNoNewCustomers(t *testing.T) {
	t.Parallel()
	if granted, retryAfter := newCustomersOf(t, 0, allowance.Config{}).Take(t.Context(), customer(1)); granted || retryAfter <= 0 {
		t.Errorf("granted %v, again in %v", granted, retryAfter)
	}
}
