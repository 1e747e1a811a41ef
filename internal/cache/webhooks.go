package cache

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

const (
	// webhookTimeout bounds a round trip: a sender has more patience than a caller.
	webhookTimeout = time.Second
	// webhookLife is how long the state of a webhook outlives its last sender.
	webhookLife = 30 * 24 * time.Hour
	// webhookPage is how many letters are read at once.
	webhookPage = 256
)

// Each webhook has five keys, in one slot:
//
//	lease    who sends: its holder's name; expires. One that would outlive a minute is none
//	state    hash: state (sealed), oldest (Unix ms), generation, dropped
//	parked   sorted set of the ids of letters that wait for a further attempt
//	dead     sorted set of the ids of dead letters, by when they died
//	letters  hash of id to letter (sealed)
const (
	webhookLease   = "lease"
	webhookState   = "state"
	webhookParked  = "parked"
	webhookDead    = "dead"
	webhookLetters = "letters"
)

// webhookStatusScript ends the scripts that return the status.
const webhookStatusScript = `
local s = redis.call('HMGET', KEYS[2], 'state', 'generation', 'dropped', 'oldest')
return {mine, holder or '', s[1] or '', s[2] or '0', s[3] or '0', s[4] or '0', redis.call('ZCARD', KEYS[3]), redis.call('ZCARD', KEYS[4])}
`

// webhookAcquireScript takes or renews a lease, unless another holds it. ARGV holder,
// life in ms, life of the state in ms, oldest; without a holder it only looks.
const webhookAcquireScript = `
local holder, left, mine = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), 0
if left < 0 or left > 60000 then holder = false end
if ARGV[1] ~= '' and (not holder or holder == ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  redis.call('HSET', KEYS[2], 'oldest', ARGV[4])
  for i = 2, 5 do redis.call('PEXPIRE', KEYS[i], ARGV[3]) end
  holder, mine = ARGV[1], 1
end
` + webhookStatusScript

// webhookReleaseScript ends a lease. ARGV holder.
const webhookReleaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
`

// webhookCommitScript writes a commit if the lease is held. ARGV holder, life of the
// state in ms, most dead letters, state, how many are parked, buried and removed; then
// id and letter of each parked one, id, order and letter of each buried one, and the
// ids of the removed ones.
const webhookCommitScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'state', ARGV[4])
local at = 8
for _ = 1, tonumber(ARGV[5]) do
  redis.call('ZADD', KEYS[3], 0, ARGV[at])
  redis.call('HSET', KEYS[5], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, tonumber(ARGV[6]) do
  redis.call('ZREM', KEYS[3], ARGV[at])
  redis.call('ZADD', KEYS[4], ARGV[at + 1], ARGV[at])
  redis.call('HSET', KEYS[5], ARGV[at], ARGV[at + 2])
  at = at + 3
end
for _ = 1, tonumber(ARGV[7]) do
  redis.call('ZREM', KEYS[3], ARGV[at])
  redis.call('ZREM', KEYS[4], ARGV[at])
  redis.call('HDEL', KEYS[5], ARGV[at])
  at = at + 1
end
local over = redis.call('ZCARD', KEYS[4]) - tonumber(ARGV[3])
if over > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[4], 0, over - 1)) do
    redis.call('ZREM', KEYS[4], id)
    redis.call('HDEL', KEYS[5], id)
  end
  redis.call('HINCRBY', KEYS[2], 'dropped', over)
end
for i = 2, 5 do redis.call('PEXPIRE', KEYS[i], ARGV[2]) end
return 1
`

// webhookReplayScript moves dead letters back to those that wait, and makes the holder
// read them. ARGV most parked, how many of the oldest; or 0 and their ids. It returns
// how many were moved and how many there was no room for.
const webhookReplayScript = `
local ids, moved, left = {}, 0, 0
if tonumber(ARGV[2]) > 0 then
  ids = redis.call('ZRANGE', KEYS[4], 0, tonumber(ARGV[2]) - 1)
else
  for i = 3, #ARGV do ids[#ids + 1] = ARGV[i] end
end
local room = tonumber(ARGV[1]) - redis.call('ZCARD', KEYS[3])
for _, id in ipairs(ids) do
  if redis.call('ZSCORE', KEYS[4], id) then
    if moved < room then
      redis.call('ZREM', KEYS[4], id)
      redis.call('ZADD', KEYS[3], 0, id)
      moved = moved + 1
    else
      left = left + 1
    end
  end
end
redis.call('HINCRBY', KEYS[2], 'generation', 1)
return {moved, left}
`

