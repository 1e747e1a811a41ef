package pcclient

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBudgetWait is the longest that a request waits for the own budget. A
// queue that is longer is better told to come back.
const maxBudgetWait = time.Second

// throttle is where every request to Partner Center asks whether it may go:
// the pause that a 429 imposes on the whole process, and the own budget. A
// circuit breaker, or a lane that lets interactive requests go first, belongs
// here and nowhere else.
type throttle struct {
	now func() time.Time

	mu     sync.Mutex
	until  time.Time     // end of the pause; guarded by mu
	bucket *rate.Limiter // reserved and cancelled under mu, so that a refusal takes nothing
}

func newThrottle(now func() time.Time, perMinute int) *throttle {
	limit := rate.Limit(float64(perMinute) / time.Minute.Seconds())
	return &throttle{now: now, bucket: rate.NewLimiter(limit, max(1, perMinute/10))}
}

// pause stops all requests for a while. A running pause is never shortened.
func (t *throttle) pause(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if until := t.now().Add(d); until.After(t.until) {
		t.until = until
	}
}

// paused returns how much of the pause is left.
func (t *throttle) paused() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.until.Sub(t.now()), 0)
}

// charge takes requests that were already made from the budget.
func (t *throttle) charge(requests int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bucket.ReserveN(t.now(), requests)
}

// take takes one request from the budget, waiting for it if the wait is short
// and ctx leaves the time. Otherwise it takes nothing and returns the wait.
func (t *throttle) take(ctx context.Context) (wait time.Duration, ok bool) {
	t.mu.Lock()
	now := t.now()
	reservation := t.bucket.ReserveN(now, 1)
	wait = reservation.DelayFrom(now)
	if wait > maxBudgetWait || wait > 0 && !timeFor(ctx, wait) {
		reservation.CancelAt(now)
		t.mu.Unlock()
		return wait, false
	}
	t.mu.Unlock()
	if !sleep(ctx, wait) {
		t.mu.Lock()
		reservation.CancelAt(t.now())
		t.mu.Unlock()
		return wait, false
	}
	return 0, true
}
