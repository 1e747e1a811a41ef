package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

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
// as Lua's own numbers cannot hold one of 64 bits. What is there counts only
// where it can be a value of ours and is not from the future.
//
// KEYS[1] key, ARGV[1] value, ARGV[2] milliseconds to live, ARGV[3] the last
// time that is believed, as in a header.
const keepNewerScript = `
local function before(a, b)
  local aHigh, aLow = struct.unpack('>I4I4', a)
  local bHigh, bLow = struct.unpack('>I4I4', b)
  return aHigh < bHigh or (aHigh == bHigh and aLow < bLow)
end
local old = redis.pcall('GET', KEYS[1])
local new = ARGV[1]
if type(old) == 'table' and not string.find(old.err, 'WRONGTYPE', 1, true) then
  return old
end
if type(old) == 'string' and #old >= 13 and old:byte(1) == new:byte(1) then
  local oldTime = old:sub(2, 9)
  if not before(oldTime, new:sub(2, 9)) and not before(ARGV[3], oldTime) then
    return 0
  end
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return 1
`

func newSharedTier(cfg RedisConfig, logger *zap.Logger, metrics *metrics, now func() time.Time) (*sharedTier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &sharedTier{
		client:       newClient(cfg),
		keepNewer:    redis.NewScript(keepNewerScript),
		keys:         newRedisKeys(cfg.KeyPrefix, cfg.Namespace),
		readTimeout:  cfg.ReadTimeout,
		writeTimeout: cfg.WriteTimeout,
		now:          now,
		metrics:      metrics,
		faults:       &faultLog{logger: logger, now: now},
	}, nil
}

// load looks up all keys in one round trip. What is absent, unreadable, from
// the future or out of reach is nil. Unreadable values are deleted; what is
// from the future stays, as another replica's clock may be the right one, and
// is overwritten by the next fetch.
func (r *sharedTier) load(caller context.Context, keys []eligibility.Key) []*eligibility.Evidence {
	ctx, cancel := context.WithTimeout(caller, r.readTimeout)
	defer cancel()
	gets := make([]*redis.StringCmd, len(keys))
	// The error is that of the first command that has one, and absence is an
	// error too: each command is judged by itself.
	_, _ = r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, key := range keys {
			gets[i] = pipe.Get(ctx, r.keys.of(key))
		}
		return nil
	})
	found := make([]*eligibility.Evidence, len(keys))
	var unreadable []eligibility.Key
	var fault error
	for i, get := range gets {
		value, err := get.Bytes()
		if err == nil {
			found[i], err = decode(keys[i], value)
		}
		switch {
		case errors.Is(err, errValue), redis.HasErrorPrefix(err, "WRONGTYPE"):
			r.metrics.unreadable.Inc()
			unreadable = append(unreadable, keys[i])
		case err != nil && !errors.Is(err, redis.Nil):
			fault = err
		case err != nil || fromFuture(found[i], r.now()):
			r.metrics.redisMiss.Inc()
			found[i] = nil
		default:
			r.metrics.redisHit.Inc()
		}
	}
	if fault != nil {
		r.fault(caller, "load", fault)
	} else if len(unreadable) > 0 {
		r.unlink(ctx, caller, unreadable)
	}
	return found
}

// unlink deletes what cannot be read, so that nothing has to try again.
func (r *sharedTier) unlink(ctx, caller context.Context, keys []eligibility.Key) {
	_, err := r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range keys {
			pipe.Unlink(ctx, r.keys.of(key))
		}
		return nil
	})
	if err != nil {
		r.fault(caller, "load", err)
	}
}

// share writes evidence unless something newer is there.
func (r *sharedTier) share(caller context.Context, key eligibility.Key, evidence *eligibility.Evidence, usableUntil time.Time) {
	now := r.now()
	left := usableUntil.Sub(now).Milliseconds()
	if left <= 0 || fromFuture(evidence, now) {
		return
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	believed := appendTime(nil, now.Add(clockTolerance))
	if err := r.keepNewer.Run(ctx, r.client, []string{r.keys.of(key)}, encode(key, evidence), left, believed).Err(); err != nil {
		r.fault(caller, "share", err)
	}
}

// fault counts a failure of Redis, unless it was the caller who left: who comes
// with little time says nothing about Redis.
func (r *sharedTier) fault(caller context.Context, op string, err error) {
	// A socket's deadline may be noticed before the context's own.
	deadline, limited := caller.Deadline()
	if caller.Err() != nil || limited && time.Until(deadline) <= 0 {
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
