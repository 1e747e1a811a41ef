package cache

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

func TestClientOptions(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		cfg     RedisConfig
		size    int
		timeout time.Duration
	}{
		"defaults":   {RedisConfig{}, 10, lastResort},
		"long reads": {RedisConfig{ReadTimeout: 3 * time.Second, PoolSize: 7}, 3, 3 * time.Second},
	} {
		row.cfg.Addresses = []string{"127.0.0.1:1"}
		tier, err := newSharedTier(Config{Redis: row.cfg, Now: time.Now, Logger: zap.NewNop()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := tier.reader.(*redis.Client).Options()
		if got.PoolSize != row.size || got.ReadTimeout != row.timeout || got.WriteTimeout != row.timeout || got.PoolTimeout != row.timeout {
			t.Errorf("%s: pool of %d, read %v, write %v, wait %v", name, got.PoolSize, got.ReadTimeout, got.WriteTimeout, got.PoolTimeout)
		}
		if err := tier.close(); err != nil {
			t.Error(err)
		}
	}
}