// webhookRepairScript deletes the keys of another type. It needs no right that the
// other scripts do not need.
const webhookRepairScript = `
local checks = {{'GET', KEYS[1]}, {'HMGET', KEYS[2], 'state'}, {'ZCARD', KEYS[3]}, {'ZCARD', KEYS[4]}, {'HMGET', KEYS[5], ''}}
for i, check in ipairs(checks) do
  local answer = redis.pcall(unpack(check))
  if type(answer) == 'table' and answer.err then redis.call('DEL', KEYS[i]) end
end
return 1
`

// webhookScripts are the scripts about webhooks.
type webhookScripts struct{ acquire, release, commit, replay, repair *redis.Script }

// Webhooks is the state of the webhooks of one partner in Redis. It implements
// webhooks.Store. Letters and state that were not sealed by it count as absent.
type Webhooks struct {
	client  redis.UniversalClient
	keys    redisKeys
	seals   *sealer
	scripts webhookScripts
	faults  *faultLog
}

var _ webhooks.Store = (*Webhooks)(nil)

// NewWebhooks returns the Webhooks of a configuration, on connections. It fails only if
// the RedisConfig is invalid.
func NewWebhooks(cfg RedisConfig, connections *Connections, logger *zap.Logger) (*Webhooks, error) {
	return NewWebhooksOn(cfg, connections.writer, logger)
}

// NewWebhooksOn is NewWebhooks on a client, for diagnosis and commands.
func NewWebhooksOn(cfg RedisConfig, client redis.UniversalClient, logger *zap.Logger) (*Webhooks, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if logger == nil {
		logger = zap.NewNop()
	}
	keys := newRedisKeys(cfg.KeyPrefix, cfg.Namespace)
	return &Webhooks{
		client: client, keys: keys, seals: newSealer(keys, cfg.IntegrityKey, cfg.PreviousIntegrityKey),
		scripts: webhookScripts{
			acquire: redis.NewScript(webhookAcquireScript),
			release: redis.NewScript(webhookReleaseScript),
			commit:  redis.NewScript(webhookCommitScript),
			replay:  redis.NewScript(webhookReplayScript),
			repair:  redis.NewScript(webhookRepairScript),
		},
		faults: newFaultLog(logger, time.Now),
	}, nil
}

// key is a key of a webhook. All of one are in the partition of its name.
func (w *Webhooks) key(name, part string) string {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(name))
	return w.keys.inPartition(int(hash.Sum32()%partitions), "webhook:"+name+":"+part)
}

func (w *Webhooks) all(name string) []string {
	return []string{
		w.key(name, webhookLease), w.key(name, webhookState), w.key(name, webhookParked), w.key(name, webhookDead), w.key(name, webhookLetters),
	}
}

// run runs a script on the keys of a webhook. A key of another type is deleted: no
// program but this one has a use for it.
func (w *Webhooks) run(caller context.Context, script *redis.Script, name string, args ...any) *redis.Cmd {
	ctx, cancel := context.WithTimeout(caller, webhookTimeout)
	defer cancel()
	answer := script.Run(ctx, w.client, w.all(name), args...)
	err := answer.Err()
	if err != nil && ErrorCode(err) == "WRONGTYPE" {
		w.scripts.repair.Run(ctx, w.client, w.all(name))
	}
	if err != nil && !hasLeft(caller) {
		w.faults.warn("webhook", err)
	}
	return answer
}

// Acquire implements webhooks.Store.
func (w *Webhooks) Acquire(ctx context.Context, name, holder string, life time.Duration, oldest time.Time) (webhooks.Status, error) {
	ms := int64(0)
	if !oldest.IsZero() {
		ms = oldest.UnixMilli()
	}
	answer, err := w.run(ctx, w.scripts.acquire, name, holder, life.Milliseconds(), webhookLife.Milliseconds(), ms).Slice()
	if err != nil {
		return webhooks.Status{}, err
	}
	return w.status(name, answer)
}

// Inspect returns the status of a webhook and changes nothing.
func (w *Webhooks) Inspect(ctx context.Context, name string) (webhooks.Status, error) {
	return w.Acquire(ctx, name, "", 0, time.Time{})
}

func (w *Webhooks) status(name string, answer []any) (webhooks.Status, error) {
	if len(answer) != 8 {
		return webhooks.Status{}, errMessage
	}
	var numbers [8]int64
	var texts [8]string
	for i, value := range answer {
		switch value := value.(type) {
		case int64:
			numbers[i] = value
		case string:
			texts[i] = value
			numbers[i], _ = strconv.ParseInt(value, 10, 64)
		}
	}
	status := webhooks.Status{
		Held: numbers[0] == 1, Holder: texts[1],
		Generation: numbers[3], Dropped: numbers[4], Parked: numbers[6], Dead: numbers[7],
	}
	status.State = w.open(name, webhookState, "", texts[2])
	if ms := numbers[5]; ms > 0 {
		status.Oldest = time.UnixMilli(ms)
	}
	return status, nil
}

