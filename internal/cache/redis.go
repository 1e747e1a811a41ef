package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
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

// sharedTier is the tier in Redis.
type sharedTier struct {
	client       redis.UniversalClient
	keepNewer    *redis.Script
	keys         redisKeys
	readTimeout  time.Duration
	writeTimeout time.Duration
	now          func() time.Time
	metrics      *metrics
	faults       *faultLog
}

// keepNewerScript writes a value unless the one there was fetched at the same
// time or later. It compares the big-endian time in the headers as two numbers,
// as Lua's own numbers cannot hold one of 64 bits.
//
// KEYS[1] key, ARGV[1] value, ARGV[2] milliseconds to live.
const keepNewerScript = `
local old = redis.call('GET', KEYS[1])
local new = ARGV[1]
if old and #old > 13 and old:byte(1) == new:byte(1) then
  local oldHigh, oldLow = struct.unpack('>I4I4', old:sub(2, 9))
  local newHigh, newLow = struct.unpack('>I4I4', new:sub(2, 9))
  if oldHigh > newHigh or (oldHigh == newHigh and oldLow >= newLow) then
    return 0
  end
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return 1
`

func newSharedTier(cfg RedisConfig, logger *zap.Logger, metrics *metrics, now func() time.Time) (*sharedTier, error) {
	if cfg.KeyPrefix == "" {
		cfg.KeyPrefix = "eligibility"
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = 50 * time.Millisecond
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 100 * time.Millisecond
	}
	if cfg.PoolSize == 0 {
		cfg.PoolSize = 20
	}
	if cfg.ReadTimeout < 0 || cfg.WriteTimeout < 0 || cfg.PoolSize < 0 || cfg.DB < 0 {
		return nil, errors.New("cache: redis timeouts, pool size and database must not be negative")
	}
	return &sharedTier{
		client:       redis.NewUniversalClient(universalOptions(cfg)),
		keepNewer:    redis.NewScript(keepNewerScript),
		keys:         newRedisKeys(cfg.KeyPrefix, cfg.Namespace),
		readTimeout:  cfg.ReadTimeout,
		writeTimeout: cfg.WriteTimeout,
		now:          now,
		metrics:      metrics,
		faults:       &faultLog{logger: logger, now: now},
	}, nil
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

// load looks up all keys in one round trip. What is absent, unreadable or out
// of reach is nil. Unreadable values are deleted, so that they cannot stand in
// the way of newer ones.
func (r *sharedTier) load(ctx context.Context, keys []eligibility.Key) []*eligibility.Evidence {
	ctx, cancel := context.WithTimeout(ctx, r.readTimeout)
	defer cancel()
	evidence := make([]*eligibility.Evidence, len(keys))
	gets := make([]*redis.StringCmd, len(keys))
	_, err := r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			gets[i] = pipe.Get(ctx, r.keys.of(key))
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		r.fault(ctx, "load", err)
	}
	for i, get := range gets {
		value, err := get.Bytes()
		if err != nil {
			if errors.Is(err, redis.Nil) {
				r.metrics.redisMiss.Inc()
			}
			continue
		}
		if evidence[i], err = decode(keys[i], value); err != nil {
			evidence[i] = nil
			r.metrics.unreadable.Inc()
			r.client.Unlink(ctx, r.keys.of(keys[i]))
			continue
		}
		r.metrics.redisHit.Inc()
	}
	return evidence
}

// share writes evidence unless something newer is there.
func (r *sharedTier) share(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence, usableUntil time.Time) {
	left := usableUntil.Sub(r.now()).Milliseconds()
	if left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.writeTimeout)
	defer cancel()
	if err := r.keepNewer.Run(ctx, r.client, []string{r.keys.of(key)}, encode(key, evidence), left).Err(); err != nil {
		r.fault(ctx, "share", err)
	}
}

// fault counts a failure of Redis, unless it was the caller who left.
func (r *sharedTier) fault(ctx context.Context, op string, err error) {
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return
	}
	r.metrics.redisFaults.WithLabelValues(op).Inc()
	r.faults.warn(op, err)
}

func (r *sharedTier) close() error {
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("cache: close redis client: %w", err)
	}
	return nil
}

// trimUnix turns unix:///path into the path that go-redis takes for a socket.
func trimUnix(address string) string {
	const scheme = "unix://"
	if len(address) > len(scheme) && address[:len(scheme)] == scheme {
		return address[len(scheme):]
	}
	return address
}
