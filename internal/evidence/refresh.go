package evidence

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// maxRefreshes bounds the early refreshes in flight, and maxScheduled those
	// that are scheduled.
	maxRefreshes = 16
	maxScheduled = 1 << 16
)

// refreshes are the early refreshes of this process. Evidence that a question
// used in the last half of its fresh age is renewed in the last fifth of it, so
// that the callers after its end need not wait. Every replica that was asked
// schedules that, each for a moment of its own. The first to come to it calls
// Partner Center; the others then have the newer evidence, or find it in Redis.
type refreshes struct {
	wake chan struct{} // buffered; wakes Run if something may be due earlier

	mu        sync.Mutex
	scheduled refreshHeap // guarded by mu
	inFlight  int         // guarded by mu
}

// refresh is an early refresh that is scheduled.
type refresh struct {
	due      time.Time // on the monotonic clock
	key      eligibility.Key
	evidence *eligibility.Evidence
	noticing trace.Span // of the check that scheduled it; nil unless it is traced
}

// refreshEarly schedules the renewal of the view's fresh evidence in the last half
// of its fresh age, once, if the decision needs it. Nobody waits for qualifications
// that no decision needs, before or after the end of their fresh age; and wrong IDs
// must not spend the budget.
func (s *Service) refreshEarly(ctx context.Context, c *check, v *view, now time.Time) {
	evidence := v.Evidence
	if v == &c.qualifications && c.req.Segment == eligibility.SegmentCommercial ||
		now.UnixNano()-evidence.FetchTime.UnixNano() < v.Lifetime.FreshUntil.UnixNano()-now.UnixNano() ||
		evidence.Refreshing() || evidence.Absence != eligibility.AbsenceNone {
		return
	}
	fresh := v.Lifetime.FreshUntil.Sub(evidence.FetchTime)
	r := &s.refreshes
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.scheduled) == maxScheduled || !evidence.StartRefreshing() {
		return
	}
	// The last twentieth is left to the fetch.
	at := evidence.FetchTime.Add(fresh/5*4 + rand.N(fresh/20*3+1)) //nolint:gosec // spreads load, keeps no secret
	next := &refresh{due: now.Add(max(at.Sub(now), 0)), key: v.key, evidence: evidence}
	if span := trace.SpanFromContext(ctx); span.SpanContext().IsSampled() {
		next.noticing = span
	}
	heap.Push(&r.scheduled, next)
	if r.scheduled[0] == next {
		r.wakeUp()
	}
}

func (r *refreshes) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// next removes and returns a refresh that is due, if another may be in flight;
// or nil and, if one is scheduled, how long until it is due.
func (r *refreshes) next(now time.Time) (due *refresh, wait time.Duration, scheduled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.scheduled) == 0 || r.inFlight == maxRefreshes {
		return nil, 0, false
	}
	if wait = r.scheduled[0].due.Sub(now); wait > 0 {
		return nil, wait, true
	}
	r.inFlight++
	return heap.Pop(&r.scheduled).(*refresh), 0, false //nolint:forcetypeassert // it has no other elements
}

// ended makes room for another refresh in flight.
func (r *refreshes) ended() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inFlight--
	r.wakeUp()
}

// refreshAll starts early refreshes when they are due, until ctx ends.
func (s *Service) refreshAll(ctx context.Context) {
	for ctx.Err() == nil {
		wait, scheduled := s.RefreshDue()
		var due <-chan time.Time
		if scheduled {
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-s.refreshes.wake:
		case <-ctx.Done():
		}
	}
}

// RefreshDue starts the early refreshes that are due, and returns the time until
// the next one if one is scheduled and may start. Run calls it; so does a caller
// whose clock does not follow the real one.
func (s *Service) RefreshDue() (wait time.Duration, scheduled bool) {
	for {
		now := s.now()
		due, wait, scheduled := s.refreshes.next(now)
		if due == nil {
			return wait, scheduled
		}
		if !s.isCurrent(due, now) || !s.spawn(func() { s.refresh(due) }) {
			s.refreshes.ended()
		}
	}
}

// isCurrent reports whether a refresh is still worth its call: this process holds
// the evidence and nothing newer, and the evidence is fresh. It may not be, if the
// machine slept or the clock was set.
func (s *Service) isCurrent(r *refresh, now time.Time) bool {
	return s.store.Peek(r.key, now).Evidence == r.evidence &&
		now.Before(s.ages.LifetimeOf(r.key, r.evidence, s.policy, eligibility.OperationPurchase, now).FreshUntil)
}

// refresh renews evidence unless another replica has done so.
func (s *Service) refresh(r *refresh) {
	defer s.refreshes.ended()
	ctx, span := startRenewal(r.noticing, r.key)
	defer span.End()
	newer := r.evidence.FetchTime.Add(1)
	f := s.inflight.start(ctx, fetchRequest{
		Key: r.key, bound: recency{started: newer, dated: newer}, lane: LaneRefresh,
		enough: func() bool {
			held := s.store.Peek(r.key, s.now()).Evidence
			return held != nil && held.FetchTime.After(r.evidence.FetchTime)
		},
	})
	if f != nil {
		<-f.done
	}
}

// refreshHeap has the refresh that is due first at its head.
type refreshHeap []*refresh

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (h *refreshHeap) Len() int           { return len(*h) }
func (h *refreshHeap) Less(i, j int) bool { return (*h)[i].due.Before((*h)[j].due) }
func (h *refreshHeap) Swap(i, j int)      { (*h)[i], (*h)[j] = (*h)[j], (*h)[i] }

// Push appends a *refresh.
func (h *refreshHeap) Push(r any) { *h = append(*h, r.(*refresh)) } //nolint:forcetypeassert // it has no other elements

// Pop removes the last *refresh.
func (h *refreshHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last], *h = nil, (*h)[:last]
	return r
}
