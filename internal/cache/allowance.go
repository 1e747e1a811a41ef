package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/breaker"
)

// newCustomersScript takes one of the new customers of a caller, of which there are
// so many within any window. The hash is a ring of the times, in microseconds, at
// which the last ones were taken, by their places in it; next is the place of the
// oldest. Only a time that can be true counts: the hash may hold anything. If the
// clock is set back, times in the future do not count.
//
// KEYS ring; ARGV now, how many, the window. It returns {1 if taken, time until one
// can be taken}.
const newCustomersScript = `
local size, window, skew = tonumber(ARGV[2]), tonumber(ARGV[3]), 5000000
local function bounded(text, high)
  local n = tonumber(text)
  if n and n >= 0 and n <= high then return math.floor(n) end
  return nil
end
local held = redis.pcall('HMGET', KEYS[1], 'next')
if held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return redis.call('HMGET', KEYS[1], 'next') end
  redis.call('DEL', KEYS[1])
  held = {}
end
local place = (bounded(held[1], 1e9) or 0) % size
local times = redis.call('HMGET', KEYS[1], place, (place + size - 1) % size)
local oldest, newest = bounded(times[1], 9e15), bounded(times[2], 9e15)
if newest and newest > now and newest <= now + skew then now = newest end
if oldest and oldest <= now and oldest + window > now then return {0, oldest + window - now} end
redis.call('HSET', KEYS[1], place, string.format('%.0f', now), 'next', (place + 1) % size)
redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
return {1, 0}
`

// Allowances counts the new customers of callers for all replicas with the same
// Redis and key prefix, whatever their partners. It implements allowance.Shared.
type Allowances struct {
	client  redis.Scripter
	keys    redisKeys
	breaker *breaker.Breaker
	timeout time.Duration
	now     func() time.Time
	faults  *faultLog
	take    *redis.Script
}

var _ allowance.Shared = (*Allowances)(nil)

// NewAllowances returns the Allowances of a configuration, whose Namespace has no
// effect, on its connections. It fails only if the RedisConfig is invalid.
func NewAllowances(cfg RedisConfig, connections *Connections, logger *zap.Logger) (*Allowances, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if logger == nil {
		logger = zap.NewNop()
	}
	return &Allowances{
		client: connections.claimer,
		keys:   newRedisKeys(cfg.KeyPrefix, "callers"), // a partner's namespace has a slash
		breaker: breaker.New(breaker.Config{
			Failures: breakerFailures, First: breakerOpen, ProbeTimeout: cfg.WriteTimeout + dialTimeout, Now: time.Now,
		}),
		timeout: cfg.WriteTimeout,
		now:     time.Now,
		faults:  newFaultLog(logger, time.Now),
		take:    redis.NewScript(budgetClock + newCustomersScript),
	}, nil
}

// key is that of a caller. Names may be secret, and hold anything.
func (a *Allowances) key(caller string) string {
	sum := sha256.Sum256([]byte(caller))
	return a.keys.inPartition(int(sum[0])%partitions, "new:"+hex.EncodeToString(sum[:16]))
}

// TakeNewCustomer implements allowance.Shared.
func (a *Allowances) TakeNewCustomer(caller context.Context, name string, perMinute int) (granted bool, wait time.Duration, err error) {
	permit, _, ok := a.breaker.Allow()
	if !ok {
		return false, 0, errBreakerOpen
	}
	ctx, cancel := context.WithTimeout(caller, a.timeout)
	defer cancel()
	answer, err := a.take.Run(ctx, a.client, []string{a.key(name)}, a.now().UnixMicro(), perMinute, allowance.Window.Microseconds()).Int64Slice()
	if err == nil && (len(answer) != 2 || answer[1] < 0 || answer[1] > allowance.Window.Microseconds()) {
		err = errMessage
	}
	switch {
	case err == nil:
		permit.Succeed()
		return answer[0] == 1, time.Duration(answer[1]) * time.Microsecond, nil
	case hasLeft(caller):
		permit.Cancel()
		return false, 0, err
	case isReply(err):
		permit.Succeed() // it works, and refuses
	default:
		permit.Fail()
	}
	a.faults.warn("allowance", err)
	return false, 0, err
}
