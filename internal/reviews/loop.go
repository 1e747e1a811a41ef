package reviews

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// interval is how often a replica looks for reviews that are due, and
	// repairTicks after how many looks it also looks for lost ones.
	interval    = time.Second
	repairTicks = 60
	// After maxFailures in a row, or one without a call, a replica makes no reviews for
	// failurePause: Partner Center is unavailable, or refuses the credentials.
	maxFailures  = 3
	failurePause = 30 * time.Second
	// A review whose call failed is due again after retryPart of the time for which it
	// has been pending, within these bounds: sooner than if it had succeeded.
	retryPart          = 40
	minRetry, maxRetry = TakenFor, 15 * time.Minute
	// abandonAgain is when a review is due again that could not be abandoned.
	abandonAgain = time.Hour
	// returnTimeout bounds what is left to do for a review when the service stops.
	returnTimeout = time.Second
)

// Config tunes a [Loop]. Its zero value is the documented default.
type Config struct {
	// GiveUpAfter is after what time under review a customer is no longer checked; 0
	// means 720 h.
	GiveUpAfter time.Duration
	// Logger records panics; nil means none.
	Logger *zap.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Loop makes this replica's part of the reviews.
type Loop struct {
	service *evidence.Service
	list    List
	giveUp  time.Duration
	logger  *zap.Logger
	metrics *metrics

	running sync.WaitGroup // reviews under way
	ticks   int            // only Tick uses it

	mu       sync.Mutex
	failures int       // in a row; guarded by mu
	paused   time.Time // until when no review begins; guarded by mu
}

// New returns a Loop that fetches by service what is due on list. It fails only if a
// metric's name is taken.
func New(service *evidence.Service, list List, cfg Config) (*Loop, error) {
	if cfg.GiveUpAfter == 0 {
		cfg.GiveUpAfter = 720 * time.Hour
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	metrics, err := newMetrics(cfg.Registerer)
	return &Loop{service: service, list: list, giveUp: cfg.GiveUpAfter, logger: cfg.Logger, metrics: metrics}, err
}

// Run makes reviews until ctx ends, and waits for those under way, which it returns to
// the list. Call it once.
func (l *Loop) Run(ctx context.Context) error {
	defer l.running.Wait()
	// Replicas that start together do not look at the same moment.
	next := time.NewTimer(rand.N(interval)) //nolint:gosec // spreads load
	defer next.Stop()
	for {
		select {
		case <-next.C:
			next.Reset(interval)
			l.Tick(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// Tick begins the reviews that are due and for which the budget has room. Run calls it
// every second; so does a caller whose clock does not follow the real one. One goroutine
// calls it at a time.
func (l *Loop) Tick(ctx context.Context) {
	defer l.recovered()
	l.ticks++
	states, err := l.list.Look(ctx, l.ticks%repairTicks == 0)
	if err != nil {
		return // the list has reported it
	}
	l.metrics.observe(states)
	if l.isPaused() || !anyDue(states) {
		return
	}
	l.begin(ctx, l.list.Take(ctx, plan(states, l.service.ReviewRoom(ctx))))
}

// begin makes reviews in the background.
func (l *Loop) begin(ctx context.Context, all []Taken) {
	for _, taken := range all {
		l.running.Go(func() {
			defer l.recovered()
			l.review(ctx, taken)
		})
	}
}

func (l *Loop) recovered() {
	if r := recover(); r != nil { //nolint:revive // callers defer it
		l.logger.Error("reviews panicked", zap.Any("panic", r), zap.Stack("stack"))
	}
}

func anyDue(states []*State) bool {
	return slices.ContainsFunc(states, func(s *State) bool { return s != nil && s.Due > 0 })
}

// plan returns how many reviews to take from each partition, room in all: first from
// those whose reviews have been due for longest. Customers are spread evenly, so these
// have the others that have been due for longest, too.
func plan(states []*State, room int) []int {
	most := make([]int, len(states))
	order := rand.Perm(len(states)) //nolint:gosec // replicas begin with different ones of the same lateness
	order = slices.DeleteFunc(order, func(i int) bool { return states[i] == nil || states[i].Due == 0 })
	slices.SortStableFunc(order, func(a, b int) int { return int(states[b].Late - states[a].Late) })
	for left := room; left > 0; {
		before := left
		for _, i := range order {
			if left > 0 && most[i] < states[i].Due {
				most[i]++
				left--
			}
		}
		if left == before {
			break
		}
	}
	return most
}

// review makes one review.
func (l *Loop) review(ctx context.Context, taken Taken) {
	reviewed, err := l.service.Review(ctx, taken.Key)
	// The rest of the work on it is done even if the service stops.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), returnTimeout)
	defer cancel()
	if err != nil {
		l.failed(ctx, taken, err)
		return
	}
	l.mu.Lock()
	l.failures = 0
	l.mu.Unlock()
	if !reviewed.UnderReview {
		l.metrics.ended.Inc()
		return // the write of the evidence has removed it from the list
	}
	l.metrics.pending.Inc()
	if taken.Pending < l.giveUp {
		return // the write of the evidence has made it due later
	}
	abandoned, err := l.list.Abandon(ctx, taken, reviewed.Evidence)
	switch {
	case err != nil:
		_ = l.list.Reschedule(ctx, taken, taken.Until.Add(abandonAgain-TakenFor))
	case abandoned:
		l.metrics.abandoned.Inc()
	}
}

// failed decides when a review is due again that has failed. If Partner Center was
// not called, it keeps its place in the list: others must not overtake it.
func (l *Loop) failed(ctx context.Context, taken Taken, err error) {
	failure, _ := errors.AsType[*eligibility.Error](err)
	switch {
	case failure == nil || failure.Kind == eligibility.KindOverloaded: // the service stops
		_ = l.list.Reschedule(ctx, taken, taken.Due)
		return
	case failure.Call.Attempts == 0 && failure.Kind == eligibility.KindThrottled:
		l.metrics.refused.Inc()
		l.pause(min(failure.RetryAfter, failurePause))
		_ = l.list.Reschedule(ctx, taken, taken.Due)
		return
	}
	l.metrics.failed.Inc()
	switch {
	case failure.Kind == eligibility.KindInvalidResponse: // which concerns this customer only
	case failure.Call.Attempts == 0: // a call is known to be in vain
		l.pause(failurePause)
		_ = l.list.Reschedule(ctx, taken, taken.Due)
		return
	default:
		l.countFailure()
	}
	retry := min(max(taken.Pending/retryPart, minRetry), maxRetry)
	_ = l.list.Reschedule(ctx, taken, taken.Until.Add(retry-TakenFor))
}

func (l *Loop) countFailure() {
	l.mu.Lock()
	l.failures++
	reached := l.failures >= maxFailures
	l.mu.Unlock()
	if reached {
		l.pause(failurePause)
	}
}

// pause lets no review begin for d.
func (l *Loop) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.paused) {
		l.paused = until
	}
}

func (l *Loop) isPaused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.paused)
}
