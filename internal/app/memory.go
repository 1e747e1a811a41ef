package app

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

const (
	// gcPercent is the GOGC value if the process knows its memory limit, which
	// makes the collector run more often before memory runs out.
	gcPercent = 800
	// leastLimit is the limit below which nothing is tuned.
	leastLimit = 64 << 20
)

// cgroupLimits are the files in which a container finds its memory limit, of
// version 2 of cgroups and of version 1.
func cgroupLimits() []string {
	return []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
}

// TuneMemory trades unused memory for CPU if the process has a memory limit.
func TuneMemory(logger *zap.Logger) { tuneMemory(cgroupLimits(), logger) }

// tuneMemory collects garbage less often if a memory limit is known, from
// GOMEMLIMIT or the first of files that holds one, and sets the runtime's limit
// to nine tenths of a container's. It never overrides GOGC and GOMEMLIMIT from
// the environment.
func tuneMemory(files []string, logger *zap.Logger) {
	limit := debug.SetMemoryLimit(-1)
	if os.Getenv("GOMEMLIMIT") == "" {
		container := containerLimit(files)
		if container < leastLimit {
			return
		}
		limit = container / 10 * 9
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOGC") != "" || limit == math.MaxInt64 {
		return
	}
	debug.SetGCPercent(gcPercent)
	logger.Info("garbage is collected less often, up to the memory limit",
		zap.Int64("memory_limit_bytes", limit), zap.Int("gc_percent", gcPercent))
}

// containerLimit returns the limit in bytes, or 0 if there is none.
func containerLimit(files []string) int64 {
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // the kernel's own
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit >= math.MaxInt64/2 { // "max", and its equivalent in version 1
			return 0
		}
		return limit
	}
	return 0
}
