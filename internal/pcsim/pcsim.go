// Package pcsim is a Partner Center simulator: a real HTTP server for
// Microsoft's login host, including its consent page, and for the two Partner
// Center resources that decide whether a customer may buy.
//
// It answers as published pages and traces show. If they are silent, it answers
// in the way that is hardest on a client. It never sends artefacts of the
// documentation: comments, trailing commas, missing braces.
//
//   - [Server.Handler] serves Partner Center and the login host together.
//   - [Server.ControlHandler] serves the control API, on a separate listener:
//     its paths overlap with those of Partner Center.
//
// A script defines the answers about each customer (see [Customer] and [Step]).
// A new server plays the embedded seeds; YAML files, the control API or Go add
// scripts.
//
// Nothing here keeps secrets: it is for development and tests, and its default
// credentials are public.
//
// Sources (read 2026-11-21):
// https://learn.microsoft.com/en-us/partner-center/developer/retrieve-validation-status,
// https://learn.microsoft.com/en-us/partner-center/developer/get-customer-qualification-asynchronous,
// https://learn.microsoft.com/en-us/partner-center/developer/error-codes,
// https://learn.microsoft.com/en-us/partner-center/developer/api-throttling-guidance.
package pcsim

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// The credentials that a server accepts if its Config names no others. They are
// public and open nothing.
const (
	DefaultTenantID     = "70000000-0000-4000-8000-000000000001"
	DefaultClientID     = "c0000000-0000-4000-8000-000000000001"
	DefaultClientSecret = "simulator-client-secret"
	DefaultRefreshToken = "simulator-refresh-token"

	// DefaultTokenLifetime is how long access tokens are valid, as at
	// Microsoft.
	DefaultTokenLifetime = time.Hour
)

// Config configures a [Server]. The zero value is usable.
type Config struct {
	// TenantID is the partner's tenant, the first path element of the token
	// endpoints. If empty, it is DefaultTenantID.
	TenantID string
	// ClientID is the only application that gets tokens. If empty, it is
	// DefaultClientID.
	ClientID string
	// ClientSecret is that application's secret. If empty, it is
	// DefaultClientSecret.
	ClientSecret string
	// ClientCertificates may sign assertions in place of the secret. Their keys
	// must be RSA. See also Server.RegisterCertificate.
	ClientCertificates []*x509.Certificate
	// FederatedCredentials are identities whose tokens may take the place of the
	// secret. See also Server.AddFederatedCredential.
	FederatedCredentials []FederatedCredential
	// RefreshToken is a refresh token that is valid from the start, as after a
	// consent. If empty, it is DefaultRefreshToken.
	RefreshToken string
	// TokenLifetime is how long access tokens are valid. If zero, it is
	// DefaultTokenLifetime.
	TokenLifetime time.Duration

	// RequestsPerMinute is the limit of resource calls in any 60 seconds, calls
	// answered 429 included. If zero, there is no limit.
	RequestsPerMinute int
	// LimitPerCustomer applies RequestsPerMinute to each customer instead of
	// the whole partner. Both exist at Microsoft.
	LimitPerCustomer bool
	// FixedWindows counts RequestsPerMinute in each minute of the clock instead:
	// Retry-After is the rest of it.
	FixedWindows bool
	// Settings are the initial settings, which a reset restores.
	Settings Settings

	// Now returns the time of tokens, timelines and limits. If nil, it is
	// time.Now. Latencies always take real time.
	Now func() time.Time
	// Logger gets one debug record per call, never a token. If nil, nothing is
	// logged.
	Logger *zap.Logger
}

func (c Config) withDefaults() Config {
	c.TenantID = orDefault(c.TenantID, DefaultTenantID)
	c.ClientID = orDefault(c.ClientID, DefaultClientID)
	c.ClientSecret = orDefault(c.ClientSecret, DefaultClientSecret)
	c.RefreshToken = orDefault(c.RefreshToken, DefaultRefreshToken)
	c.TokenLifetime = orDefault(c.TokenLifetime, DefaultTokenLifetime)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Logger = c.Logger.Named("pcsim")
	return c
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Validate returns an error for every invalid setting, joined.
func (c Config) Validate() error {
	var faults []error
	if strings.ContainsAny(c.TenantID, "/ ") {
		faults = append(faults, fmt.Errorf("tenant id %q cannot be a path element", c.TenantID))
	}
	if c.TokenLifetime < 0 {
		faults = append(faults, fmt.Errorf("token lifetime %v is negative", c.TokenLifetime))
	}
	if c.RequestsPerMinute < 0 {
		faults = append(faults, fmt.Errorf("requests per minute %d is negative", c.RequestsPerMinute))
	}
	for _, cert := range c.ClientCertificates {
		faults = append(faults, checkCertificate(cert))
	}
	for _, credential := range c.FederatedCredentials {
		faults = append(faults, credential.Validate())
	}
	return errors.Join(append(faults, c.Settings.Validate())...)
}

// Server is the simulator. It opens no listener itself: pass its handlers to an
// http.Server or httptest.NewServer. All methods are safe for concurrent use.
type Server struct {
	cfg        Config
	log        *zap.Logger
	tokens     *issuer
	assertions *assertions
	federated  *federated
	consent    *template.Template
	codes      *codes
	idTokenKey func() (*rsa.PrivateKey, error) // generated when first needed
	cast       *cast
	journal    *journal
	handler    http.Handler
	control    http.Handler

	settings atomic.Pointer[Settings] // never nil; the value it points to never changes
	mfaCalls atomic.Uint64            // calls without MFA since the settings changed

	partnersMu sync.RWMutex
	partners   []partner // besides this one; guarded by partnersMu

	closed    chan struct{} // closed by Close: ends latencies and hangs
	closeOnce sync.Once
}

// New builds a server that plays the embedded seeds. It fails only if the
// Config is invalid.
func New(cfg Config) (*Server, error) {
	s, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	if err := s.Load(strings.NewReader(seeds)); err != nil {
		return nil, fmt.Errorf("pcsim: seeds: %w", err)
	}
	return s, nil
}

// newServer builds a server without customers.
func newServer(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pcsim: %w", err)
	}
	cfg = cfg.withDefaults()
	page, err := parseConsentPage()
	if err != nil {
		return nil, fmt.Errorf("pcsim: consent page: %w", err)
	}
	s := &Server{
		cfg:        cfg,
		log:        cfg.Logger,
		cast:       newCast(cfg),
		journal:    &journal{},
		assertions: newAssertions(cfg.ClientCertificates),
		federated:  &federated{credentials: slices.Clone(cfg.FederatedCredentials)},
		consent:    page,
		codes:      &codes{given: map[string]*consent{}},
		idTokenKey: sync.OnceValues(newIDTokenKey),
		closed:     make(chan struct{}),
	}
	s.settings.Store(&cfg.Settings)
	if s.tokens, err = newIssuer(cfg, s.microsoftNow); err != nil {
		return nil, fmt.Errorf("pcsim: %w", err)
	}
	s.handler, s.control = s.routes(), s.controlRoutes()
	return s, nil
}

// Handler serves Partner Center and the login host: its root is both
// `partner_center.base_url` and `partner_center.authority` of a client.
func (s *Server) Handler() http.Handler { return s.handler }

// Close drops the connection of every call that waits in a latency or hang.
// Handlers keep answering. Call it before http.Server.Shutdown, which waits for
// requests in flight. It may be called more than once.
func (s *Server) Close() {
	s.closeOnce.Do(func() { close(s.closed) })
	for _, other := range s.others() {
		other.Close()
	}
}
