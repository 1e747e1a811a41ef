package pcclient

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
)

const (
	// earlyRefresh is how long before its end a token is renewed while it
	// still serves; a shorter-lived token in the last quarter of its life.
	earlyRefresh = 5 * time.Minute
	// tokenTimeout bounds one renewal, replays included. It belongs to no caller.
	tokenTimeout = 10 * time.Second
	// fruitlessBurst renewals may cure nothing at once, then one in each
	// fruitlessEvery.
	fruitlessBurst = 5
	fruitlessEvery = 10 * time.Second
	// tokenPause is how long the login host is left alone after it refused a
	// request, and after an early renewal that failed.
	tokenPause = 30 * time.Second
	// loopPause is the same after AADSTS50196 without a Retry-After.
	loopPause = 5 * time.Minute
)

// accessToken is one token and its life. The zero value is none.
type accessToken struct {
	value  string
	endsAt time.Time
	early  pause // until it is renewed ahead of time
}

// serves reports whether the token can be used. If the clock was set back, it
// may have ended: then Partner Center refuses it, and it is replaced.
func (t accessToken) serves(now time.Time) bool { return t.value != "" && now.Before(t.endsAt) }

// tokens hands out access tokens. One renewal at a time serves any number of
// waiters, each of which leaves with its own context; a token that still serves
// keeps nobody waiting.
type tokens struct {
	login      *login
	breaker    *breaker.Breaker // of renewals
	now        func() time.Time
	log        *zap.Logger
	metrics    *metrics
	notices    *notices
	conditions *conditions

	open      context.Context //nolint:containedctx // the client's own life, no caller's: ends renewals when it is closed
	closeOpen context.CancelFunc
	running   sync.WaitGroup // renewals; added to under mu while open goes on

	mu      sync.Mutex
	current accessToken // guarded by mu
	renewal *renewal    // under way, or nil; guarded by mu
	refused *APIError   // the last refusal; answers while pause lasts; guarded by mu
	// pause begins with a refusal, a Retry-After or an early renewal that
	// failed. The login host is not asked while it lasts. Guarded by mu.
	pause pause
	// unstored is set while the newest refresh token is in memory only, and
	// storeAgain is the pause before the next try to store it. Guarded by mu.
	unstored   bool
	storeAgain pause
	storing    bool // a try is in flight; guarded by mu
	// fruitless bounds the renewals after a 401 that cure nothing: the login
	// host punishes loops (AADSTS50196), but one customer's or one moment's
	// 401 must not keep all others from a new token. Guarded by mu.
	fruitless *rate.Limiter
}

// renewal is one token request. granted and fail are written before done is
// closed and read after.
type renewal struct {
	permit  breaker.Permit
	done    chan struct{}
	granted grant
	fail    *APIError
}

// get returns a token that serves. If there is none, it waits for a renewal,
// unless the circuit breaker is open or the renewal is its probe: callers then
// have usable evidence to answer with, or may ask again.
func (t *tokens) get(ctx context.Context) (accessToken, *APIError) {
	token, waiting, fail := t.start(ctx)
	if waiting == nil {
		return token, fail
	}
	select {
	case <-waiting.done:
		if waiting.fail != nil {
			fail := *waiting.fail // each caller adds its own call to it
			return accessToken{}, &fail
		}
		return waiting.granted.access, nil
	case <-ctx.Done():
		return accessToken{}, transportFailure(ctx, OpToken, ctx.Err())
	}
}

// start returns the current token, or a renewal to wait for, which it starts
// if there is none, or why there is neither.
func (t *tokens) start(ctx context.Context) (accessToken, *renewal, *APIError) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	left := t.pause.left(now)
	if token := t.current; token.serves(now) {
		if token.early.left(now) == 0 && left == 0 {
			t.renew(ctx)
		}
		t.store(now)
		return token, nil, nil
	}
	if fail := t.refusal(left); fail != nil {
		return accessToken{}, nil, fail
	}
	retryAfter := t.renew(ctx)
	if t.renewal == nil || t.renewal.permit.Probe() {
		t.metrics.refusals.WithLabelValues(string(ReasonBreaker)).Inc()
		return accessToken{}, nil, &APIError{Op: OpToken, Class: ClassUnavailable, Reason: ReasonBreaker, RetryAfter: max(retryAfter, firstBreak)}
	}
	return accessToken{}, t.renewal, nil
}

