package app

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

const (
	// garbageBytes is how much garbage may accumulate before it is collected. More of
	// it saves little CPU.
	garbageBytes = 96 << 20
	// leastGCPercent and mostGCPercent bound GOGC: the former is Go's default, the
	// latter keeps an idle process small.
	leastGCPercent = 100
	mostGCPercent  = 800
	// leastLimit is the limit below which nothing is tuned.
	leastLimit = 64 << 20
)

// liveBytes is the metric of the memory that survived the last collection.
const liveBytes = "/gc/heap/live:bytes"

// TuneMemory trades memory for CPU until ctx ends: it collects garbage each time
// that some 96 MiB have accumulated, whatever the tiers hold. If the process has a
// memory limit, of its control group, which a container or systemd sets, the
// runtime's limit is nine tenths of it.
func TuneMemory(ctx context.Context, logger *zap.Logger) {
	tuneMemory(ctx, memlimit.FromCgroup, logger)
}

// tuneMemory is TuneMemory with the limit of group. It never overrides GOGC and
// GOMEMLIMIT from the environment.
func tuneMemory(ctx context.Context, group memlimit.Provider, logger *zap.Logger) {
	if os.Getenv("GOMEMLIMIT") == "" {
		if whole, err := group(); err == nil && whole <= math.MaxInt64 { // fails if there is no limit
			if whole < leastLimit {
				return
			}
			debug.SetMemoryLimit(int64(whole / 10 * 9))
		}
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	tuneCollector(ctx)
	logger.Info("garbage is collected by its amount",
		zap.Int64("memory_limit_bytes", debug.SetMemoryLimit(-1)), zap.Int("garbage_bytes", garbageBytes))
}

// tuneCollector sets GOGC for the live heap, now and after each collection until
// ctx ends.
func tuneCollector(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	sample := []metrics.Sample{{Name: liveBytes}}
	metrics.Read(sample)
	debug.SetGCPercent(gcPercent(sample[0].Value.Uint64()))
	// The runtime calls tuneCollector when it has collected cycle: after the next
	// collection.
	cycle := new(*int)
	runtime.AddCleanup(cycle, tuneCollector, ctx)
}

// gcPercent returns the GOGC value by which garbageBytes accumulate beside live bytes.
func gcPercent(live uint64) int {
	return int(min(max(100*garbageBytes/max(live, 1), leastGCPercent), mostGCPercent))
}
