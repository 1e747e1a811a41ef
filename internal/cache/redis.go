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
	reads        *gatherer
	scripts      scripts
	keys         redisKeys
	readTimeout  time.Duration
	writeTimeout time.Duration
	now          func() time.Time
	metrics      *metrics
	faults       *faultLog
	rest         rest
}

func newSharedTier(cfg RedisConfig, logger *zap.Logger, metrics *metrics, now func() time.Time) (*sharedTier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	client, keys := newClient(cfg), newRedisKeys(cfg.KeyPrefix, cfg.Namespace)
	return &sharedTier{
		client:       client,
		reads:        &gatherer{client: client, keys: keys, budget: cfg.ReadTimeout, wait: tripWait},
		scripts:      newScripts(),
		keys:         keys,
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
// is overwritten by the next fetch. What is of the same fetch as held, evidence
// that this process has for the keys, is not read again.
func (r *sharedTier) load(caller context.Context, keys []eligibility.Key, held []*eligibility.Evidence) []*eligibility.Evidence {
	found := make([]*eligibility.Evidence, len(keys))
	if r.rest.lasts(r.now()) {
		r.metrics.redisSkipped.Add(float64(len(keys)))
		return found
	}
	trip, gets, fault := r.reads.get(caller, keys)
	now := r.now()
	var unreadable []eligibility.Key
	for i, get := range gets {
		value, err := get.Bytes()
		if err == nil {
			found[i], err = reread(keys[i], value, held[i])
		}
		switch {
		case errors.Is(err, redis.Nil), err == nil && fromFuture(found[i], now):
			r.metrics.redisMiss.Inc()
			found[i] = nil
		case err == nil:
			r.metrics.redisHit.Inc()
		case errors.Is(err, errValue), redis.HasErrorPrefix(err, "WRONGTYPE"):
			unreadable = append(unreadable, keys[i])
		default:
			fault = err
		}
	}
	if fault == nil || trip.blames(caller) {
		r.settle(caller, "load", fault)
	}
	if fault == nil && len(unreadable) > 0 {
		r.unlink(caller, unreadable)
	}
	return found
}

// unlink deletes what cannot be read, so that nothing has to try again.
func (r *sharedTier) unlink(caller context.Context, keys []eligibility.Key) {
	r.metrics.unreadable.Add(float64(len(keys)))
	ctx, cancel := context.WithTimeout(caller, r.readTimeout)
	defer cancel()
	_, err := r.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range keys {
			pipe.Unlink(ctx, r.keys.of(key))
		}
		return nil
	})
	r.settle(caller, "load", err)
}

// share writes evidence unless something newer is there, ends the lease that
// was held for it, and announces it. It reports whether Redis has done so.
func (r *sharedTier) share(caller context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time, holder []byte) bool {
	now := r.now()
	left := keepUntil.Sub(now).Milliseconds()
	switch {
	case left <= 0, fromFuture(evidence, now):
		return true
	case r.rest.lasts(now):
		return false
	}
	ctx, cancel := context.WithTimeout(caller, r.writeTimeout)
	defer cancel()
	value := encode(key, evidence)
	written, err := r.scripts.keepNewer.Run(ctx, r.client, []string{r.keys.of(key), r.keys.lease(key)},
		value, left, appendTime(nil, now.Add(clockTolerance)), holder).Int()
	if err == nil && written != 0 {
		err = r.announce(ctx, encodeAnnouncement(kindEvidence, key, value))
	}
	r.settle(caller, "share", err)
	return err == nil
}

// announce tells all replicas. On a cluster it goes through the one shard that
// the channel belongs to, not over the bus to every node.
func (r *sharedTier) announce(ctx context.Context, message []byte) error {
	r.metrics.announced.Inc()
	if isCluster(r.client) {
		return r.client.SPublish(ctx, r.keys.channel(), message).Err()
	}
	return r.client.Publish(ctx, r.keys.channel(), message).Err()
}

// settle counts how an operation ended, unless it was the caller who left: who
// comes with little time says nothing about Redis.
func (r *sharedTier) settle(caller context.Context, op string, err error) {
	if err == nil {
		r.rest.worked()
		return
	}
	if hasLeft(caller) {
		return
	}
	r.metrics.redisFaults.WithLabelValues(op, faultKind(err)).Inc()
	r.faults.warn(op, err)
	r.rest.failed(r.now())
}

// hasLeft reports whether the caller is no longer there, or out of time. A
// socket's deadline may be noticed before the context's own.
func hasLeft(caller context.Context) bool {
	deadline, limited := caller.Deadline()
	return caller.Err() != nil || limited && time.Until(deadline) <= 0
}

func (r *sharedTier) close() error {
	if err := r.client.Close(); err != nil {
		return fmt.Errorf("cache: close redis client: %w", err)
	}
	return nil
}
