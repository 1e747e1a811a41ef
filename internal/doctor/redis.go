package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/identity"
)

// The checks of Redis.
const (
	checkRedisReach     = "redis"
	checkRedisIdentity  = "redis entra id"
	checkRedisSentinels = "redis sentinels"
	checkRedisCluster   = "redis cluster"
	checkRedisAccess    = "redis access"
	checkRedisMessages  = "redis messages"
	checkRedisBudget    = "redis budget"
	checkRedisChanges   = "redis changes"
	checkRedisMemory    = "redis memory"
)

// redisLimit bounds one command: long enough to distinguish slow from
// unavailable.
const redisLimit = 2 * time.Second

// redisRights are the rights that the cache's user needs, as rules of ACL
// SETUSER.
const redisRights = "+ping +client|setname +get +getrange +set +del +pttl +pexpire +hset +hmget +hgetall +hlen +hdel +hget +hincrby +lpush +lrange +ltrim +xadd +xrange +xlen +xdel +zadd +zrem +zscore +zcard +zcount +zrange +zrangebyscore +zremrangebyscore +time +eval +evalsha +publish +subscribe +unsubscribe " +
	"+cluster|slots +asking"

// checkRedis runs the cache's commands once, on a separate key.
func (p patient) checkRedis(ctx context.Context) (findings []Finding) {
	defer func() {
		if recover() != nil { // go-redis panics on some malformed replies
			findings = append(findings, failure(checkRedisReach, "check that cache.redis.addresses are of Redis", "unreadable reply"))
		}
	}()
	cfg := p.cfg.Cache.Redis
	if len(cfg.Addresses) == 0 {
		return []Finding{skipped(checkRedisReach, "cache.redis.addresses is empty: each process caches for itself")}
	}
	patience := app.RedisConfig(p.cfg)
	patience.ReadTimeout, patience.WriteTimeout = redisLimit, redisLimit
	if patience.EntraID != nil {
		identified := redisIdentity(ctx, patience.EntraID)
		findings = append(findings, identified)
		if identified.Status == VerdictFailure {
			return findings
		}
	}
	client, err := cache.NewClient(patience)
	if err != nil {
		return append(findings, failure(checkRedisReach, "correct cache.redis", "%v", err))
	}
	defer func() { _ = client.Close() }() // nothing is left to lose
	if cfg.Mode == config.RedisSentinel {
		sentinels := checkSentinels(ctx, cfg)
		findings = append(findings, sentinels)
		if sentinels.Status == VerdictFailure {
			return findings
		}
	}
	servers, err := examineServers(ctx, client)
	if err != nil {
		return append(findings, redisAway(err, cfg))
	}
	findings = append(findings, redisReached(cfg, servers))
	if cluster, ok := client.(*redis.ClusterClient); ok {
		findings = append(findings, redisCluster(ctx, cluster))
	}
	return append(append(findings, redisAccess(ctx, client, cfg)...), redisMemories(servers))
}

// redisIdentity obtains a token, which connections then use.
func redisIdentity(ctx context.Context, tokens *identity.Tokens) Finding {
	const check = checkRedisIdentity
	token, err := tokens.Get(ctx)
	switch {
	case errors.Is(err, identity.ErrRefused):
		return failure(check, "assign an identity to this machine or pod, and choose it by AZURE_CLIENT_ID; AZURE_TOKEN_CREDENTIALS narrows where it is looked for", "%v", err)
	case err != nil:
		return failure(check, "check the way to the identity endpoint or the login host; open connections stay in use", "%v", err)
	}
	return ok(check, "the identity with object id %s has a token, which ends at %s", claimText(token.User), token.Expires.UTC().Format(time.RFC3339))
}

// redisServer is the result of examining one primary.
type redisServer struct {
	took time.Duration // for a round trip
	info string        // "" if the user lacks +info
}

