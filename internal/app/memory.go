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
	// gcPercent is how much garbage may pile up, in percent of what is alive,
	// before it is collected where the process knows its memory limit. The
	// limit makes the collector work harder in time.
	gcPercent = 800
	// leastLimit is the limit below which nothing is tuned.
	leastLimit = 64 << 20
)

// cgroupLimits are the files in which a container finds its memory limit, of
// version 2 of cgroups and of version 1.
func cgroupLimits() []string {
	return []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
}

// TuneMemory calls tuneMemory with the limits of this process's container.
func TuneMemory(logger *zap.Logger) { tuneMemory(cgroupLimits(), logger) }

// tuneMemory trades memory that the process has for CPU: where a limit is known,
// by GOMEMLIMIT or the first of files that holds one, it collects garbage less
// often, and takes nine tenths of a container's limit for its own. GOGC and
// GOMEMLIMIT in the environment are left as they are.
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

// containerLimit returns the limit in bytes, or 0 where there is none.
func containerLimit(files []string) int64 {
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // the kernel's own
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit >= math.MaxInt64/2 { // "max", and what version 1 says for it
			return 0
		}
		return limit
	}
	return 0
}
