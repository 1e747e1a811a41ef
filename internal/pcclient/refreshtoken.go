package pcclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

const (
	// storeTimeout bounds one operation on the store.
	storeTimeout = 5 * time.Second
	// storePause is how long after a failure the store is retried.
	storePause = time.Minute

	// opStore names the storing of a refresh token among notices.
	opStore Op = "refresh_token_store"
)

// RefreshTokenLife is how long a refresh token works after it was handed out.
// Each renewal brings a new one; nobody can configure it.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/refresh-tokens
// (read 2026-11-21)
const RefreshTokenLife = 90 * 24 * time.Hour

// RefreshToken returns since when a refresh token is stored; the zero time if
// the store does not record it. It returns tokenstore.ErrNone,
// tokenstore.ErrUnreadable or identity.ErrRefused if somebody must act, and another
// error if the store cannot be reached now. It takes 5 s at most. With FlowAppOnly
// there is no refresh token, and no error.
func (c *Client) RefreshToken(ctx context.Context) (since time.Time, err error) {
	if c.tokens.login.refreshToken == nil {
		return time.Time{}, nil
	}
	stored, err := c.tokens.login.refreshToken.load(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("partner center: %w", err)
	}
	return stored.Stored, nil
}

// refreshToken is the refresh token in use, and a copy of what its store holds.
// Only the goroutine that has the turn may use it.
type refreshToken struct {
	store   tokenstore.Store
	now     func() time.Time
	log     *zap.Logger
	metrics *metrics
	notices *notices
	turn    chan struct{} // full while a goroutine has the turn

	held     tokenstore.Token // what the store held when it was last read or written
	unstored tokenstore.Token // a newer one that could not be stored
}

func newRefreshToken(store tokenstore.Store, cfg Config, metrics *metrics, notices *notices) *refreshToken {
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

// read returns the token to use: the one in memory if it could not be stored and
// the store has not changed since, or if the store fails; else the stored one.
func (r *refreshToken) read(ctx context.Context) (string, error) {
	stored, err := r.load(ctx)
	switch {
	case err == nil && (r.unstored.Value == "" || stored.Value != r.held.Value):
		r.use(stored, tokenstore.Token{})
	case err != nil && r.inUse().Value == "":
		return "", err
	}
	return r.inUse().Value, nil
}

// another returns the stored token if it is not the one that was refused: a
// replica may have rotated it since, or somebody consented.
func (r *refreshToken) another(ctx context.Context, refused string) (token string, ok bool) {
	stored, err := r.load(ctx)
	if err != nil || stored.Value == refused {
		return "", false
	}
	r.use(stored, tokenstore.Token{})
	return stored.Value, true
}

func (r *refreshToken) load(ctx context.Context) (tokenstore.Token, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return r.store.Load(ctx)
}

// needsSomebody reports whether an error of a store lasts until somebody acts.
func needsSomebody(err error) bool {
	return errors.Is(err, tokenstore.ErrNone) || errors.Is(err, tokenstore.ErrUnreadable) || errors.Is(err, identity.ErrRefused)
}

// use records what the store holds, and the newer token that it could not store.
func (r *refreshToken) use(held, unstored tokenstore.Token) {
	r.held, r.unstored = held, unstored
	r.metrics.refreshToken(r.inUse().Stored)
}

func (r *refreshToken) inUse() tokenstore.Token {
	if r.unstored.Value != "" {
		return r.unstored
	}
	return r.held
}

// keep stores the token that the next renewal uses, unless the store has changed
// since it was read, and reports whether the store has the newest token. If it
// cannot be stored, it is kept in memory and an error is logged: a restart would
// lose it. If the store cannot be read, it is not written: it may hold a newer
// token. keep ignores the end of ctx, as the token is granted only once.
func (r *refreshToken) keep(ctx context.Context, token string) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	stored, err := r.store.Load(ctx)
	if err == nil && (stored.Value == token || stored.Value != r.held.Value) {
		r.use(stored, tokenstore.Token{})
		r.metrics.stored(true)
		r.notices.over(opStore)
		return true
	}
	newest := tokenstore.Token{Value: token, Stored: r.now()}
	if old := r.inUse(); old.Value == token {
		newest = old // the login host did not rotate it
	}
	if err == nil || errors.Is(err, tokenstore.ErrNone) {
		err = r.store.Save(ctx, token)
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
	r.use(newest, tokenstore.Token{})
	r.metrics.stored(true)
	r.notices.over(opStore)
	return true
}

// keepAgain retries a token that could not be stored, and reports whether the
// store has the newest token.
func (r *refreshToken) keepAgain(ctx context.Context) bool {
	if !r.take(ctx) {
		return false
	}
	defer r.give()
	return r.unstored.Value == "" || r.keep(ctx, r.unstored.Value)
}
