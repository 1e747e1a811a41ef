package evidence_test

import (
	"context"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// fetchFunc is a Source made of one function.
type fetchFunc func(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error)

func (f fetchFunc) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	return f(ctx, query)
}

func (f fetchFunc) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (fetchFunc) Obstacles(context.Context) []evidence.Obstacle { return nil }

// scripted is a Source that gives each facet's current answer and counts.
type scripted struct {
	mu      sync.Mutex
	account outcome
	held    outcome
	fetches map[eligibility.Facet]int
}

type outcome struct {
	evidence eligibility.Evidence
	err      error
	latency  time.Duration
}

func (s *scripted) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	facet := query.Facet
	s.mu.Lock()
	if s.fetches == nil {
		s.fetches = make(map[eligibility.Facet]int)
	}
	s.fetches[facet]++
	out := s.account
	if facet == eligibility.FacetQualifications {
		out = s.held
	}
	s.mu.Unlock()
	query.Started()
	if out.latency > 0 {
		select {
		case <-time.After(out.latency):
		case <-ctx.Done():
			return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindUnavailable, Err: ctx.Err()}
		}
	}
	return out.evidence, eligibility.Call{Attempts: 1}, out.err
}

func (s *scripted) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*scripted) Obstacles(context.Context) []evidence.Obstacle { return nil }

func (s *scripted) set(account, held outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.account, s.held = account, held
}

func (s *scripted) count(facet eligibility.Facet) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches[facet]
}

// memory is the plainest Store: one map, no shared tier.
type memory struct {
	mu             sync.Mutex
	held           map[eligibility.Key]*eligibility.Evidence
	shared         map[eligibility.Key]*eligibility.Evidence
	mustRevalidate bool
	ahead          int // customers that PeekAll looked up
	loads          int
}

func newMemory() *memory {
	return &memory{
		held:   make(map[eligibility.Key]*eligibility.Evidence),
		shared: make(map[eligibility.Key]*eligibility.Evidence),
	}
}

func (m *memory) Peek(key eligibility.Key, _ time.Time) evidence.Found {
	m.mu.Lock()
	defer m.mu.Unlock()
	return evidence.Found{Evidence: m.held[key], Tier: eligibility.TierLocal, MustRevalidate: m.mustRevalidate}
}

func (m *memory) PeekBoth(id eligibility.CustomerID, now time.Time) (account, qualifications evidence.Found) {
	return peekBoth(m, id, now)
}

func (m *memory) PeekAll(ids []eligibility.CustomerID, now time.Time, founds *[evidence.PeekAtOnce][2]evidence.Found) {
	m.mu.Lock()
	m.ahead += len(ids)
	m.mu.Unlock()
	for i, id := range ids {
		founds[i][0], founds[i][1] = peekBoth(m, id, now)
	}
}

// peekBoth looks at one facet after the other.
func peekBoth(store interface {
	Peek(key eligibility.Key, now time.Time) evidence.Found
}, id eligibility.CustomerID, now time.Time,
) (account, qualifications evidence.Found) {
	return store.Peek(eligibility.Key{CustomerID: id}, now), store.Peek(eligibility.Key{CustomerID: id, Facet: eligibility.FacetQualifications}, now)
}

func (m *memory) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	m.mu.Lock()
	m.loads++
	m.mu.Unlock()
	founds := make([]evidence.Found, len(keys))
	for i, key := range keys {
		founds[i] = m.Peek(key, time.Time{})
		m.mu.Lock()
		if shared := m.shared[key]; shared != nil {
			founds[i] = evidence.Found{Evidence: shared, Tier: eligibility.TierRedis}
			if old := m.held[key]; old != nil && old.FetchTime.Before(shared.FetchTime) {
				m.held[key] = shared
			}
		}
		m.mu.Unlock()
	}
	return founds
}

func (m *memory) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return m.Load(ctx, keys)
}

func (m *memory) Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	m.mu.Lock()
	defer m.mu.Unlock()
	// As the cache does: of two fetches in a millisecond, the stricter counts.
	if old := m.held[key]; old == nil || old.FetchTime.Before(evidence.FetchTime) ||
		old.FetchTime.Equal(evidence.FetchTime) && old.Status == eligibility.AccountStatusAllowed && evidence.Status == eligibility.AccountStatusNotAllowed {
		m.held[key] = evidence
	}
	return m.held[key]
}

func (m *memory) Acquire(context.Context, evidence.Claim) evidence.Acquisition {
	return evidence.Acquisition{}
}

func (m *memory) Release(context.Context, eligibility.Key, error) {}

func (m *memory) Share(context.Context, eligibility.Key, *eligibility.Evidence, time.Time) {}

func (m *memory) History(context.Context, eligibility.CustomerID) ([]evidence.Past, error) {
	return nil, nil
}

// slowMemory has a slow shared tier.
type slowMemory struct {
	*memory
	delay sync.Mutex
	wait  time.Duration // guarded by delay
}

func (m *slowMemory) Load(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	founds := m.memory.Load(ctx, keys)
	m.delay.Lock()
	wait := m.wait
	m.delay.Unlock()
	if wait > 0 {
		time.Sleep(wait)
	}
	return founds
}

func status(s eligibility.AccountStatus) outcome {
	return outcome{evidence: eligibility.Evidence{Status: s}}
}

func holding(qualifications ...eligibility.Qualification) outcome {
	return outcome{evidence: eligibility.Evidence{Qualifications: qualifications}}
}

func failing(kind eligibility.Kind) outcome {
	return outcome{err: &eligibility.Error{Kind: kind}}
}

func absent(absence eligibility.Absence) outcome {
	return outcome{evidence: eligibility.Evidence{Absence: absence}}
}

func (o outcome) after(latency time.Duration) outcome {
	o.latency = latency
	return o
}

func qualification(kind eligibility.QualificationType, vetting eligibility.VettingStatus) eligibility.Qualification {
	return eligibility.Qualification{Type: kind, VettingStatus: vetting}
}

var customer = eligibility.CustomerID{1, 2, 3}

// serve runs a Service on source and store until the test ends. In a synctest
// bubble, call stop before the bubble ends.
func serve(t *testing.T, source evidence.Source, store evidence.Store, cfg evidence.Config) (service *evidence.Service, stop func()) {
	t.Helper()
	service, err := evidence.New(source, store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := service.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	return service, func() {
		cancel()
		<-ended
	}
}

// result is a batch's answer to one question.
type result struct {
	answer eligibility.Answer
	err    error
}

// checkBatch returns the answers of a batch, in the order of its questions.
func checkBatch(ctx context.Context, service *evidence.Service, reqs []eligibility.Request) []result {
	results := make([]result, len(reqs))
	service.CheckBatch(ctx, reqs, func(place int, answer *eligibility.Answer, err error) {
		results[place] = result{answer: *answer, err: err}
	})
	return results
}
