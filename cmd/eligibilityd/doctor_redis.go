package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// The checks of Redis.
const (
	checkRedisReach  = "redis"
	checkRedisAccess = "redis access"
	checkRedisMemory = "redis memory"
)

// redisLimit is how long one command may take: long enough to tell slow from away.
const redisLimit = 2 * time.Second

// redisRights is what the cache's user needs, in the words of ACL SETUSER.
const redisRights = "+ping +client|setname +get +set +unlink +eval +evalsha"

// checkRedis does what the cache does, once, on a key of its own.
func (p patient) checkRedis(ctx context.Context) []finding {
	cfg := p.cfg.Cache.Redis
	if len(cfg.Addresses) == 0 {
		return []finding{skipped(checkRedisReach, "cache.redis.addresses is empty: each process caches for itself")}
	}
	client := redis.NewUniversalClient(redisOptions(cfg))
	defer func() { _ = client.Close() }() // nothing is left to lose
	took, err := roundTrip(ctx, client)
	if err != nil {
		return []finding{redisAway(err)}
	}
	info, err := client.Info(ctx, "server", "memory").Result()
	if err != nil { // as some users may not ask
		info = ""
	}
	return []finding{
		redisReached(cfg, infoValue(info, "redis_version"), took),
		redisAccess(ctx, client, cfg),
		redisMemory(infoValue(info, "maxmemory"), infoValue(info, "maxmemory_policy")),
	}
}

func redisOptions(cfg config.Redis) *redis.UniversalOptions {
	addresses := make([]string, len(cfg.Addresses))
	for i, address := range cfg.Addresses {
		addresses[i] = strings.TrimPrefix(address, "unix://")
	}
	return &redis.UniversalOptions{
		Addrs:                 addresses,
		ClientName:            "eligibilityd-doctor",
		Username:              cfg.Username,
		Password:              cfg.Password.Reveal(),
		DB:                    cfg.DB,
		MaxRetries:            -1,
		DialTimeout:           redisLimit,
		DialerRetries:         1,
		ReadTimeout:           redisLimit,
		WriteTimeout:          redisLimit,
		ContextTimeoutEnabled: true,
		PoolSize:              1,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},
	}
}

// roundTrip returns the median of a few round trips, the first of which, that
// connects, does not count.
func roundTrip(ctx context.Context, client redis.UniversalClient) (time.Duration, error) {
	if err := client.Ping(ctx).Err(); err != nil {
		return 0, err
	}
	took := make([]time.Duration, 5)
	for i := range took {
		start := time.Now()
		if err := client.Ping(ctx).Err(); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// redisAway shows the kind of an error only: its text may repeat a user's name.
func redisAway(err error) finding {
	const check = checkRedisReach
	var timeout net.Error
	switch text := err.Error(); {
	case hasWord(text, "NOAUTH"), hasWord(text, "WRONGPASS"):
		return failure(check, "check cache.redis.username and password", "it refuses our credentials")
	case hasWord(text, "NOPERM"):
		return failure(check, "allow the user "+redisRights+" on the keys of cache.redis.key_prefix", "its user may not even connect and ping")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failure(check, "check cache.redis.addresses and the firewall", "it does not answer within %v; the service goes on without it", redisLimit)
	default:
		return failure(check, "start it, or correct cache.redis.addresses; empty turns it off",
			"it is away: %v; the service goes on without it", err)
	}
}

// hasWord reports whether a reply of Redis begins with an error word.
func hasWord(text, word string) bool { return strings.HasPrefix(text, word) }

func redisReached(cfg config.Redis, version string, took time.Duration) finding {
	if version == "" {
		version = "of unknown version"
	}
	took = took.Round(10 * time.Microsecond)
	if took >= cfg.ReadTimeout {
		return warning(checkRedisReach, "bring it nearer, or raise cache.redis.read_timeout",
			"%s answers in %v, which cache.redis.read_timeout %v does not wait for", version, took, cfg.ReadTimeout)
	}
	return ok(checkRedisReach, "%s answers in %v", version, took)
}

// redisAccess reads, writes by script and removes, as the cache does.
func redisAccess(ctx context.Context, client redis.UniversalClient, cfg config.Redis) finding {
	key := cfg.KeyPrefix + ":doctor:" + uuid.NewString()
	script := redis.NewScript(`redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1`)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"GET", func() error { return ignoreNil(client.Get(ctx, key).Err()) }},
		{"EVALSHA with SET", func() error { return script.Run(ctx, client, []string{key}, "doctor", 10_000).Err() }},
		{"UNLINK", func() error { return client.Unlink(ctx, key).Err() }},
	} {
		err := step.do()
		switch {
		case err == nil:
		case strings.Contains(err.Error(), "NOPERM"), strings.Contains(err.Error(), "can't run this command"):
			return failure(checkRedisAccess, "allow the user "+redisRights+" ~"+cfg.KeyPrefix+":*", "its user may not %s", step.name)
		case hasWord(err.Error(), "OOM"):
			return failure(checkRedisAccess, "give it more memory, or set maxmemory-policy volatile-lru", "it is full: %s is refused", step.name)
		case hasWord(err.Error(), "READONLY"):
			return failure(checkRedisAccess, "name the primary in cache.redis.addresses", "it is a replica: %s is refused", step.name)
		default:
			return failure(checkRedisAccess, "see the log of Redis", "%s does not work: %v", step.name, err)
		}
	}
	return ok(checkRedisAccess, "reading, writing and removing below %s: work", cfg.KeyPrefix)
}

func ignoreNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// redisMemory judges what happens when memory runs out. All our keys expire.
func redisMemory(limit, policy string) finding {
	const check = checkRedisMemory
	switch {
	case policy == "":
		return warning(check, "allow the user +info, or make sure that maxmemory-policy is not noeviction", "unknown: its user may not ask, or it does not say")
	case policy != "noeviction":
		return ok(check, "maxmemory-policy is %s", policy)
	case limit == "0" || limit == "":
		return warning(check, "set maxmemory, and maxmemory-policy volatile-lru", "no maxmemory is set: it grows until the system ends it")
	default:
		return warning(check, "set maxmemory-policy volatile-lru: all keys of eligibilityd expire", "maxmemory-policy is noeviction: when memory is full, nothing new is cached")
	}
}

// infoValue returns a field of what INFO says.
func infoValue(info, field string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
