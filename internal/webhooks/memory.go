package webhooks

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory is a Store within the process, for a service without Redis. Its contents are
// lost with the process. Make it with [NewMemory].
type Memory struct {
	mu       sync.Mutex
	webhooks map[string]*memory // guarded by mu
}

type memory struct {
	holder       string
	state        []byte
	oldest       time.Time
	parked, dead map[string]Record
	dropped      int64
}

var _ Store = (*Memory)(nil)

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{webhooks: make(map[string]*memory)} }

// of returns the state of a webhook. m.mu must be held.
func (m *Memory) of(name string) *memory {
	w := m.webhooks[name]
	if w == nil {
		w = &memory{parked: make(map[string]Record), dead: make(map[string]Record)}
		m.webhooks[name] = w
	}
	return w
}

// Acquire implements Store. A lease does not expire, since its holder lives as long as
// the process.
func (m *Memory) Acquire(_ context.Context, name, holder string, _ time.Duration, oldest time.Time) (Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.of(name)
	if w.holder == "" || w.holder == holder {
		w.holder, w.oldest = holder, oldest
	}
	return w.status(holder), nil
}

// Inspect implements Store.
func (m *Memory) Inspect(_ context.Context, name string) (Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.of(name).status(""), nil
}

func (w *memory) status(holder string) Status {
	return Status{
		Held: holder != "" && w.holder == holder, Holder: w.holder, State: w.state, Oldest: w.oldest,
		Parked: int64(len(w.parked)), Dead: int64(len(w.dead)), Dropped: w.dropped,
	}
}

// Release implements Store.
func (m *Memory) Release(_ context.Context, name, holder string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.of(name); w.holder == holder {
		w.holder = ""
	}
	return nil
}

// Commit implements Store.
func (m *Memory) Commit(_ context.Context, name, holder string, commit Commit) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.of(name)
	if w.holder != holder {
		return ErrNotHeld
	}
	w.state = commit.State
	for _, id := range commit.Remove {
		delete(w.parked, id)
		delete(w.dead, id)
	}
	for _, record := range commit.Park {
		w.parked[record.ID] = record
	}
	for _, record := range commit.Bury {
		delete(w.parked, record.ID)
		w.dead[record.ID] = record
	}
	for len(w.dead) > MaxDead {
		oldest := slices.MinFunc(slices.Collect(maps.Values(w.dead)), func(a, b Record) int { return cmp.Compare(a.Order, b.Order) })
		delete(w.dead, oldest.ID)
		w.dropped++
	}
	return nil
}

// Parked implements Store.
func (m *Memory) Parked(_ context.Context, name string) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.of(name).parked)), nil
}
