// Package cache keeps evidence near: in this process and, where configured, in
// Redis, which replicas share. [Store] implements eligibility.Store.
//
// It holds facts, never decisions. A fault of Redis is a miss: counted, logged
// at most once an interval, never returned to a caller.
package cache

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Config tunes a [Store]. Its zero value is an in-process store with the
// documented defaults.
type Config struct {
	// MaxEntries bounds the local tier, one entry a facet of a customer; 0
	// means 100,000.
	MaxEntries int
	// MaxBytes bounds what its entries take, about; 0 means 128 MiB.
	MaxBytes int
	// LocalMaxAge is how long the local tier trusts itself where Redis is
	// configured, since another replica may know better; 0 means 30 s. Without
	// Redis it trusts itself for the evidence's own ages.
	LocalMaxAge time.Duration
	// Redis configures the shared tier; without Addresses there is none.
	Redis RedisConfig
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Logger is told of Redis faults; nil means none.
	Logger *zap.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Store is the two-tier store of evidence. It is safe for concurrent use.
type Store struct {
	local   *local
	redis   *sharedTier // nil without Redis
	hearing hearing
	leases  *leases
	ledger  *ledger
	maxAge  time.Duration
	now     func() time.Time
	metrics *metrics
}

var _ eligibility.Store = (*Store)(nil)

// New builds a Store. It makes no connection, so that a start does not depend
// on Redis; it fails only on a Config that cannot be kept.
func New(cfg Config) (*Store, error) {
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 100_000
	}
	if cfg.LocalMaxAge == 0 {
		cfg.LocalMaxAge = 30 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 128 << 20
	}
	if cfg.MaxEntries < 0 || cfg.MaxBytes < 0 || cfg.LocalMaxAge < 0 {
		return nil, errors.New("cache: max entries, max bytes and local max age must not be negative")
	}
	local, err := newLocal(cfg.MaxEntries, cfg.MaxBytes)
	if err != nil {
		return nil, err
	}
	metrics, err := newMetrics(cfg.Registerer, local)
	if err != nil {
		return nil, err
	}
	store := &Store{
		local: local, leases: newLeases(), ledger: newLedger(cfg.Now),
		maxAge: cfg.LocalMaxAge, now: cfg.Now, metrics: metrics,
	}
	if len(cfg.Redis.Addresses) > 0 {
		if store.redis, err = newSharedTier(cfg.Redis, cfg.Logger, metrics, cfg.Now); err != nil {
			return nil, err
		}
	}
	return store, nil
}

// Close ends the connections to Redis. The store must not be used afterwards.
func (s *Store) Close() error {
	if s.redis == nil {
		return nil
	}
	return s.redis.close()
}

// clockTolerance is how far ahead of this machine's clock another's may be: as
// far as the service believes it.
const clockTolerance = time.Second

// fromFuture says that no clock near now's has stamped evidence. It counts as
// absent in both tiers, or it would keep out all that is fetched until then.
func fromFuture(evidence *eligibility.Evidence, now time.Time) bool {
	return evidence.FetchTime.After(now.Add(clockTolerance))
}

// Peek implements eligibility.Store.
func (s *Store) Peek(key eligibility.Key, now time.Time) eligibility.Found {
	entry, held := s.local.get(key)
	if !held || fromFuture(entry.evidence, now) {
		s.metrics.localMiss.Inc()
		return eligibility.Found{}
	}
	found := eligibility.Found{
		Evidence:  entry.evidence,
		Tier:      eligibility.TierLocal,
		Untrusted: s.redis != nil && !s.hearing.trusts(entry.confirmed.UnixNano(), now.UnixNano(), s.maxAge),
	}
	if found.Untrusted {
		s.metrics.localUntrusted.Inc()
	} else {
		s.metrics.localHit.Inc()
	}
	return found
}

// held is what the local tier says about key where Redis says nothing.
func (s *Store) held(key eligibility.Key) eligibility.Found {
	entry, held := s.local.get(key)
	now := s.now()
	if !held || fromFuture(entry.evidence, now) {
		return eligibility.Found{}
	}
	return eligibility.Found{
		Evidence:  entry.evidence,
		Tier:      eligibility.TierLocal,
		Untrusted: s.redis != nil && !within(int64(now.Sub(entry.confirmed)), s.maxAge),
	}
}

// Load implements eligibility.Store. It waits for Redis no longer than the
// read timeout, and a moment for look-ups under way to share a round trip.
func (s *Store) Load(ctx context.Context, keys []eligibility.Key) []eligibility.Found {
	founds := make([]eligibility.Found, len(keys))
	var shared []*eligibility.Evidence
	asked := s.now()
	if s.redis != nil {
		held := make([]*eligibility.Evidence, len(keys))
		for i, key := range keys {
			entry, _ := s.local.get(key)
			held[i] = entry.evidence
		}
		loading, span := startSpan(ctx, "load", len(keys))
		shared = s.redis.load(loading, keys, held)
		endLoad(span, shared)
	}
	now := s.now()
	for i, key := range keys {
		if i < len(shared) && shared[i] != nil {
			kept := s.local.keep(key, shared[i], asked, now)
			if kept != nil && kept.FetchTime.Equal(shared[i].FetchTime) {
				founds[i] = eligibility.Found{Evidence: kept, Tier: eligibility.TierRedis}
				continue
			}
		}
		founds[i] = s.held(key)
	}
	return founds
}

// LoadWithin implements eligibility.Store.
func (s *Store) LoadWithin(ctx context.Context, keys []eligibility.Key) []eligibility.Found {
	return s.Load(ctx, keys)
}

// Keep implements eligibility.Store.
func (s *Store) Keep(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	return s.local.keep(key, evidence, evidence.FetchTime, s.now())
}

// Share implements eligibility.Store. It waits for Redis no longer than the
// write timeout; what Redis does not take is offered again by Run.
func (s *Store) Share(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time) {
	if s.redis == nil {
		return
	}
	ctx, span := startSpan(ctx, "share", 1)
	defer span.End()
	taken := s.redis.share(ctx, key, evidence, keepUntil, s.leases.letGo(key))
	s.ledger.note(key, evidence, keepUntil, taken)
	s.leases.wake(announcement{key: key, evidence: evidence})
}
