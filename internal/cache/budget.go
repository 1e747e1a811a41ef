package cache

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// budgetClock is how the scripts of the budget get the time, in microseconds: from
// the server or, if the user may not call TIME, from the replica. ARGV[1] is the
// replica's.
const budgetClock = `
local now, clock = tonumber(ARGV[1]), redis.pcall('TIME')
if not clock.err then now = tonumber(clock[1]) * 1000000 + tonumber(clock[2]) end
`

// budgetScript makes one step of a budget, as package budget does without Redis:
// with the same arithmetic, in whole microseconds and millionths. See there for the
// reasons. now in the hash is the last reading of the clock. What the hash holds
// counts only if it can be true. A hash without a time starts with what the caller
// knows: with a full burst only if the caller has not seen it before.
//
// review in the hash is the time of LaneReview's part of the budget. A hash in which
// it is absent is from a release that made no reviews, which leaves it as it is.
//
// KEYS budget; ARGV now, kind, calls a minute, the part of the burst that must
// remain, the calls that must remain or -1 if the lane has room for one in any
// case, the longest wait that books a place, calls to charge, pause, 1 if the
// caller has seen the hash before, the factor (0 is all) and the rest of the
// pause that the caller knows, the calls a minute of LaneReview, 1 if it is the lane.
// It returns {1 if granted, wait, rest of the pause, time until the whole burst is
// there, factor, 1 if the hash had no time, time until LaneReview's burst is there}.
const budgetScript = `
local window, maxPause, debt = 61000000, 600000000, 10000000
local skew = 5000000
local whole, minFactor, growthStep, growthGap = 1000000, 100000, 3000, 5000000
local kind, perMinute = ARGV[2], math.min(math.max(tonumber(ARGV[3]), 0.01), 1000000)
local part, calls = tonumber(ARGV[4]), tonumber(ARGV[5])
local reviewsPerMinute, isReview = math.min(math.max(tonumber(ARGV[12]), 0.01), 1000000), ARGV[13] == '1'
local function limitsAt(rate, share)
  local burst = math.max(1, rate / share)
  local interval = math.ceil(window / (rate - burst + 1))
  return interval, math.floor(burst * interval)
end
local function limits(factor) return limitsAt(perMinute * factor / whole, 10) end
local function reviewLimits(factor) return limitsAt(math.max(reviewsPerMinute * factor / whole, 0.1), 50) end
local function bounded(text, low, high)
  local n = tonumber(text)
  if n and n >= low and n <= high then return math.floor(n) end
  return nil
end
local held = redis.pcall('HMGET', KEYS[1], 'tat', 'factor', 'grown', 'pause', 'now', 'review')
if held.err then
  if not string.find(held.err, 'WRONGTYPE', 1, true) then return redis.call('HMGET', KEYS[1], 'tat') end
  redis.call('DEL', KEYS[1])
  held = {}
end
local back, moved = (bounded(held[5], 0, 9e15) or now) - now, 0
if back > skew then moved = back elseif back > 0 then now = now + back end
local function time(text)
  local n = bounded(text, 0, 9e15)
  return n and math.max(n - moved, 0)
end
local tat, fresh = time(held[1]), 0
local seed = tonumber(ARGV[10])
if seed == 0 then seed = whole end
local factor = bounded(held[2], minFactor, whole) or math.min(math.max(seed, minFactor), whole)
local grown = math.min(time(held[3]) or now, now)
local pause = math.min(time(held[4]) or now + tonumber(ARGV[11]), now + maxPause)
local interval, depth = limits(factor)
local reviewInterval, reviewDepth = reviewLimits(factor)
local review = time(held[6]) or now
if not tat then
  tat, review, fresh = now, now, 1
  if ARGV[9] == '1' then tat, review = now + depth, now + reviewDepth end
end
local function bound() return math.max(now, pause) + depth + math.max(debt, interval) end
local function reviewBound() return math.max(now, pause) + reviewDepth + math.max(debt, reviewInterval) end
tat, review = math.min(tat, bound()), math.min(review, reviewBound())
local granted, wait = 0, 0
if kind == 'take' and pause <= now then
  local reserve = math.floor(depth * part)
  if calls >= 0 then reserve = math.max(reserve, calls * interval) else reserve = math.min(reserve, depth - interval) end
  local start = math.max(tat, now)
  if reserve + interval > depth then
    wait = maxPause
  else
    wait = math.max(0, start + interval + reserve - depth - now)
    local steps = math.floor(math.min(now - grown, growthGap) / growthStep)
    if wait > 0 and calls < 0 and steps > 0 and factor < whole then
      factor = math.min(factor + steps, whole)
      if now - grown > growthGap then grown = now else grown = grown + steps * growthStep end
    end
    local reviewed = math.max(review, now) + reviewInterval
    if isReview then wait = math.max(wait, reviewed - reviewDepth - now) end
    if wait <= tonumber(ARGV[6]) then
      granted, tat = 1, start + interval
      if isReview then review = reviewed end
    end
  end
elseif kind == 'charge' then
  tat = math.min(math.max(tat, now) + interval * tonumber(ARGV[7]), bound())
  if isReview then review = math.min(math.max(review, now) + reviewInterval * tonumber(ARGV[7]), reviewBound()) end
elseif kind == 'pause' then
  if pause <= now then factor = math.max(math.floor(factor * 7 / 10), minFactor) end
  pause = math.max(pause, now + math.min(tonumber(ARGV[8]), maxPause))
  grown = pause
  interval, depth = limits(factor)
  reviewInterval, reviewDepth = reviewLimits(factor)
  tat, review = math.max(tat, pause + depth), math.max(review, pause + reviewDepth)
end
redis.call('HSET', KEYS[1], 'tat', string.format('%.0f', tat), 'factor', factor, 'grown', string.format('%.0f', grown),
  'pause', string.format('%.0f', pause), 'now', string.format('%.0f', now), 'review', string.format('%.0f', review))
redis.call('PEXPIRE', KEYS[1], 2100000)
return {granted, wait, math.max(pause - now, 0), math.max(tat - now, 0), factor, fresh, math.max(review - now, 0)}
`

