package pcclient

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

const (
	// storeTimeout bounds what one visit to the store may take.
	storeTimeout = 5 * time.Second
	// storePause is how long after a failure storing is tried again.
	storePause = time.Minute

	// opStore names the storing of a refresh token among notices.
	opStore Op = "refresh_token_store"
)

// refreshToken is the refresh token in use, and what is known of its store.
// Whoever has the turn may use it.
type refreshToken struct {
	store   tokenStore
	now     func() time.Time
	log     *zap.Logger
	metrics *metrics
	notices *notices
	turn    chan struct{} // holds one value while somebody has the turn

	held     storedToken // what the store held when it was last read or written
	unstored storedToken // a newer one that could not be stored
}

func newRefreshToken(store tokenStore, cfg Config, metrics *metrics, notices *notices) *refreshToken {
	return &refreshToken{
		store: store, now: cfg.Now, log: cfg.Logger, metrics: metrics, notices: notices, turn: make(chan struct{}, 1),
	}
}

// take waits for the turn, and reports false if ctx ends first.
func (r *refreshToken) take(ctx context.Context) bool {
	select {
	case r.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// give ends the turn.
func (r *refreshToken) give() { <-r.turn }

// read returns the token to use: the stored one, or the one in memory for as
// long as nobody else has stored another or the store gives none.
func (r *refreshToken) read(ctx context.Context) (string, error) {
	stored, err := r.load(ctx)
	switch {
	case err == nil && (r.unstored.value == "" || stored.value != r.held.value):
		r.use(stored, storedToken{})
	case err != nil && r.inUse().value == "":
		return "", err
	}
	return r.inUse().value, nil
}

// another returns what is stored if that is another token than the one that
// was refused: a replica may have rotated it since, or somebody consented.
func (r *refreshToken) another(ctx context.Context, refused string) (token string, ok bool) {
	stored, err := r.load(ctx)
	if err != nil || stored.value == refused {
		return "", false
	}
	r.use(stored, storedToken{})
	return stored.value, true
}

func (r *refreshToken) load(ctx context.Context) (storedToken, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return r.store.load(ctx)
}

// needsSomebody reports whether an error of a store is one that does not pass.
func needsSomebody(err error) bool {
	return errors.Is(err, ErrNoRefreshToken) || errors.Is(err, ErrRefreshTokenStore)
}

// use notes what is in the store, and what would be there if it could.
func (r *refreshToken) use(held, unstored storedToken) {
	r.held, r.unstored = held, unstored
	r.metrics.refreshToken(r.inUse().born)
}

func (r *refreshToken) inUse() storedToken {
	if r.unstored.value != "" {
		return r.unstored
	}
	return r.held
}

// keep stores the token that the next renewal uses, unless somebody else has
// stored another meanwhile, and reports whether the store has the newest. Where
// it cannot be stored it is kept in memory, and that is an alert: after a
// restart it would be lost. What cannot be seen is not replaced: it may be
// newer. It takes its own time, as nobody can be granted the token again.
func (r *refreshToken) keep(ctx context.Context, token string) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	stored, err := r.store.load(ctx)
	if err == nil && (stored.value == token || stored.value != r.held.value) {
		r.use(stored, storedToken{})
		r.metrics.stored(true)
		r.notices.over(opStore)
		return true
	}
	newest := storedToken{token, r.now()}
	if old := r.inUse(); old.value == token {
		newest = old // the login host did not rotate it
	}
	if err == nil || errors.Is(err, ErrNoRefreshToken) {
		err = r.store.save(ctx, token)
	}
	if err != nil {
		r.use(r.held, newest)
		r.metrics.stored(false)
		if r.notices.due(notice{opStore, ReasonRefreshTokenStore, ""}) {
			r.log.Error("rotated refresh token is kept in memory only: let the service write to its store, the directory of partner_center.refresh_token_file or the vault, before a restart",
				zap.Error(err))
		}
		return false
	}
	r.use(newest, storedToken{})
	r.metrics.stored(true)
	r.notices.over(opStore)
	return true
}

// keepAgain tries to store what could not be stored, and reports whether the
// store has the newest.
func (r *refreshToken) keepAgain(ctx context.Context) bool {
	if !r.take(ctx) {
		return false
	}
	defer r.give()
	return r.unstored.value == "" || r.keep(ctx, r.unstored.value)
}
