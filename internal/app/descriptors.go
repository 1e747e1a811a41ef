package app

import (
	"math"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/server"
)

// What the process needs descriptors for beside the connections of its callers.
const (
	// fixedDescriptors are for the runtime, standard streams, listeners, files that
	// are reloaded, name resolution, traces, and connections that are being refused.
	fixedDescriptors = 32
	// partnerDescriptors are for the connections to Partner Center and its login
	// host, which multiplex calls, and to a vault.
	partnerDescriptors = 8
	// redisSubscriptions are beside the pool of connections to a server.
	redisSubscriptions = 4
)

// reserved returns how many descriptors the callers' connections must leave.
func reserved(cfg *config.Config) int {
	redis := len(cfg.Cache.Redis.Addresses) * (cfg.Cache.Redis.PoolSize + redisSubscriptions)
	return fixedDescriptors + server.OperatorConnections + len(cfg.Partners)*partnerDescriptors + redis
}

// connectionsTogether returns how many connections gRPC and REST may have open
// together with limit descriptors, and logs a warning if these are fewer than the
// configuration permits. At least a quarter of the limit is for callers.
func connectionsTogether(cfg *config.Config, limit uint64, logger *zap.Logger) int {
	if limit > math.MaxInt32 {
		return 0
	}
	most := max(int(limit)-reserved(cfg), int(limit/4), 1)
	if wanted := 2 * cfg.Server.Limits.Connections; most < wanted {
		logger.Warn("too few file descriptors for the connections that server.limits.connections permits; raise the limit of open files",
			zap.Uint64("limit", limit), zap.Int("connections", most), zap.Int("wanted", wanted), zap.Int("reserved", reserved(cfg)))
	}
	return most
}

// Descriptors returns how many descriptors the process may have open, and how many
// the connections that the configuration permits need.
func Descriptors(cfg *config.Config) (limit, needed uint64) {
	return descriptorLimit(), uint64(reserved(cfg) + 2*cfg.Server.Limits.Connections) //nolint:gosec // both are positive
}
