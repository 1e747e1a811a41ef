package logging

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// clock is a zap clock that a test moves.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time                       { return c.now }
func (*clock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

// Each kind of failure has a limit of its own, whatever adds fields to its records.
func TestFailuresAreLimitedByKind(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.InfoLevel)
	at := &clock{time.Unix(1000, 0)}
	root := LimitFailures(zap.New(core, zap.WithClock(at)), 3)
	burst := func() {
		for i := range 100 {
			partner := root.Named("cache").With(zap.Int("i", i))
			partner.Warn("redis away")
			partner.Error("outbox full")
			root.Named("access").Warn("redis away")
			root.Info("plain")
			OwnLimits(root).With(zap.Int("i", i)).Error("rpc handled")
			partner.Debug("off")
		}
	}
	count := func() map[string]int {
		of := make(map[string]int)
		for _, entry := range logs.TakeAll() {
			of[entry.LoggerName+" "+entry.Message]++
			if left, ok := entry.ContextMap()["left_out"]; ok {
				of[entry.LoggerName+" "+entry.Message+" left out"] += int(left.(int64))
			}
		}
		return of
	}
	burst()
	want := map[string]int{"cache redis away": 3, "cache outbox full": 3, "access redis away": 3, " plain": 100, " rpc handled": 100}
	if got := count(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("written %v, want %v", got, want)
	}
	at.now = at.now.Add(time.Second)
	burst()
	for _, kind := range []string{"cache redis away", "cache outbox full", "access redis away"} {
		want[kind+" left out"] = 97
	}
	if got := count(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("written a second later %v, want %v", got, want)
	}
	// A limiter of its own counts alone.
	limited := Limit(root, NewLimiter(50, time.Second))
	for range 100 {
		limited.Warn("redis away")
	}
	if got := count()[" redis away"]; got != 50 {
		t.Errorf("%d written within a limit of 50", got)
	}
}

// Messages without end take neither memory nor the disk.
func TestKindsOfFailureAreBounded(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.InfoLevel)
	root := LimitFailures(zap.New(core, zap.WithClock(&clock{time.Unix(1000, 0)})), 2)
	for i := range 10 * maxKinds {
		root.Warn(fmt.Sprint("hostile ", i))
	}
	if got := logs.Len(); got > maxKinds+2 {
		t.Errorf("%d records written", got)
	}
}
