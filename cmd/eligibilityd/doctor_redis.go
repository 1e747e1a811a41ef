package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
)

// The checks of Redis.
const (
	checkRedisReach     = "redis"
	checkRedisSentinels = "redis sentinels"
	checkRedisCluster   = "redis cluster"
	checkRedisAccess    = "redis access"
	checkRedisMemory    = "redis memory"
)

// redisLimit is how long one command may take: long enough to tell slow from away.
const redisLimit = 2 * time.Second

// redisRights is what the cache's user needs, in the words of ACL SETUSER.
const redisRights = "+ping +client|setname +get +set +del +unlink +pexpire +eval +evalsha +script|load +publish +subscribe +unsubscribe " +
	"+cluster|slots +asking +spublish +ssubscribe +sunsubscribe"

// checkRedis does what the cache does, once, on a key of its own.
func (p patient) checkRedis(ctx context.Context) []finding {
	cfg := p.cfg.Cache.Redis
	if len(cfg.Addresses) == 0 {
		return []finding{skipped(checkRedisReach, "cache.redis.addresses is empty: each process caches for itself")}
	}
	patience := redisConfig(p.cfg)
	patience.ReadTimeout, patience.WriteTimeout = redisLimit, redisLimit
	client, err := cache.Connect(patience)
	if err != nil {
		return []finding{failure(checkRedisReach, "correct cache.redis", "%v", err)}
	}
	defer func() { _ = client.Close() }() // nothing is left to lose
	var findings []finding
	if cfg.Mode == config.RedisSentinel {
		sentinels := checkSentinels(ctx, cfg)
		findings = append(findings, sentinels)
		if sentinels.Status == verdictFailure {
			return findings
		}
	}
	servers, err := examineServers(ctx, client)
	if err != nil {
		return append(findings, redisAway(err))
	}
	findings = append(findings, redisReached(cfg, servers))
	if cluster, ok := client.(*redis.ClusterClient); ok {
		findings = append(findings, redisCluster(ctx, cluster))
	}
	return append(findings, redisAccess(ctx, client, cfg), redisMemories(servers))
}

// redisServer is what one server that is written to says.
type redisServer struct {
	took time.Duration // for a round trip
	info string        // "" where its user may not ask
}

// examineServers asks the server or, of a cluster, every primary.
func examineServers(ctx context.Context, client redis.UniversalClient) ([]redisServer, error) {
	var mu sync.Mutex
	var servers []redisServer // guarded by mu
	examine := func(ctx context.Context, client redis.UniversalClient) error {
		took, err := roundTrip(ctx, client)
		if err != nil {
			return err
		}
		info := client.Info(ctx).Val() // some users may not ask
		mu.Lock()
		defer mu.Unlock()
		servers = append(servers, redisServer{took: took, info: info})
		return nil
	}
	var err error
	if cluster, ok := client.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, primary *redis.Client) error { return examine(ctx, primary) })
	} else {
		err = examine(ctx, client)
	}
	return servers, err
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
		return failure(check, "allow the user "+redisRights+" on the keys and channels of cache.redis.key_prefix", "its user may not even connect and ping")
	case strings.Contains(text, "cluster support disabled"):
		return failure(check, "correct cache.redis.mode", "it is no cluster")
	case strings.Contains(text, "tls: "), strings.Contains(text, "x509: "):
		return failure(check, "check cache.redis.tls: the authority, the names in the server's certificate, and whether it wants one of ours",
			"no TLS comes about: %v; the service goes on without it", err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failure(check, "check cache.redis.addresses and the firewall", "it does not answer within %v; the service goes on without it", redisLimit)
	default:
		return failure(check, "start it, or correct cache.redis.addresses and tls.enabled; no address turns it off",
			"it is away: %v; the service goes on without it", err)
	}
}

// hasWord reports whether a reply of Redis begins with an error word.
func hasWord(text, word string) bool { return strings.HasPrefix(text, word) }

