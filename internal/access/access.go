// Package access authenticates callers: by client certificate, static token or JWT.
// It knows neither gRPC nor HTTP, and never returns or logs a token.
package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/reload"
)

// Caller is an authenticated sender of requests, and what it may do. It is never
// changed.
type Caller struct {
	// Name identifies the caller in logs, metrics, limits and records.
	Name   string
	Rights Rights
	// Partners are the partners that the caller may ask about; nil means all.
	Partners []string
	// Person is the user of the console for whom the caller asks; empty for others.
	Person string
}

// Anonymous is every caller of a service that authenticates none. It may do all.
var Anonymous = &Caller{Name: "anonymous", Rights: AllRights} //nolint:gochecknoglobals // never changed

// MayUse reports whether the caller may ask about a partner.
func (c *Caller) MayUse(partner string) bool {
	return c.Partners == nil || slices.Contains(c.Partners, partner)
}

// Credentials are what a caller presents with a request.
type Credentials struct {
	// Authorization holds the values of the header of that name.
	Authorization []string
	// Certificate is the caller's verified certificate; nil if it presented none.
	Certificate *Certificate
}

// Config configures an [Authenticator]. Without certificates, tokens and issuers,
// every caller is [Anonymous].
type Config struct {
	Certificates []CertificateCaller
	// TokensFile has the static tokens; empty if there are none.
	TokensFile string
	JWT        []Issuer
	// Callers holds rights and partners by the caller's name.
	Callers map[string]Grant
	// Logger is required.
	Logger *zap.Logger
	// Registerer collects the metrics; nil if nobody does.
	Registerer prometheus.Registerer
}

// CertificateCaller is a caller that presents a client certificate with one of these
// subject alternative names.
type CertificateCaller struct{ Caller, URI, DNS string }

// Grant is what a caller may do.
type Grant struct {
	// Rights are the rights of a caller with a certificate, or with a static token whose
	// entry names none.
	Rights []string
	// Partners are the partners that the caller may ask about, however it is
	// authenticated; nil means all.
	Partners []string
}

// Authenticator identifies callers. It is safe for concurrent use.
type Authenticator struct {
	enabled      bool
	certificates []namedCertificate
	tokens       *reload.Value[*tokenTable] // nil: there are none
	issuers      map[string]*issuer
	verified     verifiedTokens
	foreign      *rate.Limiter // tokens whose key is unknown and that are examined all the same
	metrics      *metrics
	clock        clock
}

// clock separates the time of day, which may be set, from time that passes.
type clock struct {
	now     func() time.Time
	elapsed func() time.Duration
}

// New builds an Authenticator. It reads the token file, and makes no connection.
func New(cfg Config) (*Authenticator, error) {
	start := time.Now()
	return newAuthenticator(cfg, clock{now: time.Now, elapsed: func() time.Duration { return time.Since(start) }})
}

func newAuthenticator(cfg Config, clock clock) (*Authenticator, error) {
	grants, err := parseGrants(cfg.Callers)
	if err != nil {
		return nil, err
	}
	a := &Authenticator{
		enabled: len(cfg.Certificates) > 0 || cfg.TokensFile != "" || len(cfg.JWT) > 0,
		issuers: map[string]*issuer{}, foreign: rate.NewLimiter(foreignPerSecond, foreignPerSecond), metrics: newMetrics(), clock: clock,
	}
	if a.certificates, err = nameCertificates(cfg.Certificates, grants); err != nil {
		return nil, err
	}
	for n, one := range cfg.JWT {
		i, err := newIssuer(one, a, grants, cfg.Logger)
		if err == nil && a.issuers[one.Issuer] != nil {
			err = errors.New("is given twice")
		}
		if err != nil {
			return nil, fmt.Errorf("issuer %d: %w", n+1, err)
		}
		a.issuers[one.Issuer] = i
	}
	if cfg.TokensFile != "" {
		if a.tokens, err = openTokens(cfg, grants, a); err != nil {
			return nil, err
		}
	}
	return a, a.metrics.register(cfg.Registerer, a)
}

// parseGrants returns a caller for each name.
func parseGrants(given map[string]Grant) (map[string]*Caller, error) {
	callers := map[string]*Caller{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		rights, err := parseRights(given[name].Rights)
		if err == nil {
			err = checkName(name)
		}
		if err != nil {
			return nil, fmt.Errorf("caller %q: %w", name, err)
		}
		callers[name] = &Caller{Name: name, Rights: rights, Partners: given[name].Partners}
	}
	return callers, nil
}

// checkName returns why name cannot name a caller.
func checkName(name string) error {
	switch {
	case !ValidName(name):
		return errors.New("the name must be 1 to 64 visible ASCII characters without quotes, commas and backslashes")
	case name == Anonymous.Name:
		return errors.New("the name is that of callers who are not authenticated")
	}
	return nil
}

