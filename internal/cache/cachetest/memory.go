package cachetest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Memory is the plainest evidence.Store: what every other is measured by.
// It is one map, which both tiers are, and forgets nothing.
type Memory struct {
	now func() time.Time

	mu    sync.Mutex
	held  map[eligibility.Key]*eligibility.Evidence  // guarded by mu
	pasts map[eligibility.CustomerID][]evidence.Past // oldest first; guarded by mu
}

var _ evidence.Store = (*Memory)(nil)

// NewMemory returns an empty one that goes by the clock now.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, held: make(map[eligibility.Key]*eligibility.Evidence), pasts: make(map[eligibility.CustomerID][]evidence.Past)}
}

// believed is as far ahead as another machine's clock may be.
const believed = time.Second

// Peek implements evidence.Store.
func (m *Memory) Peek(key eligibility.Key, now time.Time) evidence.Found {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peek(key, now)
}

// PeekBoth implements evidence.Store.
func (m *Memory) PeekBoth(id eligibility.CustomerID, now time.Time) (account, qualifications evidence.Found) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peek(eligibility.Key{CustomerID: id}, now), m.peek(eligibility.Key{CustomerID: id, Facet: eligibility.FacetQualifications}, now)
}

// PeekAll implements evidence.Store.
func (m *Memory) PeekAll(ids []eligibility.CustomerID, now time.Time, founds *[evidence.PeekAtOnce][2]evidence.Found) {
	for i, id := range ids {
		founds[i][0], founds[i][1] = m.PeekBoth(id, now)
	}
}

// peek is Peek. The lock is held.
func (m *Memory) peek(key eligibility.Key, now time.Time) evidence.Found {
	if held := m.held[key]; held != nil && !held.FetchTime.After(now.Add(believed)) {
		return evidence.Found{Evidence: held, Tier: eligibility.TierLocal}
	}
	return evidence.Found{}
}

// Load implements evidence.Store.
func (m *Memory) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	founds := make([]evidence.Found, len(keys))
	for i, key := range keys {
		founds[i] = m.Peek(key, m.now())
	}
	return founds
}

// LoadWithin implements evidence.Store.
func (m *Memory) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return m.Load(ctx, keys)
}

// Acquire implements evidence.Store: there is one replica.
func (m *Memory) Acquire(context.Context, evidence.Claim) evidence.Acquisition {
	return evidence.Acquisition{}
}

// Put implements evidence.Store.
func (m *Memory) Put(key eligibility.Key, fetched *eligibility.Evidence) *eligibility.Evidence {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.peek(key, m.now()).Evidence
	if newest != nil && !newest.FetchTime.Before(fetched.FetchTime) {
		return newest
	}
	m.held[key] = fetched
	past := evidence.Past{Evidence: fetched}
	switch {
	case fetched.FetchTime.After(m.now().Add(believed)):
		return fetched
	case newest != nil:
		past.PreviousTime = newest.FetchTime
	}
	if newest == nil || !newest.SameFacts(fetched) {
		m.pasts[key.CustomerID] = append(m.pasts[key.CustomerID], past)
		return fetched
	}
	for i, past := range slices.Backward(m.pasts[key.CustomerID]) {
		if past.Evidence.Facet == key.Facet {
			m.pasts[key.CustomerID][i].ConfirmedTime = fetched.FetchTime
			break
		}
	}
	return fetched
}

// History implements evidence.Store.
func (m *Memory) History(_ context.Context, id eligibility.CustomerID) ([]evidence.Past, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pasts := slices.Clone(m.pasts[id])
	slices.SortStableFunc(pasts, func(a, b evidence.Past) int { return b.Evidence.FetchTime.Compare(a.Evidence.FetchTime) })
	count := make(map[eligibility.Facet]int)
	return slices.DeleteFunc(pasts, func(past evidence.Past) bool {
		count[past.Evidence.Facet]++
		return count[past.Evidence.Facet] > 50
	}), nil
}

// Share implements evidence.Store.
func (m *Memory) Share(_ context.Context, key eligibility.Key, evidence *eligibility.Evidence, _ time.Time) {
	m.Put(key, evidence)
}

// Release implements evidence.Store.
func (m *Memory) Release(context.Context, eligibility.Key, error) {}
