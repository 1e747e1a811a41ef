package access

import (
	"context"
	"errors"
	"time"

	"golang.org/x/time/rate"
)

// NewWithClock is New with clocks of a test: the time of day, and time that passes.
func NewWithClock(cfg Config, now func() time.Time, elapsed func() time.Duration) (*Authenticator, error) {
	return newAuthenticator(cfg, clock{now: now, elapsed: elapsed})
}

// CauseOf returns the cause of a failed authentication.
func CauseOf(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return string(f.cause)
	}
	return ""
}

// Verified counts the tokens that are remembered.
func (a *Authenticator) Verified() int {
	n := 0
	for i := range a.verified.shards {
		n += len(a.verified.shards[i].tokens)
	}
	return n
}

// FetchKeys fetches an issuer's keys once, as Run does, and what people sign in with.
func (a *Authenticator) FetchKeys(ctx context.Context, issuer string) error {
	source := a.issuers[issuer].keys
	began := source.clock.elapsed()
	err := source.renew(ctx, began)
	if source.provides {
		_ = source.provide(ctx)
	}
	return err
}

// Wanted reports whether a fetch of an issuer's keys is asked for, and withdraws it.
func (a *Authenticator) Wanted(issuer string) bool {
	select {
	case <-a.issuers[issuer].keys.wanted:
		return true
	default:
		return false
	}
}

// RunKeys runs the loop that keeps an issuer's keys current, with fetch in place of HTTP.
func (a *Authenticator) RunKeys(ctx context.Context, issuer string, fetch func() error) error {
	source := a.issuers[issuer].keys
	source.fetch = func(context.Context) ([]*key, error) { return nil, fetch() }
	return source.run(ctx)
}

// PermitExchanges lifts the limit of sign-ins.
func (o *OpenID) PermitExchanges() { o.exchanges.SetLimit(rate.Inf) }
