package app

import (
	"math"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

func TestConnectionsLeaveDescriptors(t *testing.T) {
	t.Parallel()
	redis := config.Default()
	redis.Cache.Redis.Addresses = []string{"a:1", "b:1", "c:1"}
	few := config.Default()
	few.Server.Limits.Connections = 10
	for name, row := range map[string]struct {
		cfg   *config.Config
		limit uint64
		want  int
		warns int
	}{
		"a small limit":   {config.Default(), 256, 256 - 32 - 66 - 8, 1},
		"Redis":           {redis, 256, 256 - 32 - 66 - 8 - 3*24, 1},
		"a tiny limit":    {redis, 64, 16, 1},
		"none":            {config.Default(), 0, 1, 1},
		"enough":          {few, 256, 256 - 32 - 66 - 8, 0},
		"a common limit":  {config.Default(), 1 << 20, 1<<20 - 32 - 66 - 8, 0},
		"no limit at all": {config.Default(), math.MaxUint64, 0, 0},
	} {
		core, logs := observer.New(zap.WarnLevel)
		if got := connectionsTogether(row.cfg, row.limit, zap.New(core)); got != row.want || logs.Len() != row.warns {
			t.Errorf("%s: %d connections and %d warnings, want %d and %d", name, got, logs.Len(), row.want, row.warns)
		}
	}
}
