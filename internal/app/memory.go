package app

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

const (
	// gcPercent is the GOGC value if the process knows its memory limit, which
	// makes the collector run more often before memory runs out.
	gcPercent = 800
	// leastLimit is the limit below which nothing is tuned.
	leastLimit = 64 << 20
)

// TuneMemory trades unused memory for CPU if the process has a memory limit: that
// of its control group, which a container or systemd sets, or GOMEMLIMIT.
func TuneMemory(logger *zap.Logger) { tuneMemory(memlimit.FromCgroup, logger) }

// tuneMemory collects garbage less often if a memory limit is known, from
// GOMEMLIMIT or from group, and sets the runtime's limit to nine tenths of the
// group's. It never overrides GOGC and GOMEMLIMIT from the environment.
func tuneMemory(group memlimit.Provider, logger *zap.Logger) {
	limit := debug.SetMemoryLimit(-1)
	if os.Getenv("GOMEMLIMIT") == "" {
		whole, err := group() // fails if there is no limit
		if err != nil || whole < leastLimit || whole > math.MaxInt64 {
			return
		}
		limit = int64(whole / 10 * 9)
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOGC") != "" || limit == math.MaxInt64 {
		return
	}
	debug.SetGCPercent(gcPercent)
	logger.Info("garbage is collected less often, up to the memory limit",
		zap.Int64("memory_limit_bytes", limit), zap.Int("gc_percent", gcPercent))
}
