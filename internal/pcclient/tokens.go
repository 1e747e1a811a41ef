package pcclient

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
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
	// loopPause is the same after it complained of too many requests.
	loopPause = 5 * time.Minute
)

// accessToken is one token and its life. The zero value is none.
type accessToken struct {
	value   string
	renewAt time.Time
	endsAt  time.Time
}

// tokens hands out access tokens. One renewal at a time serves any number of
// waiters, each of which leaves with its own context; a token that still serves
// keeps nobody waiting.
type tokens struct {
	login   *login
	now     func() time.Time
	log     *zap.Logger
	metrics *metrics
	notices *notices

	open      context.Context //nolint:containedctx // the client's own life, no caller's: ends renewals when it is closed
	closeOpen context.CancelFunc
	running   sync.WaitGroup // renewals; added to under mu while open goes on

	mu      sync.Mutex
	current accessToken // guarded by mu
	renewal *renewal    // under way, or nil; guarded by mu
	refused *APIError   // the last refusal; answers until askAgain; guarded by mu
	// askAgain is when the login host may be asked again after a refusal or
	// an early renewal that failed. Guarded by mu.
	askAgain time.Time
	// keepAgain is when a refresh token that is in memory only is stored again;
	// zero where there is none. Guarded by mu.
	keepAgain time.Time
	keeping   bool // that is under way; guarded by mu
	// fruitless bounds the renewals after a 401 that cure nothing: the login
	// host punishes loops (AADSTS50196), but one customer's or one moment's
	// 401 must not keep all others from a new token. Guarded by mu.
	fruitless *rate.Limiter
}

// renewal is one token request. granted and fail are written before done is
// closed and read after.
type renewal struct {
	done    chan struct{}
	granted grant
	fail    *APIError
}

// get returns a token that serves, waiting for a renewal if there is none.
func (t *tokens) get(ctx context.Context) (accessToken, *APIError) {
	t.mu.Lock()
	now := t.now()
	if t.current.value != "" && now.Before(t.current.endsAt) {
		token := t.current
		if !now.Before(token.renewAt) && t.renewal == nil && !now.Before(t.askAgain) {
			t.renew(ctx)
		}
		t.keep(now)
		t.mu.Unlock()
		return token, nil
	}
	if t.refused != nil && now.Before(t.askAgain) {
		fail := *t.refused
		if fail.RetryAfter > 0 {
			fail.RetryAfter = t.askAgain.Sub(now)
		}
		t.mu.Unlock()
		return accessToken{}, &fail
	}
	if t.renewal == nil {
		t.renew(ctx)
	}
	waiting := t.renewal
	t.mu.Unlock()
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

// renew starts a renewal, which keeps ctx's values and not its end. t.mu is held.
func (t *tokens) renew(ctx context.Context) {
	r := &renewal{done: make(chan struct{})}
	t.renewal = r
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenTimeout)
	if t.open.Err() != nil {
		cancel() // ends it before it has begun
	}
	stop := context.AfterFunc(t.open, cancel)
	t.running.Go(func() {
		defer cancel()
		defer stop()
		r.granted, r.fail = t.login.token(ctx)
		t.settle(r)
		close(r.done)
	})
}

// keep starts to store the refresh token again if it is time to. t.mu is held.
func (t *tokens) keep(now time.Time) {
	if t.keepAgain.IsZero() || now.Before(t.keepAgain) || t.keeping || t.renewal != nil || t.open.Err() != nil {
		return
	}
	t.keeping = true
	t.running.Go(func() {
		kept := t.login.refreshToken.keepAgain(t.open)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.keeping = false
		t.kept(kept)
	})
}

// kept notes whether the newest refresh token is where a restart finds it. t.mu
// is held.
func (t *tokens) kept(kept bool) {
	t.keepAgain = time.Time{}
	if !kept {
		t.keepAgain = t.now().Add(storePause)
	}
}

// close ends the renewals under way and waits for them.
func (t *tokens) close() {
	t.mu.Lock()
	t.closeOpen()
	t.mu.Unlock()
	t.running.Wait()
}

// settle takes the result of a renewal.
func (t *tokens) settle(r *renewal) {
	t.metrics.token(r.fail)
	t.tell(r.fail)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.renewal, t.refused, t.askAgain = nil, nil, time.Time{}
	defer func() { t.metrics.loginPause(t.askAgain) }()
	if r.fail == nil {
		t.current = r.granted.access
		t.kept(!r.granted.unkept)
		return
	}
	switch pause := max(r.fail.RetryAfter, r.fail.pause); {
	case r.fail.Class == ClassCredentials:
		t.refused, t.askAgain = r.fail, t.now().Add(max(pause, tokenPause))
	case pause > 0:
		t.refused, t.askAgain = r.fail, t.now().Add(pause)
	case t.current.value != "":
		t.askAgain = t.now().Add(tokenPause)
	}
}

// tell says what a failed renewal asks people to do, although nobody may have
// noticed it: callers are answered from the cache for a while.
func (t *tokens) tell(fail *APIError) {
	if fail == nil {
		t.notices.over(OpToken)
		return
	}
	if !t.notices.due(notice{OpToken, fail.Reason, fail.Code}) {
		return
	}
	log := t.log.Warn
	if fail.Class == ClassCredentials {
		log = t.log.Error
	}
	log(advice(fail.Reason), zap.String("reason", string(fail.Reason)), zap.Int("status", fail.Status),
		zap.String("login_error", fail.Code), zap.Ints("aadsts", fail.aadsts), zap.Error(fail.Err))
}