// replicasScript records a replica and returns all of them, those that were not
// seen for minutes apart. More than a fleet can have are deleted: those that
// exist come back.
//
// KEYS replicas; ARGV now, the replica, its description. It returns {now in ms,
// replica, time in ms and description, …}.
const replicasScript = `
now = math.floor(now / 1000)
local size = redis.pcall('HLEN', KEYS[1])
if type(size) == 'table' and not string.find(size.err, 'WRONGTYPE', 1, true) then return redis.call('HLEN', KEYS[1]) end
if type(size) == 'table' or size > 256 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[2], string.format('%.0f', now) .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], 600000)
local all, found = redis.call('HGETALL', KEYS[1]), {string.format('%.0f', now)}
for i = 1, #all, 2 do
  local seen = tonumber(string.match(all[i + 1], '^(%d+) '))
  if #all[i] > 64 or #all[i + 1] > 2048 or not seen or seen > now + 60000 or seen < now - 300000 then
    redis.call('HDEL', KEYS[1], all[i])
  else
    found[#found + 1] = all[i]
    found[#found + 1] = all[i + 1]
  end
end
return found
`

// replicaAge is how long ago a replica that counts was seen at most.
const replicaAge = time.Minute

// sharedBudget is the budget of one partner in Redis. Its keys are in one
// partition, which depends on the namespace. It has a circuit breaker of its own.
type sharedBudget struct {
	tier             *sharedTier
	breaker          *breaker.Breaker
	budget, replicas string // keys
	steps, announces *redis.Script
}

var _ budget.Shared = (*sharedBudget)(nil)

// SharedBudget returns the budget that all replicas with this Redis and namespace
// share; nil without Redis.
func (s *Store) SharedBudget() budget.Shared { //nolint:ireturn // nil is a value of its own
	if s.redis == nil {
		return nil
	}
	r := s.redis
	return &sharedBudget{
		tier: r,
		breaker: breaker.New(breaker.Config{
			Failures: breakerFailures, First: breakerOpen, ProbeTimeout: r.writeTimeout + dialTimeout, Now: r.now,
		}),
		budget: r.keys.ofPartner("budget"), replicas: r.keys.ofPartner("replicas"),
		steps: redis.NewScript(budgetClock + budgetScript), announces: redis.NewScript(budgetClock + replicasScript),
	}
}

// ofPartner is a key of which the namespace has one.
func (k redisKeys) ofPartner(name string) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(k.head))
	return k.inPartition(int(hash.Sum32()%partitions), name)
}

// Do implements budget.Shared. A pause is stored even if the circuit breaker is
// open.
func (b *sharedBudget) Do(caller context.Context, step budget.Step) (budget.Reply, error) {
	permit, _, ok := b.breaker.Allow()
	if !ok {
		if step.Kind != budget.KindPause {
			return budget.Reply{}, errBreakerOpen
		}
		permit = b.breaker.Force()
	}
	ctx, cancel := context.WithTimeout(caller, b.tier.writeTimeout)
	defer cancel()
	answer, err := b.steps.Run(ctx, b.tier.claimer, []string{b.budget}, stepArgs(b.tier.now(), step)...).Int64Slice()
	var reply budget.Reply
	if err == nil {
		reply, err = decodeStep(answer)
	}
	b.tier.report(caller, "budget", permit, err)
	return reply, err
}

var stepKinds = [...]string{ //nolint:gochecknoglobals // only read
	budget.KindLook: "look", budget.KindTake: "take", budget.KindCharge: "charge", budget.KindPause: "pause",
}