func parseRights(words []string) (Rights, error) {
	var rights Rights
	for _, word := range words {
		right, known := ParseRight(word)
		if !known {
			return 0, errors.New("an unknown right; they are " + strings.Join(Words(), ", "))
		}
		rights |= right
	}
	return rights, nil
}

// Run fetches keys and reloads files until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if a.tokens != nil {
		group.Go(func() error { return a.tokens.Run(ctx) })
	}
	for _, i := range a.issuers {
		group.Go(func() error { return i.keys.run(ctx) })
	}
	<-ctx.Done()
	return group.Wait()
}

// AwaitKeys waits until the first fetch of each issuer's keys by Run has ended, and of its
// OpenID configuration if people sign in there, or ctx has. Before the keys have come, a
// token of the issuer is refused.
func (a *Authenticator) AwaitKeys(ctx context.Context) {
	for _, i := range a.issuers {
		select {
		case <-i.keys.tried:
		case <-ctx.Done():
		}
	}
}

// Components returns how each issuer fares, by the last fetch of its keys, in the order
// of their names: degraded if it failed, or if people sign in at the issuer and its
// OpenID configuration is not usable; failing if no key is valid either. The kind of
// an error is timeout or failed.
func (a *Authenticator) Components() []health.Source {
	var components []health.Source
	for _, name := range slices.Sorted(maps.Keys(a.issuers)) {
		components = append(components, health.Source{Name: "issuer", Issuer: name, Read: a.issuers[name].keys.condition.Read})
	}
	return components
}

// Reload makes Run read changed files at once.
func (a *Authenticator) Reload() {
	if a.tokens != nil {
		a.tokens.Reload()
	}
}

// Authenticate returns the caller who presents given. It makes no I/O. The error
// states the cause for the log, and holds no part of a token.
func (a *Authenticator) Authenticate(given Credentials) (*Caller, error) {
	if !a.enabled {
		return Anonymous, nil
	}
	caller, failure := a.identify(given)
	if failure != nil {
		a.metrics.failures.WithLabelValues(string(failure.cause)).Inc()
		return nil, failure
	}
	return caller, nil
}

// identify examines a certificate before a token: both must be valid, and the caller
// is the token's.
func (a *Authenticator) identify(given Credentials) (*Caller, *failure) {
	if given.Certificate != nil {
		if failure := given.Certificate.check(a.clock.now()); failure != nil {
			return nil, failure
		}
	}
	switch len(given.Authorization) {
	case 0:
	case 1:
		token, failure := bearer(given.Authorization[0])
		if failure != nil {
			return nil, failure
		}
		return a.bearer(token)
	default: // RFC 9110 permits one
		return nil, errSeveral
	}
	switch {
	case given.Certificate == nil:
		return nil, errNone
	case given.Certificate.failure != nil:
		return nil, given.Certificate.failure
	}
	return given.Certificate.caller, nil
}

// bearer returns the token of an authorization. The scheme has no case, and one or
// more blanks follow it (RFC 9110, section 11.4).
func bearer(authorization string) (string, *failure) {
	const scheme = "bearer"
	if len(authorization) > len(scheme)+16+maxJWTBytes {
		return "", errSize
	}
	if len(authorization) < len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return "", errScheme
	}
	rest := authorization[len(scheme):]
	token := strings.TrimLeft(rest, " ")
	if token == rest {
		return "", errScheme
	}
	return token, nil
}

// bearer returns the caller of a token. Only tokens that were verified are known by
// their hash.
func (a *Authenticator) bearer(token string) (*Caller, *failure) {
	if len(token) > maxJWTBytes {
		return nil, errSize
	}
	sum := sha256.Sum256([]byte(token))
	if a.tokens != nil {
		if caller, failure := a.tokens.Get().find(token, &sum, a.clock.now()); caller != nil || failure != nil {
			return caller, failure
		}
	}
	if len(a.issuers) == 0 {
		return nil, errUnknownToken
	}
	if caller := a.verified.get(&sum, a.clock); caller != nil {
		return caller, nil
	}
	if !isToken68(token) {
		return nil, errMalformed
	}
	if strings.Count(token, ".") != 2 {
		return nil, errUnknownToken
	}
	known, failure := a.verify(token)
	if failure != nil {
		return nil, failure
	}
	a.verified.put(&sum, known, a.clock)
	return known.caller, nil
}

// isToken68 reports whether token has the characters of a bearer token only
// (RFC 6750, section 2.1).
func isToken68(token string) bool {
	trimmed := strings.TrimRight(token, "=")
	for i := range len(trimmed) {
		c := trimmed[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return trimmed != ""
}