// examineServers examines the server or, if it is a cluster, every primary.
func examineServers(ctx context.Context, client redis.UniversalClient) ([]redisServer, error) {
	var mu sync.Mutex
	var servers []redisServer // guarded by mu
	examine := func(ctx context.Context, client redis.UniversalClient) error {
		took, err := roundTrip(ctx, client)
		if err != nil {
			return err
		}
		info := client.Info(ctx).Val() // some users lack the right
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

// roundTrip returns the median of a few round trips. It ignores the first,
// which includes the connect.
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

// redisAway reports the reason if a server could not be examined.
func redisAway(err error, cfg config.Redis) Finding {
	const check = checkRedisReach
	text := cache.ErrorText(err)
	switch code := cache.ErrorCode(err); {
	case code == "NOPERM":
		return failure(check, redisRemedy(code, cfg), "its user may not even connect and ping")
	case strings.Contains(err.Error(), "cluster support disabled"):
		return failure(check, "correct cache.redis.mode", "it is no cluster")
	case code != "":
		return failure(check, redisRemedy(code, cfg), "%s", text)
	case strings.HasPrefix(strings.ToLower(text), "tls:"):
		return failure(check, "check cache.redis.tls: the authority, the names in the server's certificate, and whether it wants one of ours",
			"no connection: %s; the service continues without it", text)
	case text == "timeout":
		return failure(check, "check cache.redis.addresses and the firewall", "it does not answer within %v; the service continues without it", redisLimit)
	default:
		return failure(check, "start it, or correct cache.redis.addresses and tls.enabled; no address turns it off",
			"it is unavailable: %s; the service continues without it", text)
	}
}

// redisRemedy returns the remedy for an error code of Redis.
func redisRemedy(code string, cfg config.Redis) string {
	switch code {
	case "NOAUTH", "WRONGPASS":
		if cfg.EntraID.Enabled {
			return "give the object id of the identity access to the data of the Redis: its access policy assignments"
		}
		return "check cache.redis.username and password"
	case "NOPERM":
		return "allow the user " + redisRights + " ~" + cfg.KeyPrefix + ":* &" + cfg.KeyPrefix + ":*"
	case "OOM":
		return "give it more memory, or set maxmemory-policy volatile-lru"
	case "MISCONF":
		return "make room on its disk, or set stop-writes-on-bgsave-error no: eligibilityd needs no persistence"
	case "NOREPLICAS":
		return "bring its replicas back, or set min-replicas-to-write 0"
	case "READONLY", "MASTERDOWN":
		return "name the primary in cache.redis.addresses, or set cache.redis.mode: sentinel"
	case "CLUSTERDOWN":
		return "see CLUSTER NODES; each slot needs a primary that answers"
	case "MOVED", "CROSSSLOT":
		return "set cache.redis.mode: cluster"
	case "LOADING", "BUSY", "TRYAGAIN":
		return "wait, and try again"
	case "ERR", "NOPROTO":
		return "use Redis 6 or newer, and no proxy that lacks commands or scripts"
	default:
		return "see the log of Redis"
	}
}

// redisReached judges the slowest server.
func redisReached(cfg config.Redis, servers []redisServer) Finding {
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

// redisCluster asks one node for the state of the cluster.
func redisCluster(ctx context.Context, client *redis.ClusterClient) Finding {
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

// tryScript runs commands. If some fail, it returns the name and the error of each.
func tryScript(commands string) *redis.Script {
	return redis.NewScript(`
local failed = {}
for _, command in ipairs({` + commands + `}) do
  local reply = redis.pcall(unpack(command))
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = command[1]
    failed[#failed + 1] = reply.err
  end
end
return failed
`)
}

// accessCommands are the commands of the cache's scripts.
const accessCommands = `
  {'GET', KEYS[1]}, {'SET', KEYS[1], ARGV[1], 'PX', 10000}, {'PTTL', KEYS[1]}, {'TIME'},
  {'PUBLISH', ARGV[2], ARGV[1]}, {'DEL', KEYS[1]},
  {'HSET', KEYS[1], ARGV[1], ARGV[1]}, {'PEXPIRE', KEYS[1], 10000}, {'HMGET', KEYS[1], ARGV[1]}, {'HLEN', KEYS[1]},
  {'HGETALL', KEYS[1]}, {'HDEL', KEYS[1], ARGV[1]},
`

// changesCommands are those for the feed of changes, for reviews, for webhooks and for the
// history. Without them, the cache works.
const changesCommands = `
  {'DEL', KEYS[1]}, {'XADD', KEYS[1], '1-1', ARGV[1], ARGV[1]}, {'XLEN', KEYS[1]}, {'XRANGE', KEYS[1], '-', '+'}, {'XDEL', KEYS[1], '1-1'}, {'DEL', KEYS[1]},
  {'ZADD', KEYS[1], 1, ARGV[1]}, {'PEXPIRE', KEYS[1], 10000}, {'ZSCORE', KEYS[1], ARGV[1]}, {'ZCARD', KEYS[1]},
  {'ZCOUNT', KEYS[1], 0, 1}, {'ZRANGE', KEYS[1], 0, 1}, {'ZRANGEBYSCORE', KEYS[1], 0, 1},
  {'ZREMRANGEBYSCORE', KEYS[1], '-inf', 0}, {'ZREM', KEYS[1], ARGV[1]}, {'DEL', KEYS[1]},
  {'HSET', KEYS[1], ARGV[1], ARGV[1]}, {'HGET', KEYS[1], ARGV[1]}, {'HINCRBY', KEYS[1], 'n', 1}, {'DEL', KEYS[1]},
  {'LPUSH', KEYS[1], ARGV[1]}, {'LTRIM', KEYS[1], 0, 49}, {'LRANGE', KEYS[1], 0, 0}, {'DEL', KEYS[1]},
`

// scriptError is the error of a command in a script.
type scriptError string

func (e scriptError) Error() string { return string(e) }

// RedisError implements redis.Error.
func (scriptError) RedisError() {}

// redisAccess runs every command of the cache on a separate key and channel,
// and checks that messages arrive.
func redisAccess(ctx context.Context, client redis.UniversalClient, cfg config.Redis) []Finding {
	key := cfg.KeyPrefix + ":doctor:" + uuid.NewString()
	subscription := client.Subscribe(ctx, key)
	defer func() { _ = subscription.Close() }()
	_, subscribeErr := subscription.ReceiveTimeout(ctx, redisLimit)
	if err := client.GetRange(ctx, key, 0, 0).Err(); err != nil {
		return []Finding{refusedCommand("GETRANGE", err, cfg)}
	}
	failed, err := tryScript(accessCommands).Run(ctx, client, []string{key}, "doctor", key).StringSlice()
	if err != nil {
		return []Finding{refusedCommand("EVALSHA", err, cfg)}
	}
	for i := 0; i+1 < len(failed); i += 2 {
		if failed[i] != "PUBLISH" {
			return []Finding{refusedCommand(failed[i]+" in a script", scriptError(failed[i+1]), cfg)}
		}
		subscribeErr = scriptError(failed[i+1])
	}
	return []Finding{
		ok(checkRedisAccess, "keys %s:* can be read, written and removed", cfg.KeyPrefix),
		redisMessages(ctx, subscription, subscribeErr, cfg),
		redisBudget(ctx, client, key, cfg),
		redisChanges(ctx, client, key, cfg),
	}
}

// redisChanges runs the commands of the feed of changes on a separate key.
func redisChanges(ctx context.Context, client redis.UniversalClient, key string, cfg config.Redis) Finding {
	const check = checkRedisChanges
	effect := "changes and reviews do not reach watchers and webhooks"
	failed, err := tryScript(changesCommands).Run(ctx, client, []string{key}, "doctor").StringSlice()
	if err == nil && len(failed) > 1 {
		err = scriptError(failed[1])
	}
	if len(failed) > 1 && strings.HasPrefix(failed[0], "L") {
		effect = "explanations lack the history of customers"
	}
	switch code := cache.ErrorCode(err); {
	case err == nil:
		return ok(check, "changes can be written and read")
	case code == "NOPERM" && len(failed) > 1:
		return failure(check, redisRemedy(code, cfg), "its user may not %s in a script; %s", failed[0], effect)
	default:
		return failure(check, redisRemedy(code, cfg), "the commands of the feed are rejected (%s); %s", cache.ErrorText(err), effect)
	}
}

// redisBudget runs the scripts of the budget on a separate key.
func redisBudget(ctx context.Context, client redis.UniversalClient, key string, cfg config.Redis) Finding {
	if err := cache.TryBudget(ctx, client, key); err != nil {
		return failure(checkRedisBudget, redisRemedy(cache.ErrorCode(err), cfg),
			"the script of the budget is rejected (%s); each replica keeps to its part of the budget", cache.ErrorText(err))
	}
	return ok(checkRedisBudget, "replicas can share a budget")
}

// redisMessages reports whether replicas can send each other messages. If err
// is nil, it waits for the message that accessCommands published.
func redisMessages(ctx context.Context, subscription *redis.PubSub, err error, cfg config.Redis) Finding {
	const check = checkRedisMessages
	const effect = "replicas ask Redis every 0.9 s instead"
	if err == nil {
		_, err = subscription.ReceiveTimeout(ctx, redisLimit)
	}
	switch code := cache.ErrorCode(err); {
	case err == nil:
		return ok(check, "channels %s:* can be subscribed and published to", cfg.KeyPrefix)
	case code != "":
		return warning(check, redisRemedy(code, cfg), "SUBSCRIBE or PUBLISH is rejected (%s); %s", cache.ErrorText(err), effect)
	default:
		return warning(check, "connect to Redis without a proxy that lacks SUBSCRIBE", "no message arrives (%s); %s", cache.ErrorText(err), effect)
	}
}

func refusedCommand(name string, err error, cfg config.Redis) Finding {
	code := cache.ErrorCode(err)
	if code == "NOPERM" {
		return failure(checkRedisAccess, redisRemedy(code, cfg), "its user may not %s", name)
	}
	return failure(checkRedisAccess, redisRemedy(code, cfg), "%s is rejected: %s", name, cache.ErrorText(err))
}

// redisMemories checks every server and returns the worst finding.
func redisMemories(servers []redisServer) Finding {
	worst := redisMemory(infoValue(servers[0].info, "maxmemory"), infoValue(servers[0].info, "maxmemory_policy"))
	for _, server := range servers[1:] {
		if next := redisMemory(infoValue(server.info, "maxmemory"), infoValue(server.info, "maxmemory_policy")); next.Status != VerdictOK {
			worst = next
		}
	}
	return worst
}

// redisMemory reports what happens when memory runs out. All our keys expire.
func redisMemory(limit, policy string) Finding {
	const check = checkRedisMemory
	switch {
	case policy == "":
		return warning(check, "allow the user +info, or make sure that maxmemory-policy is not noeviction", "unknown: its user may not ask, or it does not report it")
	case policy != "noeviction":
		return ok(check, "maxmemory-policy is %s", policy)
	case limit == "0" || limit == "":
		return warning(check, "set maxmemory, and maxmemory-policy volatile-lru", "no maxmemory is set: it grows until the system ends it")
	default:
		return warning(check, "set maxmemory-policy volatile-lru: all keys of eligibilityd expire", "maxmemory-policy is noeviction: when memory is full, nothing new is cached")
	}
}

// plainWord matches the values of INFO that may be shown.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9._-]{1,32}$`)

// infoValue returns a field of a reply to INFO, if it is a plain word.
func infoValue(info, field string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, field+":"); ok && plainWord.MatchString(strings.TrimSpace(value)) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
