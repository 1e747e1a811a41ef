package cache

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/auth"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/identity"
)

const (
	// entraInterval is how often the current token is asked for. The SDK keeps it
	// until five minutes before its end, so that a new one is known at least four
	// minutes before.
	entraInterval = 30 * time.Second
	// entraRetry is the pause after the first failure while there is no valid
	// token. It doubles up to entraInterval.
	entraRetry = time.Second
	// entraLeast is the least pause after a success, if tokens have a short life.
	entraLeast = 100 * time.Millisecond
	// entraConnectionLife is the life of connections that cannot be authenticated
	// again: it ends before the token of the youngest of them.
	entraConnectionLife = 4 * time.Minute

	// faultToken is the kind of a fault that no token of the identity caused.
	faultToken = "token"
)

// errNoToken means that a connection was not opened, because there is no token to
// authenticate it with.
var errNoToken = errors.New("no valid Entra ID token")

// entra authenticates connections by tokens of the service's identity. It never
// makes a connection wait: Run fetches the tokens. Connections that are open are
// authenticated again with each new token.
//
// Source: https://learn.microsoft.com/en-us/azure/redis/entra-for-authentication#microsoft-entra-client-workflow
// (read 2026-11-28)
type entra struct {
	tokens    *identity.Tokens
	condition *health.Component
	tried     chan struct{} // closed when Run has tried to fetch the first token

	mu        sync.Mutex
	current   identity.Token                        // guarded by mu
	listeners map[auth.CredentialsListener]struct{} // of open connections; guarded by mu
}

var _ auth.StreamingCredentialsProvider = (*entra)(nil)

func newEntra(tokens *identity.Tokens) *entra {
	return &entra{tokens: tokens, condition: health.New(nil), tried: make(chan struct{}), listeners: map[auth.CredentialsListener]struct{}{}}
}

// Subscribe implements auth.StreamingCredentialsProvider.
func (e *entra) Subscribe(listener auth.CredentialsListener) (auth.Credentials, auth.UnsubscribeFunc, error) { //nolint:ireturn // the interface wants it
	e.mu.Lock()
	defer e.mu.Unlock()
	if !time.Now().Before(e.current.Expires) {
		return nil, nil, errNoToken
	}
	e.listeners[listener] = struct{}{}
	return credentials(e.current), func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.listeners, listener)
		return nil
	}, nil
}

// user returns the credentials for a connection that is not authenticated again.
func (e *entra) user(context.Context) (name, password string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !time.Now().Before(e.current.Expires) {
		return "", "", errNoToken
	}
	return e.current.User, e.current.Value, nil
}

func credentials(token identity.Token) auth.Credentials { //nolint:ireturn // the library has no type for it
	return auth.NewBasicCredentials(token.User, token.Value)
}

// run fetches tokens until ctx ends.
func (e *entra) run(ctx context.Context, logger *zap.Logger) {
	retry, failure := entraRetry, ""
	for wait := time.Duration(0); pause(ctx, wait); {
		left, err := e.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			// Tokens of a short life are asked for more often.
			wait, retry = min(entraInterval, max(left/8, entraLeast)), entraRetry
			if failure != "" {
				logger.Info("entra id token for redis fetched")
			}
			failure = ""
			e.condition.OK()
			continue
		case left > 0:
			wait = min(entraInterval, left)
			e.condition.Degraded(faultToken)
		default:
			wait, retry = retry, min(2*retry, entraInterval)
			e.condition.Failed(faultToken)
		}
		if err.Error() != failure {
			failure = err.Error()
			logger.Warn("no entra id token for redis; open connections stay in use until theirs ends", zap.Duration("left", max(left, 0)), zap.Error(err))
		}
	}
}

// renew asks for the current token, and passes a new one on. It returns what is
// left of the life of the one in use.
func (e *entra) renew(ctx context.Context) (left time.Duration, err error) {
	token, err := e.tokens.Get(ctx)
	if err == nil && !time.Now().Before(token.Expires) {
		err = errNoToken // what the endpoint says, or our clock, is wrong
	}
	e.mu.Lock()
	var inform []auth.CredentialsListener
	if err == nil && token.Value != e.current.Value {
		e.current = token
		inform = slices.Collect(maps.Keys(e.listeners))
	}
	left = time.Until(e.current.Expires)
	e.mu.Unlock()
	for _, listener := range inform {
		listener.OnNext(credentials(token))
	}
	select {
	case <-e.tried:
	default:
		close(e.tried)
	}
	return left, err
}

// authenticate makes a client use e. go-redis can authenticate open connections
// again if the client is for one server or for a cluster. If it is for sentinels,
// connections are short-lived.
func (e *entra) authenticate(options *redis.UniversalOptions, mode RedisMode) {
	if mode == RedisSentinel {
		e.connectOnly(options)
		return
	}
	options.StreamingCredentialsProvider = e
}

// connectOnly makes a client use e for connections that are not authenticated
// again.
func (e *entra) connectOnly(options *redis.UniversalOptions) {
	options.CredentialsProviderContext = e.user
	options.ConnMaxLifetime = entraConnectionLife
}

// Run keeps the credentials of the connections valid until ctx ends.
func (c *Connections) Run(ctx context.Context, logger *zap.Logger) error {
	if c.entra == nil {
		return nil
	}
	c.entra.run(ctx, logger)
	return nil
}

// awaitToken waits until the first token was asked for, or until ctx ends.
func (c *Connections) awaitToken(ctx context.Context) {
	if c.entra == nil {
		return
	}
	select {
	case <-c.entra.tried:
	case <-ctx.Done():
	}
}

// TokenHealth returns how the identity of the connections fares: Unknown if they
// have a password. It does not block.
func (c *Connections) TokenHealth() health.Condition {
	if c.entra == nil {
		return health.Condition{}
	}
	return c.entra.condition.Read()
}
