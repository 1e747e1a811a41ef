package pcclient

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// maxBudgetWait is the longest that a request in LaneCheckout waits for the
	// own budget. A caller behind a longer queue does better to come back.
	maxBudgetWait = time.Second
	// firstPenalty bounds what is added to the second Retry-After in a row;
	// to each further one up to twice as much.
	firstPenalty = 5 * time.Second
)

// throttle admits every request to Partner Center: it keeps the pause that a
// 429 imposes on the whole process, and the own budget. Each lane leaves a part
// of the burst to the lanes above it, so no request queues behind a lower lane.
type throttle struct {
	now func() time.Time
	// reserve is how many requests of the burst a lane leaves to those above.
	reserve map[evidence.Lane]float64

	mu      sync.Mutex
	pause   pause         // after a 429; guarded by mu
	strikes int           // 429s in a row, those within one pause counted once; guarded by mu
	bucket  *rate.Limiter // reserved and cancelled under mu, so that a refusal takes nothing
}

func newThrottle(now func() time.Time, perMinute int) *throttle {
	limit := rate.Limit(float64(perMinute) / time.Minute.Seconds())
	burst := max(1, perMinute/10)
	return &throttle{now: now, bucket: rate.NewLimiter(limit, burst), reserve: map[evidence.Lane]float64{
		evidence.LaneBatch:    float64(burst / 2),
		evidence.LanePrefetch: float64(burst / 2),
		evidence.LaneRefresh:  float64(burst / 2),
		evidence.LaneReview:   float64(burst * 3 / 4),
		// Spare requests leave a whole fetch of an account, replays included.
		// A smaller burst than that is never theirs.
		evidence.LaneSpare: float64(max(burst*3/4, maxAttempts)),
	}}
}

// throttled starts the pause that a 429 asked for and returns how long it is. A
// running pause is never shortened. If a 429 comes right after a pause, waiting was
// not enough: then the pause grows exponentially, with full jitter.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/api-throttling-guidance
// (read 2026-11-21)
func (t *throttle) throttled(asked time.Duration) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	left := t.pause.left(now)
	if left == 0 {
		t.strikes++
		if t.strikes > 1 {
			asked = min(asked+rand.N(firstPenalty<<min(t.strikes-2, 7)), maxRetryAfter) //nolint:gosec // spreads load, keeps no secret
		}
	}
	if asked <= left {
		return left
	}
	t.pause = pause{now, asked}
	// Nothing is saved up for the end of the pause: a burst would meet the end
	// of the limit's window, and all of it another 429.
	until := now.Add(asked)
	t.bucket.ReserveN(until, max(0, int(t.bucket.TokensAt(until))))
	return asked
}

// budgetTime is now, or the end of the pause until which the bucket does not
// fill. t.mu is held.
func (t *throttle) budgetTime() time.Time {
	now := t.now()
	return now.Add(t.pause.left(now))
}

// answered notes that Partner Center answered without throttling.
func (t *throttle) answered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pause.left(t.now()) == 0 {
		t.strikes = 0
	}
}

// paused returns how much of the pause is left.
func (t *throttle) paused() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pause.left(t.now())
}

// charge takes requests that were already made from the budget.
func (t *throttle) charge(requests int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bucket.ReserveN(t.budgetTime(), requests)
}

// take takes one request from the budget. In LaneCheckout it waits for it if the
// wait is short and ctx leaves the time. In a lower lane it waits as long as ctx
// does, or until the lane rises, unless atOnce is set. If take fails, it has
// taken nothing and returns the wait.
func (t *throttle) take(ctx context.Context, priority *evidence.Priority, atOnce bool) (wait time.Duration, ok bool) {
	for {
		lane, raised := priority.Watch()
		if lane == evidence.LaneCheckout {
			return t.takeReserved(ctx)
		}
		wait = t.takeLeft(lane)
		if wait == 0 {
			return 0, true
		}
		if atOnce || !timeFor(ctx, wait) {
			return wait, false
		}
		select {
		case <-time.After(wait):
		case <-raised:
		case <-ctx.Done():
			return wait, false
		}
	}
}

func (t *throttle) takeReserved(ctx context.Context) (wait time.Duration, ok bool) {
	t.mu.Lock()
	at := t.budgetTime()
	reservation := t.bucket.ReserveN(at, 1)
	wait = reservation.DelayFrom(t.now())
	if wait > maxBudgetWait || wait > 0 && !timeFor(ctx, wait) {
		reservation.CancelAt(at)
		t.mu.Unlock()
		return wait, false
	}
	t.mu.Unlock()
	if !sleep(ctx, wait) {
		t.mu.Lock()
		reservation.CancelAt(t.budgetTime())
		t.mu.Unlock()
		return wait, false
	}
	return 0, true
}

// takeLeft takes one request if that leaves the reserve of the lane untouched.
// Otherwise it returns how long until it can; if it never can, the longest wait.
func (t *throttle) takeLeft(lane evidence.Lane) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, needed := t.budgetTime(), t.reserve[lane]+1
	if needed > float64(t.bucket.Burst()) {
		return maxRetryAfter
	}
	missing := needed - t.bucket.TokensAt(at)
	if missing <= 0 && t.bucket.AllowN(at, 1) {
		return 0
	}
	return max(time.Duration(missing/float64(t.bucket.Limit())*float64(time.Second)), time.Millisecond)
}

// room returns how many requests of lane the budget would admit within d if no
// other lane took any.
func (t *throttle) room(lane evidence.Lane, d time.Duration) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	d -= t.pause.left(t.now())
	if d <= 0 || t.reserve[lane]+1 > float64(t.bucket.Burst()) {
		return 0
	}
	left := t.bucket.TokensAt(t.budgetTime()) - t.reserve[lane] + d.Seconds()*float64(t.bucket.Limit())
	return max(int(left), 0)
}
