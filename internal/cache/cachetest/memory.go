package cachetest

import (
	"context"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Memory is the plainest eligibility.Store: what every other is measured by.
// It is one map, which both tiers are, and forgets nothing.
type Memory struct {
	now func() time.Time

	mu   sync.Mutex
	held map[eligibility.Key]*eligibility.Evidence // guarded by mu
}

var _ eligibility.Store = (*Memory)(nil)

// NewMemory returns an empty one that goes by the clock now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, held: make(map[eligibility.Key]*eligibility.Evidence)}
}

// believed is as far ahead as another machine's clock may be.
const believed = time.Second

// Peek implements eligibility.Store.
func (m *Memory) Peek(key eligibility.Key, now time.Time) eligibility.Found {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peek(key, now)
}

// peek is Peek for who has the lock.
func (m *Memory) peek(key eligibility.Key, now time.Time) eligibility.Found {
	if evidence := m.held[key]; evidence != nil && !evidence.FetchTime.After(now.Add(believed)) {
		return eligibility.Found{Evidence: evidence, Tier: eligibility.TierLocal}
	}
	return eligibility.Found{}
}

// Load implements eligibility.Store.
func (m *Memory) Load(_ context.Context, keys []eligibility.Key) []eligibility.Found {
	founds := make([]eligibility.Found, len(keys))
	for i, key := range keys {
		founds[i] = m.Peek(key, m.now())
	}
	return founds
}

// LoadWithin implements eligibility.Store.
func (m *Memory) LoadWithin(ctx context.Context, keys []eligibility.Key) []eligibility.Found {
	return m.Load(ctx, keys)
}

// Lead implements eligibility.Store: there is one replica.
func (m *Memory) Lead(context.Context, eligibility.Claim) eligibility.Lead { return eligibility.Lead{} }

// Keep implements eligibility.Store.
func (m *Memory) Keep(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	m.mu.Lock()
	defer m.mu.Unlock()
	if newest := m.peek(key, m.now()).Evidence; newest != nil && !newest.FetchTime.Before(evidence.FetchTime) {
		return newest
	}
	m.held[key] = evidence
	return evidence
}

// Share implements eligibility.Store.
func (m *Memory) Share(_ context.Context, key eligibility.Key, evidence *eligibility.Evidence, _ time.Time) {
	m.Keep(key, evidence)
}

// Yield implements eligibility.Store.
func (m *Memory) Yield(context.Context, eligibility.Key, error) {}
