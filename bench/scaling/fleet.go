package main

import (
	"context"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// sharedTier plays Redis for replicas whose clock runs a thousand times faster
// than its own: evidence expires by that clock, and announcements arrive at
// once. TestThePlayedRedisIsAskedLikeARealOne holds it to a real one.
type sharedTier struct {
	now         func() time.Time
	localMaxAge time.Duration

	mu       sync.Mutex
	values   map[eligibility.Key]sharedValue // guarded by mu
	replicas []*replica
	reads    int // look-ups, each one round trip; guarded by mu
}

type sharedValue struct {
	evidence  *eligibility.Evidence
	keepUntil time.Time
}

func newSharedTier(now func() time.Time) *sharedTier {
	return &sharedTier{now: now, localMaxAge: localMaxAge, values: make(map[eligibility.Key]sharedValue)}
}

// replica is a store of which the local tier is the real one.
type replica struct {
	*cache.Store

	shared    *sharedTier
	confirmed map[eligibility.Key]time.Time // guarded by shared.mu
}

var _ eligibility.Store = (*replica)(nil)

func (t *sharedTier) join(local *cache.Store) *replica {
	r := &replica{Store: local, shared: t, confirmed: make(map[eligibility.Key]time.Time)}
	t.replicas = append(t.replicas, r)
	return r
}

// value returns what is there and usable. The lock is held.
func (t *sharedTier) value(key eligibility.Key) *eligibility.Evidence {
	if value, held := t.values[key]; held && t.now().Before(value.keepUntil) {
		return value.evidence
	}
	return nil
}

// Peek implements eligibility.Store.
func (r *replica) Peek(key eligibility.Key, now time.Time) eligibility.Found {
	found := r.Store.Peek(key, now)
	if found.Evidence == nil {
		return found
	}
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	found.Untrusted = r.shared.now().Sub(r.confirmed[key]) >= r.shared.localMaxAge
	return found
}

// Load implements eligibility.Store.
func (r *replica) Load(_ context.Context, keys []eligibility.Key) []eligibility.Found {
	r.shared.mu.Lock()
	r.shared.reads++
	r.shared.mu.Unlock()
	founds := make([]eligibility.Found, len(keys))
	for i, key := range keys {
		if founds[i].Evidence = r.take(key); founds[i].Evidence == nil {
			founds[i] = r.Peek(key, r.shared.now())
			continue
		}
		founds[i].Tier = eligibility.TierRedis
	}
	return founds
}

// LoadWithin implements eligibility.Store.
func (r *replica) LoadWithin(ctx context.Context, keys []eligibility.Key) []eligibility.Found {
	return r.Load(ctx, keys)
}

// take holds here what the shared tier has, if anything.
func (r *replica) take(key eligibility.Key) *eligibility.Evidence {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	evidence := r.shared.value(key)
	if evidence == nil {
		return nil
	}
	r.confirmed[key] = r.shared.now()
	return r.Store.Keep(key, evidence)
}

// Lead implements eligibility.Store. Nobody else is fetching: a check ends
// before the next begins.
func (r *replica) Lead(_ context.Context, claim eligibility.Claim) eligibility.Lead {
	if evidence := r.take(claim.Key); evidence != nil && !evidence.FetchTime.Before(claim.NotBefore) {
		return eligibility.Lead{Evidence: evidence}
	}
	return eligibility.Lead{}
}

// Keep implements eligibility.Store.
func (r *replica) Keep(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	if r.confirmed[key].Before(evidence.FetchTime) {
		r.confirmed[key] = evidence.FetchTime
	}
	return r.Store.Keep(key, evidence)
}

// Share implements eligibility.Store. Replicas that hold the key replace it.
func (r *replica) Share(_ context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time) {
	t := r.shared
	t.mu.Lock()
	defer t.mu.Unlock()
	t.values[key] = sharedValue{evidence: evidence, keepUntil: keepUntil}
	for _, other := range t.replicas {
		if other != r && other.Store.Peek(key, t.now()).Evidence != nil {
			other.Store.Keep(key, evidence)
			other.confirmed[key] = t.now()
		}
	}
}

// Yield implements eligibility.Store.
func (r *replica) Yield(context.Context, eligibility.Key, error) {}