// redisReached judges the slowest server.
func redisReached(cfg config.Redis, servers []redisServer) finding {
	slowest := slices.MaxFunc(servers, func(a, b redisServer) int { return cmp.Compare(a.took, b.took) })
	version := cmp.Or(infoValue(slowest.info, "redis_version"), "of unknown version")
	answers := version + " answers"
	if len(servers) > 1 {
		answers = fmt.Sprintf("%s: %d primaries answer", version, len(servers))
	}
	took := slowest.took.Round(10 * time.Microsecond)
	if took >= cfg.ReadTimeout {
		return warning(checkRedisReach, "bring it nearer, or raise cache.redis.read_timeout",
			"%s in %v, which cache.redis.read_timeout %v does not wait for", answers, took, cfg.ReadTimeout)
	}
	return ok(checkRedisReach, "%s in %v", answers, took)
}

// redisCluster asks one node how the cluster does.
func redisCluster(ctx context.Context, client *redis.ClusterClient) finding {
	info, err := client.ClusterInfo(ctx).Result()
	switch state := infoValue(info, "cluster_state"); {
	case err != nil:
		return warning(checkRedisCluster, "allow the user +cluster|info, or look at CLUSTER INFO yourself", "unknown: its user may not ask")
	case state != "ok":
		return failure(checkRedisCluster, "see CLUSTER NODES; each slot needs a primary that answers", "cluster_state is %s", state)
	default:
		return ok(checkRedisCluster, "cluster_state is ok, of %s nodes", infoValue(info, "cluster_known_nodes"))
	}
}

// redisAccess reads, writes by script and removes, as the cache does.
func redisAccess(ctx context.Context, client redis.UniversalClient, cfg config.Redis) finding {
	key := cfg.KeyPrefix + ":doctor:" + uuid.NewString()
	publish := client.Publish
	if cfg.Mode == config.RedisCluster {
		publish = client.SPublish
	}
	script := redis.NewScript(`redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1`)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"GET", func() error { return ignoreNil(client.Get(ctx, key).Err()) }},
		{"EVALSHA with SET", func() error { return script.Run(ctx, client, []string{key}, "doctor", 10_000).Err() }},
		{"UNLINK", func() error { return client.Unlink(ctx, key).Err() }},
		{"PUBLISH", func() error { return publish(ctx, key, "").Err() }},
	} {
		err := step.do()
		switch {
		case err == nil:
		case strings.Contains(err.Error(), "NOPERM"), strings.Contains(err.Error(), "can't run this command"):
			return failure(checkRedisAccess, "allow the user "+redisRights+" ~"+cfg.KeyPrefix+":* &"+cfg.KeyPrefix+":*", "its user may not %s", step.name)
		case hasWord(err.Error(), "OOM"):
			return failure(checkRedisAccess, "give it more memory, or set maxmemory-policy volatile-lru", "it is full: %s is refused", step.name)
		case hasWord(err.Error(), "READONLY"):
			return failure(checkRedisAccess, "name the primary in cache.redis.addresses, or set cache.redis.mode: sentinel", "it is a replica: %s is refused", step.name)
		default:
			return failure(checkRedisAccess, "see the log of Redis", "%s does not work: %v", step.name, err)
		}
	}
	return ok(checkRedisAccess, "keys %s:* can be read, written and removed, and changes announced", cfg.KeyPrefix)
}

func ignoreNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// redisMemories judges every server, and says what is worst.
func redisMemories(servers []redisServer) finding {
	worst := redisMemory(infoValue(servers[0].info, "maxmemory"), infoValue(servers[0].info, "maxmemory_policy"))
	for _, server := range servers[1:] {
		if next := redisMemory(infoValue(server.info, "maxmemory"), infoValue(server.info, "maxmemory_policy")); next.Status != verdictOK {
			worst = next
		}
	}
	return worst
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
