package evidence

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// inflightModel drives an inflight by hand: run only queues, and the test begins
// and finishes the fetches.
type inflightModel struct {
	now      time.Time
	closed   bool
	inflight *inflight
	running  []*fetch             // given to run and not finished
	dated    map[*fetch]time.Time // bound.dated when run was called
	begun    map[*fetch]time.Time
	callers  map[*fetch][]fetchRequest // who joined before begin, by fetch
	late     map[*fetch][]fetchRequest // those who joined after begin
}

func newInflightModel() *inflightModel {
	m := &inflightModel{
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), dated: map[*fetch]time.Time{}, begun: map[*fetch]time.Time{},
		callers: map[*fetch][]fetchRequest{}, late: map[*fetch][]fetchRequest{},
	}
	m.inflight = newInflight(func(f *fetch) bool {
		if m.closed {
			return false
		}
		m.running = append(m.running, f)
		m.dated[f] = f.bound.dated
		return true
	}, func() {})
	return m
}

// start joins or starts a fetch and checks that it serves the caller.
func (m *inflightModel) start(rt *rapid.T) {
	moment := func(label string) time.Time {
		return m.now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(rt, label)))
	}
	enough := rapid.Bool().Draw(rt, "enough")
	r := fetchRequest{
		Key:    eligibility.Key{CustomerID: eligibility.CustomerID{rapid.SampledFrom([]byte{0, 1}).Draw(rt, "customer")}},
		bound:  recency{started: moment("started"), dated: moment("dated")},
		lane:   rapid.SampledFrom([]Lane{LaneSpare, LaneBatch, LaneCheckout}).Draw(rt, "level"),
		enough: func() bool { return enough },
	}
	current := m.current(r.Key)
	busy, start := current != nil, m.begun[current]
	f := m.inflight.start(rt.Context(), r)
	switch {
	case f == nil && (busy || !enough):
		rt.Fatal("no fetch, although one is in flight or needed")
	case f == nil:
		return
	case !busy && enough:
		rt.Fatal("a fetch that is not needed")
	case !start.IsZero() && !start.Before(r.bound.started) && f != current:
		rt.Fatal("a fetch that began late enough is not shared")
	case f.priority.Lane() < r.lane:
		rt.Fatalf("priority %d, want at least %d", f.priority.Lane(), r.lane)
	}
	if _, begun := m.begun[f]; begun {
		m.late[f] = append(m.late[f], r)
	} else {
		m.callers[f] = append(m.callers[f], r)
	}
}

func (m *inflightModel) current(key eligibility.Key) *fetch {
	for _, f := range m.running {
		if f.key == key {
			return f
		}
	}
	return nil
}

// begin begins the fetch at place i of those that run, unless it has begun.
func (m *inflightModel) begin(i int) {
	f := m.running[i]
	if _, begun := m.begun[f]; !begun {
		m.begun[f] = m.inflight.begin(f, func() time.Time { return m.now })
	}
}

// finish finishes the fetch at place i of those that run, and checks that the
// result satisfies its callers.
func (m *inflightModel) finish(rt *rapid.T, i int) {
	f := m.running[i]
	m.running = append(m.running[:i:i], m.running[i+1:]...)
	m.inflight.finish(f, result{}, m.now)
	start, here := m.begun[f]
	for _, r := range append(m.callers[f], m.late[f]...) {
		if here && start.Before(r.bound.started) {
			rt.Fatalf("started %v, want %v or later", start, r.bound.started)
		}
		if !here && m.dated[f].Before(r.bound.dated) {
			rt.Fatalf("another replica's result may be of %v, want %v or later", m.dated[f], r.bound.dated)
		}
	}
	keys := make(map[eligibility.Key]bool)
	for _, f := range m.running {
		if keys[f.key] {
			rt.Fatal("two fetches of one key run at the same time")
		}
		keys[f.key] = true
	}
}

func TestInflightServesEveryCaller(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := newInflightModel()
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			step := rapid.IntRange(0, 9).Draw(rt, "step")
			switch {
			case step < 5:
				m.start(rt)
			case step == 5:
				m.now = m.now.Add(1)
			case len(m.running) == 0:
			case step < 8:
				m.begin(rapid.IntRange(0, len(m.running)-1).Draw(rt, "which"))
			default:
				m.finish(rt, rapid.IntRange(0, len(m.running)-1).Draw(rt, "which"))
			}
		}
		m.closed = rapid.Bool().Draw(rt, "closed")
		for len(m.running) > 0 {
			m.finish(rt, 0)
		}
		for f := range m.callers {
			select {
			case <-f.finished():
			default:
				rt.Fatal("a fetch never finishes")
			}
		}
		for i := range m.inflight.shards {
			if n := len(m.inflight.shards[i].fetches); n > 0 {
				rt.Fatalf("%d keys are not idle although every fetch has finished", n)
			}
		}
	})
}

// Callers who need a later start share the fetch that waits.
func TestInflightHoldsAtMostTwoFetchesOfAKey(t *testing.T) {
	t.Parallel()
	m := newInflightModel()
	got := make(map[*fetch]int)
	for range 10 {
		f := m.inflight.start(t.Context(), fetchRequest{bound: recency{started: m.now, dated: m.now}, enough: func() bool { return false }})
		got[f]++
		m.begin(0)
		m.now = m.now.Add(1)
	}
	if len(got) != 2 || len(m.running) != 1 {
		t.Errorf("%d fetches, %d of them run; want 2 and 1", len(got), len(m.running))
	}
}