func stepArgs(now time.Time, step budget.Step) []any {
	part, calls := budget.Reserve(step.Lane)
	lost, review := 0, 0
	if step.Seed.Lost {
		lost = 1
	}
	if step.Lane == evidence.LaneReview {
		review = 1
	}
	return []any{
		now.UnixMicro(), stepKinds[step.Kind], strconv.FormatFloat(step.PerMinute, 'g', -1, 64), part, calls,
		step.Book.Microseconds(), step.Calls, step.Pause.Microseconds(), lost, step.Seed.Factor, step.Seed.Pause.Microseconds(),
		strconv.FormatFloat(step.ReviewPerMinute(), 'g', -1, 64), review,
	}
}

// decodeStep bounds what the reply says: a server may reply anything.
func decodeStep(answer []int64) (budget.Reply, error) {
	if len(answer) != 7 {
		return budget.Reply{}, errMessage
	}
	for _, n := range answer {
		if n < 0 || n > time.Hour.Microseconds() {
			return budget.Reply{}, errMessage
		}
	}
	return budget.Reply{
		Granted: answer[0] == 1,
		Wait:    time.Duration(answer[1]) * time.Microsecond,
		Paused:  min(time.Duration(answer[2])*time.Microsecond, budget.MaxPause),
		Debt:    time.Duration(answer[3]) * time.Microsecond,
		Factor:  int(answer[4]),
		Fresh:   answer[5] == 1,

		ReviewDebt: time.Duration(answer[6]) * time.Microsecond,
	}, nil
}

// Announce implements budget.Shared.
func (b *sharedBudget) Announce(caller context.Context, replica budget.Replica) (budget.Fleet, error) {
	permit, _, ok := b.breaker.Allow()
	if !ok {
		return budget.Fleet{}, errBreakerOpen
	}
	text, err := json.Marshal(replica)
	if err != nil { // strings and a number: there is nothing that could fail
		permit.Cancel()
		return budget.Fleet{}, err
	}
	ctx, cancel := context.WithTimeout(caller, b.tier.writeTimeout)
	defer cancel()
	id := hex.EncodeToString(b.tier.replica[:])
	answer, err := b.announces.Run(ctx, b.tier.claimer, []string{b.replicas}, b.tier.now().UnixMicro(), id, text).StringSlice()
	if err == nil && len(answer)%2 != 1 {
		err = errMessage
	}
	b.tier.report(caller, "budget", permit, err)
	if err != nil {
		return budget.Fleet{}, err
	}
	now, _ := strconv.ParseInt(answer[0], 10, 64)
	fleet, replicas := budget.Fleet{}, map[string]budget.Replica{id: replica}
	for i := 1; i < len(answer); i += 2 {
		if found, ok := decodeReplica(answer[i+1], time.UnixMilli(now)); ok && answer[i] != id {
			replicas[answer[i]] = found
		}
	}
	for place, of := range slices.Sorted(maps.Keys(replicas)) {
		if of == id {
			fleet.Place = place
		}
		fleet.Replicas = append(fleet.Replicas, replicas[of])
	}
	fleet.Size = len(replicas)
	return fleet, nil
}

// decodeReplica decodes a replica that was seen within replicaAge before now. What
// the hash holds may come from anybody.
func decodeReplica(value string, now time.Time) (replica budget.Replica, ok bool) {
	seenText, text, _ := strings.Cut(value, " ")
	seen, err := strconv.ParseInt(seenText, 10, 64)
	if err != nil || len(text) > 2048 || !within(int64(now.Sub(time.UnixMilli(seen))), replicaAge) {
		return replica, false
	}
	return replica, json.Unmarshal([]byte(text), &replica) == nil
}

// Replicas reads the replicas that share the budget of a configuration, for
// diagnosis.
func Replicas(ctx context.Context, client redis.UniversalClient, cfg RedisConfig) ([]budget.Replica, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	entries, err := client.HGetAll(ctx, newRedisKeys(cfg.KeyPrefix, cfg.Namespace).ofPartner("replicas")).Result()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if server, err := client.Time(ctx).Result(); err == nil {
		now = server
	}
	var replicas []budget.Replica
	for _, value := range entries {
		if found, ok := decodeReplica(value, now); ok {
			replicas = append(replicas, found)
		}
	}
	return replicas, nil
}

// TryBudget runs the scripts of the budget on a separate key, for diagnosis.
func TryBudget(ctx context.Context, client redis.UniversalClient, key string) error {
	step := budget.Step{Kind: budget.KindTake, PerMinute: budget.DefaultPerMinute, Seed: budget.Seed{Lost: true}}
	answer, err := redis.NewScript(budgetClock+budgetScript).Run(ctx, client, []string{key}, stepArgs(time.Now(), step)...).Int64Slice()
	if err == nil {
		_, err = decodeStep(answer)
	}
	if err == nil {
		err = client.Del(ctx, key).Err()
	}
	if err == nil {
		err = redis.NewScript(budgetClock+replicasScript).Run(ctx, client, []string{key}, time.Now().UnixMicro(), "doctor", "{}").Err()
	}
	return errors.Join(err, client.Del(ctx, key).Err())
}
