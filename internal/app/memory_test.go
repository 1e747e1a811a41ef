package app

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

// Not parallel: the collector is the whole process's.
func TestMemoryIsTunedIfALimitIsKnown(t *testing.T) {
	limited := memlimit.Limit(512 << 20)
	unlimited := func() (uint64, error) { return 0, memlimit.ErrNoLimit }
	for name, row := range map[string]struct {
		environ map[string]string
		group   memlimit.Provider
		percent int
		limit   int64
	}{
		"a control group's limit": {nil, limited, gcPercent, (512 << 20) / 10 * 9},
		"no limit":                {nil, unlimited, 100, math.MaxInt64},
		"no control group":        {nil, func() (uint64, error) { return 0, memlimit.ErrNoCgroup }, 100, math.MaxInt64},
		"hardly any memory":       {nil, memlimit.Limit(32 << 20), 100, math.MaxInt64},
		"GOGC is the operator's":  {map[string]string{"GOGC": "100"}, limited, 100, (512 << 20) / 10 * 9},
		"GOMEMLIMIT is, too":      {map[string]string{"GOMEMLIMIT": "1GiB"}, limited, gcPercent, 1 << 30},
		"GOMEMLIMIT may be off":   {map[string]string{"GOMEMLIMIT": "off"}, limited, 100, math.MaxInt64},
		"both are the operator's": {map[string]string{"GOMEMLIMIT": "1GiB", "GOGC": "100"}, unlimited, 100, 1 << 30},
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
			limitBefore, percentBefore := debug.SetMemoryLimit(set), debug.SetGCPercent(100)
			tuneMemory(row.group, zap.NewNop())
			limit, percent := debug.SetMemoryLimit(limitBefore), debug.SetGCPercent(percentBefore)
			if limit != row.limit || percent != row.percent {
				t.Errorf("limit %d and GC percent %d, want %d and %d", limit, percent, row.limit, row.percent)
			}
		})
	}
}
