package health_test

import (
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

func TestSinceChangesWithTheStateOnly(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	now := start
	c := health.New(func() time.Time { return now })
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	for i, step := range []struct {
		report func()
		want   health.Condition
	}{
		{func() {}, health.Condition{State: health.Unknown, Since: at(0)}},
		{c.OK, health.Condition{State: health.OK, Since: at(1)}},
		{c.OK, health.Condition{State: health.OK, Since: at(1)}},
		{func() { c.Degraded("timeout") }, health.Condition{State: health.Degraded, Since: at(3), Kind: "timeout", Time: at(3)}},
		{func() { c.Degraded("connection") }, health.Condition{State: health.Degraded, Since: at(3), Kind: "connection", Time: at(4)}},
		{func() { c.Failed("connection") }, health.Condition{State: health.Failing, Since: at(5), Kind: "connection", Time: at(5)}},
		{func() { c.Failed("connection") }, health.Condition{State: health.Failing, Since: at(5), Kind: "connection", Time: at(6)}},
		{c.OK, health.Condition{State: health.OK, Since: at(7), Kind: "connection", Time: at(6)}},
		{c.Forget, health.Condition{State: health.Unknown, Since: at(8), Kind: "connection", Time: at(6)}},
	} {
		now = at(i)
		step.report()
		if got := c.Read(); got != step.want {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
	}
}

// A flood of errors neither allocates nor moves the time of the last error, not even
// if the clock was set back; a second later it does.
func TestFloodOfErrorsCostsNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	now := time.Now()
	c := health.New(func() time.Time { return now })
	c.Failed("timeout")
	first := c.Read()
	now = now.Add(999 * time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { c.Failed("timeout") }); n != 0 || c.Read() != first {
		t.Errorf("%v allocations; %+v after %+v", n, c.Read(), first)
	}
	for _, step := range []time.Duration{time.Second, -time.Hour} {
		now = now.Add(step)
		c.Failed("timeout")
		if got := c.Read(); !got.Time.Equal(now) || !got.Since.Equal(first.Since) {
			t.Errorf("%v later: %+v", step, got)
		}
	}
	c.OK()
	if n := testing.AllocsPerRun(100, c.OK); n != 0 {
		t.Errorf("OK: %v allocations", n)
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	got := health.Worst(
		health.Condition{State: health.OK, Since: at(1), Kind: "timeout", Time: at(9)},
		health.Condition{State: health.Failing, Since: at(5), Kind: "forbidden", Time: at(6)},
		health.Condition{State: health.Failing, Since: at(4), Kind: "forbidden", Time: at(7)},
		health.Condition{},
	)
	if want := (health.Condition{State: health.Failing, Since: at(4), Kind: "timeout", Time: at(9)}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Conditions that work do so together since the last of them does.
func TestWorstOfConditionsThatWork(t *testing.T) {
	t.Parallel()
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	first, recovered := health.Condition{State: health.OK, Since: at(1)}, health.Condition{State: health.OK, Since: at(5)}
	for _, got := range []health.Condition{health.Worst(first, recovered), health.Worst(recovered, first)} {
		if got != recovered {
			t.Errorf("%+v, want %+v", got, recovered)
		}
	}
}

// Concurrent reports leave a condition that one of them made.
func TestConcurrentReports(t *testing.T) {
	t.Parallel()
	c := health.New(nil)
	var reports sync.WaitGroup
	for range 8 {
		reports.Go(func() {
			for range 1000 {
				c.OK()
				c.Failed("timeout")
			}
		})
	}
	reports.Wait()
	if got := c.Read(); got.State != health.Failing && got.State != health.OK || got.Kind != "timeout" || got.Since.IsZero() {
		t.Errorf("%+v", got)
	}
}
