package app

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

// Not parallel: the collector is the whole process's.
func TestMemoryIsTuned(t *testing.T) {
	limited := memlimit.Limit(512 << 20)
	unlimited := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	const tuned, left = true, false
	for name, row := range map[string]struct {
		environ map[string]string
		group   memlimit.Provider
		percent bool
		limit   int64
	}{
		"a control group's limit": {nil, limited, tuned, (512 << 20) / 10 * 9},
		"no limit":                {nil, unlimited, tuned, math.MaxInt64},
		"no control group":        {nil, func() (uint64, error) { return 0, memlimit.ErrNoCgroup }, tuned, math.MaxInt64},
		"hardly any memory":       {nil, memlimit.Limit(32 << 20), left, math.MaxInt64},
		"GOGC is the operator's":  {map[string]string{"GOGC": "100"}, limited, left, (512 << 20) / 10 * 9},
		"GOMEMLIMIT is, too":      {map[string]string{"GOMEMLIMIT": "1GiB"}, limited, tuned, 1 << 30},
		"GOMEMLIMIT may be off":   {map[string]string{"GOMEMLIMIT": "off"}, limited, tuned, math.MaxInt64},
		"both are the operator's": {map[string]string{"GOMEMLIMIT": "1GiB", "GOGC": "100"}, unlimited, left, 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOGC", "")
			t.Setenv("GOMEMLIMIT", "")
			for variable, value := range row.environ {
				t.Setenv(variable, value)
			}
			// What the runtime makes of GOMEMLIMIT before main.
			set := int64(math.MaxInt64)
			if row.environ["GOMEMLIMIT"] == "1GiB" {
				set = 1 << 30
			}
			ctx, cancel := context.WithCancel(t.Context())
			const untuned = 77 // no result of gcPercent
			limitBefore, percentBefore := debug.SetMemoryLimit(set), debug.SetGCPercent(untuned)
			tuneMemory(ctx, row.group, zap.NewNop())
			cancel()
			limit, percent := debug.SetMemoryLimit(limitBefore), debug.SetGCPercent(percentBefore)
			if limit != row.limit || (percent != untuned) != row.percent {
				t.Errorf("limit %d and GC percent %d, want %d, and tuned: %t", limit, percent, row.limit, row.percent)
			}
		})
	}
}

func TestGarbageIsBounded(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{
		0: 800, 4 << 20: 800, 12 << 20: 800, 24 << 20: 400, 48 << 20: 200, 64 << 20: 150, 96 << 20: 100, 200 << 20: 100, 1 << 40: 100,
	} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d with %d live bytes, want %d", got, live, want)
		}
	}
}

// Not parallel: the collector is the whole process's.
func TestTheCollectorFollowsTheLiveHeap(t *testing.T) {
	const untuned = 77 // no result of gcPercent
	defer debug.SetGCPercent(debug.SetGCPercent(untuned))
	ctx, cancel := context.WithCancel(t.Context())
	tuneCollector(ctx)
	// await collects until GOGC is as is wants it: cleanups run some time after a
	// collection.
	await := func(is func(percent int) bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; {
			runtime.GC()
			got := debug.SetGCPercent(untuned)
			if is(got) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("GC percent %d", got)
			}
		}
	}
	const heldBytes = 32 << 20
	held := make([]byte, heldBytes)
	await(func(percent int) bool { return percent != untuned && percent <= gcPercent(heldBytes) })
	runtime.KeepAlive(held)
	await(func(percent int) bool { return percent > gcPercent(heldBytes) })
	cancel()
	debug.SetGCPercent(untuned)
	tuneCollector(ctx)
	if debug.SetGCPercent(untuned) != untuned {
		t.Error("GOGC was changed after the end")
	}
}
