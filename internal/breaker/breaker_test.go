package breaker_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// clock stands still unless a test moves it.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// start returns a breaker that opens after three failures, for 1 s up to 5 s.
func start() (*breaker.Breaker, *clock) {
	c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	return breaker.New(breaker.Config{
		Failures: 3, First: time.Second, Max: 5 * time.Second, ProbeTimeout: 10 * time.Second, Now: c.Now,
	}), c
}

func admit(t *testing.T, b *breaker.Breaker, probe bool) breaker.Permit {
	t.Helper()
	permit, _, ok := b.Allow()
	if !ok || permit.Probe() != probe {
		t.Fatalf("admitted %t as probe %t, want true and %t", ok, permit.Probe(), probe)
	}
	return permit
}

func reject(t *testing.T, b *breaker.Breaker, want time.Duration) {
	t.Helper()
	if _, retryAfter, ok := b.Allow(); ok || retryAfter != want {
		t.Fatalf("admitted %t, retry after %v, want false and %v", ok, retryAfter, want)
	}
}

func open(t *testing.T, b *breaker.Breaker) {
	t.Helper()
	for range 3 {
		admit(t, b, false).Fail()
	}
	if b.State() != breaker.Open {
		t.Fatalf("state %d after three failures in a row", b.State())
	}
}

func TestOpensAfterFailuresInARowOnly(t *testing.T) {
	t.Parallel()
	b, _ := start()
	for range 10 {
		admit(t, b, false).Fail()
		admit(t, b, false).Fail()
		admit(t, b, false).Cancel()
		admit(t, b, false).Succeed()
	}
	if b.State() != breaker.Closed {
		t.Fatalf("state %d, want closed", b.State())
	}
	open(t, b)
	reject(t, b, time.Second)
}

// The interval is counted from when the probe began: a probe that takes three
// seconds to time out must not make it eight.
func TestIntervalsGrowToTheirBoundAndSuccessResetsThem(t *testing.T) {
	t.Parallel()
	b, c := start()
	for range 2 {
		open(t, b)
		for _, seconds := range []int{1, 2, 4, 5, 5, 5} {
			want := time.Duration(seconds) * time.Second
			reject(t, b, want)
			c.move(want - 1)
			reject(t, b, 1)
			c.move(1)
			if b.State() != breaker.HalfOpen {
				t.Fatalf("state %d when the interval has ended", b.State())
			}
			admit(t, b, true).Fail()
		}
		c.move(5 * time.Second)
		probe := admit(t, b, true)
		c.move(3 * time.Second)
		probe.Fail()
		reject(t, b, 2*time.Second)
		c.move(2 * time.Second)
		admit(t, b, true).Succeed()
		if b.State() != breaker.Closed {
			t.Fatalf("state %d after a probe that succeeded", b.State())
		}
	}
}

func TestOnlyOneProbeAtATime(t *testing.T) {
	t.Parallel()
	b, c := start()
	open(t, b)
	c.move(time.Second)
	var probes atomic.Int32
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, _, ok := b.Allow(); ok {
				probes.Add(1)
			}
		})
	}
	all.Wait()
	if probes.Load() != 1 {
		t.Errorf("%d probes at once", probes.Load())
	}
	reject(t, b, time.Second)
}

func TestAProbeThatReportsNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	b, c := start()
	open(t, b)
	c.move(time.Second)
	vanished := admit(t, b, true)
	c.move(10*time.Second - 1)
	reject(t, b, 1)
	c.move(1)
	second := admit(t, b, true)
	vanished.Cancel()
	vanished.Fail()
	reject(t, b, time.Second)
	second.Succeed()
	admit(t, b, false)
}

func TestACanceledProbeIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	b, c := start()
	open(t, b)
	c.move(time.Second)
	admit(t, b, true).Cancel()
	admit(t, b, true).Fail()
	reject(t, b, 2*time.Second)
}

func TestOperationsFromBeforeTheOpening(t *testing.T) {
	t.Parallel()
	b, c := start()
	failing, succeeding := admit(t, b, false), admit(t, b, false)
	open(t, b)
	c.move(500 * time.Millisecond)
	failing.Fail() // does not extend the interval
	reject(t, b, 500*time.Millisecond)
	succeeding.Succeed()
	admit(t, b, false)
}

func TestForceIsAdmittedWhileOpen(t *testing.T) {
	t.Parallel()
	b, _ := start()
	open(t, b)
	b.Force().Fail()
	reject(t, b, time.Second)
	b.Force().Succeed()
	admit(t, b, false).Fail() // the row begins anew
	admit(t, b, false)
}

func TestAClockSetBackDoesNotKeepItOpen(t *testing.T) {
	t.Parallel()
	b, c := start()
	open(t, b)
	c.move(-time.Hour)
	probe := admit(t, b, true)
	c.move(-time.Hour)
	admit(t, b, true).Fail()
	probe.Fail()
	reject(t, b, 2*time.Second)
}

func TestTheIntervalIsConstantWithoutMax(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(0, 0)}
	b := breaker.New(breaker.Config{First: 500 * time.Millisecond, ProbeTimeout: time.Second, Now: c.Now})
	admit(t, b, false).Fail()
	for range 5 {
		reject(t, b, 500*time.Millisecond)
		c.move(500 * time.Millisecond)
		admit(t, b, true).Fail()
	}
}

func TestAClosedBreakerAllocatesNothing(t *testing.T) {
	b, _ := start()
	if allocs := testing.AllocsPerRun(100, func() {
		permit, _, _ := b.Allow()
		permit.Succeed()
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkClosed(b *testing.B) {
	closed, _ := start()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			permit, _, _ := closed.Allow()
			permit.Succeed()
		}
	})
}
