package cache

import (
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// RedisConfig names the shared tier. Its zero value is none.
type RedisConfig struct {
	// Addresses are host:port or unix:///path. One is a standalone server,
	// several are the seeds of a cluster.
	Addresses []string
	Username  string
	Password  string
	// DB is the database number; standalone only.
	DB int
	// KeyPrefix starts every key; empty means "eligibility".
	KeyPrefix string
	// Namespace tells the evidence of one partner in one cloud from others'.
	Namespace string
	// ReadTimeout bounds a look-up as a whole, connecting included; 0 means 50 ms.
	ReadTimeout time.Duration
	// WriteTimeout bounds a write as a whole; 0 means 100 ms.
	WriteTimeout time.Duration
	// PoolSize bounds the connections to one server; 0 means 20.
	PoolSize int
}

// universalOptions sets every timeout and retry that go-redis has: its own
// defaults would multiply the budgets. A failed command is a miss at once;
// there is nothing to retry for.
func universalOptions(cfg RedisConfig) *redis.UniversalOptions {
	addresses := make([]string, len(cfg.Addresses))
	for i, address := range cfg.Addresses {
		addresses[i] = trimUnix(address)
	}
	// Contexts bound each call; the client's own bounds must not be narrower.
	longest := max(cfg.ReadTimeout, cfg.WriteTimeout)
	return &redis.UniversalOptions{
		Addrs:                 addresses,
		ClientName:            "eligibilityd",
		Username:              cfg.Username,
		Password:              cfg.Password,
		DB:                    cfg.DB,
		MaxRetries:            -1,
		DialTimeout:           time.Second,
		DialerRetries:         1,
		DialerRetryTimeout:    time.Millisecond,
		ReadTimeout:           longest,
		WriteTimeout:          longest,
		ContextTimeoutEnabled: true,
		PoolSize:              cfg.PoolSize,
		PoolTimeout:           longest,
		MinIdleConns:          0, // one would be connected at once, in New
		ConnMaxIdleTime:       5 * time.Minute,
		ConnMaxLifetime:       time.Hour,
		MaxRedirects:          3,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
}

// trimUnix turns unix:///path into the path that go-redis takes for a socket.
func trimUnix(address string) string {
	const scheme = "unix://"
	if len(address) > len(scheme) && address[:len(scheme)] == scheme {
		return address[len(scheme):]
	}
	return address
}