// Release implements webhooks.Store.
func (w *Webhooks) Release(ctx context.Context, name, holder string) error {
	return w.run(ctx, w.scripts.release, name, holder).Err()
}

// Commit implements webhooks.Store.
func (w *Webhooks) Commit(ctx context.Context, name, holder string, commit webhooks.Commit) error {
	args := []any{
		holder, webhookLife.Milliseconds(), webhooks.MaxDead, w.seal(name, webhookState, "", commit.State),
		len(commit.Park), len(commit.Bury), len(commit.Remove),
	}
	for _, record := range commit.Park {
		args = append(args, record.ID, w.seal(name, webhookLetters, record.ID, record.Value))
	}
	for _, record := range commit.Bury {
		args = append(args, record.ID, record.Order, w.seal(name, webhookLetters, record.ID, record.Value))
	}
	for _, id := range commit.Remove {
		args = append(args, id)
	}
	written, err := w.run(ctx, w.scripts.commit, name, args...).Int64()
	if err == nil && written != 1 {
		err = webhooks.ErrNotHeld
	}
	return err
}

// Parked implements webhooks.Store.
func (w *Webhooks) Parked(ctx context.Context, name string) ([]webhooks.Record, error) {
	return w.letters(ctx, name, webhookParked, webhooks.MaxParked)
}

// Dead returns up to limit dead letters, the oldest first.
func (w *Webhooks) Dead(ctx context.Context, name string, limit int) ([]webhooks.Record, error) {
	return w.letters(ctx, name, webhookDead, limit)
}

// letters returns up to limit letters of a sorted set.
func (w *Webhooks) letters(ctx context.Context, name, set string, limit int) ([]webhooks.Record, error) {
	ids, err := w.members(ctx, name, set, limit)
	var records []webhooks.Record
	for page := range slices.Chunk(ids, webhookPage) {
		var values []any
		if values, err = w.values(ctx, name, page); err != nil {
			break
		}
		for i, id := range page {
			value, _ := values[i].(string)
			records = append(records, webhooks.Record{ID: id, Value: w.open(name, webhookLetters, id, value)})
		}
	}
	if err != nil {
		w.faults.warn("webhook", err)
		return nil, err
	}
	return records, nil
}

func (w *Webhooks) members(caller context.Context, name, set string, limit int) ([]string, error) {
	ctx, cancel := context.WithTimeout(caller, webhookTimeout)
	defer cancel()
	return w.client.ZRange(ctx, w.key(name, set), 0, int64(limit)-1).Result()
}

func (w *Webhooks) values(caller context.Context, name string, ids []string) ([]any, error) {
	ctx, cancel := context.WithTimeout(caller, webhookTimeout)
	defer cancel()
	values, err := w.client.HMGet(ctx, w.key(name, webhookLetters), ids...).Result()
	if err == nil && len(values) != len(ids) {
		err = errMessage
	}
	return values, err
}

// Replay moves dead letters back to those that wait, or all if ids is empty and all
// is set, and enables the webhook. It returns how many were moved, and how many there
// was no room for.
func (w *Webhooks) Replay(ctx context.Context, name string, ids []string, all bool) (moved, left int64, err error) {
	const step = 500
	for first := true; first || len(ids) > 0; first = false {
		args := []any{webhooks.MaxParked, 0}
		if all {
			args[1] = step
		}
		n := min(step, len(ids))
		for _, id := range ids[:n] {
			args = append(args, id)
		}
		ids = ids[n:]
		for {
			answer, err := w.run(ctx, w.scripts.replay, name, args...).Int64Slice()
			if err != nil {
				return moved, left, err
			}
			if len(answer) != 2 {
				return moved, left, errMessage
			}
			moved += answer[0]
			if !all {
				left += answer[1]
				break
			}
			if answer[0] < step {
				status, err := w.Inspect(ctx, name)
				return moved, status.Dead, err
			}
		}
	}
	return moved, left, nil
}

// seal appends the seal of a value for its place.
func (w *Webhooks) seal(name, part, id string, value []byte) []byte {
	place := webhookPlace(name, part, id)
	return w.seals.seal(append([]byte(place), value...), 0, sealWebhook, eligibility.Key{})[len(place):]
}

// open returns a value that was sealed for its place; nil if it was not.
func (w *Webhooks) open(name, part, id, sealed string) []byte {
	place := webhookPlace(name, part, id)
	content, ok := w.seals.open([]byte(place+sealed), sealWebhook, eligibility.Key{})
	if !ok || len(content) <= len(place) {
		return nil
	}
	return content[len(place):]
}

// webhookPlace names a value. No part of it holds a NUL.
func webhookPlace(name, part, id string) string {
	return strings.Join([]string{name, part, id, ""}, "\x00")
}
