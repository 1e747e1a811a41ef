package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
)

// sentinelRights is what the user of the sentinels needs.
const sentinelRights = "+ping +client|setname +subscribe +unsubscribe +sentinel|get-master-addr-by-name +sentinel|sentinels " +
	"&+switch-master &+replica-reconf-done"

// errUnnamed means that a sentinel does not know a primary of that name.
var errUnnamed = errors.New("it knows no primary of that name")

// checkSentinels asks every sentinel, although the cache needs only one: if
// others do not answer, there is no redundancy left.
func checkSentinels(ctx context.Context, cfg config.Redis) Finding {
	const check = checkRedisSentinels
	primaries, faults := make([]string, len(cfg.Addresses)), make([]error, len(cfg.Addresses))
	var asking sync.WaitGroup
	for i, address := range cfg.Addresses {
		asking.Go(func() { primaries[i], faults[i] = askSentinel(ctx, cfg, address) })
	}
	asking.Wait()
	named := map[string]bool{}
	var silent []string
	unnamed, refused := false, false
	for i, err := range faults {
		switch {
		case err == nil:
			named[primaries[i]] = true
			continue
		case errors.Is(err, errUnnamed):
			unnamed = true
			silent = append(silent, fmt.Sprintf("item %d: %v", i+1, errUnnamed))
			continue
		}
		refused = refused || slices.Contains([]string{"NOAUTH", "WRONGPASS", "NOPERM"}, cache.ErrorCode(err))
		silent = append(silent, fmt.Sprintf("item %d: %s", i+1, cache.ErrorText(err)))
	}
	text := strings.Join(silent, "; ")
	switch {
	case len(named) == 0 && unnamed:
		return failure(check, "correct cache.redis.sentinel.master_name: what stands after `sentinel monitor`", "none knows a primary of that name")
	case refused:
		return failure(check, "check cache.redis.sentinel.username and password; the user needs "+sentinelRights, "%d of %d refuse our credentials", len(silent), len(cfg.Addresses))
	case len(named) == 0:
		return failure(check, "start them, or correct cache.redis.addresses and tls", "none answers: %s", text)
	case len(named) > 1:
		return warning(check, "wait for the failover to end, or see what SENTINEL CKQUORUM reports", "they name different primaries")
	case len(silent) > 0:
		return warning(check, "start them, or correct cache.redis.addresses", "%d of %d do not answer: %s", len(silent), len(cfg.Addresses), text)
	default:
		return ok(check, "all %d name the same primary", len(cfg.Addresses))
	}
}

// askSentinel returns the address of the primary.
func askSentinel(ctx context.Context, cfg config.Redis, address string) (string, error) {
	client := redis.NewSentinelClient(&redis.Options{
		Addr:                     address,
		Username:                 cfg.Sentinel.Username,
		Password:                 cfg.Sentinel.Password.Reveal(),
		TLSConfig:                cfg.TLSConfig(),
		DisableIdentity:          true,
		MaxRetries:               -1,
		DialTimeout:              redisLimit,
		DialerRetries:            1,
		ReadTimeout:              redisLimit,
		WriteTimeout:             redisLimit,
		ContextTimeoutEnabled:    true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	defer func() { _ = client.Close() }()
	primary, err := client.GetMasterAddrByName(ctx, cfg.Sentinel.MasterName).Result()
	if errors.Is(err, redis.Nil) {
		return "", errUnnamed
	}
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(primary[0], primary[1]), nil
}