// refusal returns the last refusal while the pause that it began lasts, of which so
// much is left; nil if there is none. t.mu is held.
func (t *tokens) refusal(left time.Duration) *APIError {
	if t.refused == nil || left <= 0 {
		return nil
	}
	fail := *t.refused
	if fail.RetryAfter > 0 {
		fail.RetryAfter = left
	}
	return &fail
}

// replace forgets a token that Partner Center refused, and reports whether
// another may cure that: not after several that were fetched for this reason in
// a short while have cured nothing.
func (t *tokens) replace(refused accessToken) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.value != refused.value {
		return true
	}
	if t.fruitless.TokensAt(t.now()) < 1 {
		return false
	}
	t.current = accessToken{}
	return true
}

// renewalWasFruitless notes that a new token was refused as well.
func (t *tokens) renewalWasFruitless() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fruitless.AllowN(t.now(), 1)
}

// renew starts a renewal unless one is in flight. It keeps ctx's values and not
// its end. If the circuit breaker is open, it starts none and returns how long
// to wait. t.mu is held.
func (t *tokens) renew(ctx context.Context) (retryAfter time.Duration) {
	if t.renewal != nil {
		return 0
	}
	permit, retryAfter, ok := t.breaker.Allow()
	if !ok {
		return retryAfter
	}
	r := &renewal{permit: permit, done: make(chan struct{})}
	t.renewal = r
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenTimeout)
	if t.open.Err() != nil {
		cancel() // ends it before it has begun
	}
	stop := context.AfterFunc(t.open, cancel)
	t.running.Go(func() {
		defer cancel()
		defer stop()
		r.granted, r.fail = t.login.token(ctx, permit.Probe())
		t.complete(r)
		t.metrics.token(r.fail)
		t.report(r.fail)
		close(r.done)
	})
	return 0
}

// store starts to store the refresh token again if it is time to. t.mu is held.
func (t *tokens) store(now time.Time) {
	if !t.unstored || t.storeAgain.left(now) > 0 || t.storing || t.renewal != nil || t.open.Err() != nil {
		return
	}
	t.storing = true
	t.running.Go(func() {
		stored := t.login.refreshToken.keepAgain(t.open)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.storing = false
		t.stored(stored)
	})
}

// stored records whether a restart would find the newest refresh token.
// t.mu is held.
func (t *tokens) stored(ok bool) {
	t.conditions.stored(ok)
	t.unstored, t.storeAgain = !ok, pause{}
	if !ok {
		t.storeAgain = pause{t.now(), storePause}
	}
}

// close ends the renewals under way and waits for them.
func (t *tokens) close() {
	t.mu.Lock()
	t.closeOpen()
	t.mu.Unlock()
	t.running.Wait()
}

// complete records the result of a renewal.
func (t *tokens) complete(r *renewal) {
	switch {
	case r.fail != nil && r.fail.Reason == ReasonCanceled:
		r.permit.Cancel()
	case r.fail != nil && (r.fail.Class == ClassUnavailable || r.fail.Class == ClassInvalidResponse):
		r.permit.Fail()
	default:
		r.permit.Succeed()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewal, t.refused, t.pause = nil, nil, pause{}
	switch {
	case r.fail == nil:
		t.current = r.granted.access
		t.stored(!r.granted.unkept)
	case r.fail.Class == ClassCredentials:
		t.refused, t.pause = r.fail, pause{t.now(), refusalPause(r.fail)}
	case r.fail.RetryAfter > 0:
		t.refused, t.pause = r.fail, pause{t.now(), r.fail.RetryAfter}
	case t.current.serves(t.now()):
		t.pause = pause{t.now(), tokenPause}
	}
	t.conditions.renewed(r.fail, t.current.serves(t.now()))
	paused := t.pause
	t.metrics.loginPaused.Store(&paused)
}

// report logs what people have to do about a failed renewal. Callers may not
// notice it, because the cache answers them for a while.
func (t *tokens) report(fail *APIError) {
	if fail == nil {
		t.notices.over(OpToken)
		return
	}
	if !t.notices.due(notice{OpToken, fail.Reason, advice(fail)}) {
		return
	}
	log := t.log.Warn
	if fail.Class == ClassCredentials {
		log = t.log.Error
	}
	log(advice(fail), zap.String("reason", string(fail.Reason)), zap.Int("status", fail.Status),
		zap.String("login_error", fail.Code), zap.Ints("aadsts", fail.aadsts), zap.Error(fail.Err))
}
