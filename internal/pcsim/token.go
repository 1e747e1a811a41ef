package pcsim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// The reasons to reject a token.
var (
	errTokenUnknown = errors.New("token was not issued here")
	errTokenExpired = errors.New("token has expired")
	errTokenRevoked = errors.New("token has been revoked")
)

// claims is the content of a token. It is encrypted inside the token, so the
// server keeps no state however many are issued.
type claims struct {
	use      string // useAccess or useRefresh
	era      int64
	appOnly  bool
	mfa      bool  // the user has proved a second factor
	expires  int64 // Unix nanoseconds; 0 in a refresh token
	audience string
}

const (
	useAccess  = "access"
	useRefresh = "refresh"
)

// issuer issues and decodes tokens: opaque, random, and decodable only by a
// server of the same configuration. The key is derived from the credentials, so
// that a client's stored refresh token survives a restart.
type issuer struct {
	aead    cipher.AEAD
	consent string // the configured refresh token
	now     func() time.Time

	accessEra  atomic.Int64 // access tokens of an earlier era have expired
	refreshEra atomic.Int64 // refresh tokens of an earlier era are revoked
}

func newIssuer(cfg Config, now func() time.Time) (*issuer, error) {
	key := sha256.Sum256([]byte(strings.Join(
		[]string{cfg.TenantID, cfg.ClientID, cfg.ClientSecret, cfg.RefreshToken}, "\x00")))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("token key: %w", err)
	}
	return &issuer{aead: aead, consent: cfg.RefreshToken, now: now}, nil
}

func (i *issuer) access(audience string, appOnly, mfa bool, lifetime time.Duration) string {
	return i.seal(claims{
		use: useAccess, era: i.accessEra.Load(), appOnly: appOnly, mfa: mfa, audience: audience,
		expires: i.now().Add(lifetime).UnixNano(),
	})
}

func (i *issuer) refresh(mfa bool) string {
	return i.seal(claims{use: useRefresh, era: i.refreshEra.Load(), mfa: mfa, audience: "-"})
}

func (i *issuer) seal(c claims) string {
	plain := fmt.Appendln(nil, c.use, c.era, c.appOnly, c.mfa, c.expires, c.audience)
	sealed := i.aead.Seal(nil, nil, plain, nil) //nolint:gosec // this mode generates a random nonce itself
	return base64.RawURLEncoding.EncodeToString(sealed)
}

func (i *issuer) open(token, use string) (claims, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return claims{}, errTokenUnknown
	}
	plain, err := i.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return claims{}, errTokenUnknown
	}
	var c claims
	_, err = fmt.Sscanln(string(plain), &c.use, &c.era, &c.appOnly, &c.mfa, &c.expires, &c.audience)
	if err != nil || c.use != use {
		return claims{}, errTokenUnknown
	}
	return c, nil
}

// readAccess returns the claims of a token if it is valid now, else
// errTokenUnknown or errTokenExpired.
func (i *issuer) readAccess(token string) (claims, error) {
	c, err := i.open(token, useAccess)
	if err != nil {
		return claims{}, err
	}
	if c.era != i.accessEra.Load() || i.now().UnixNano() >= c.expires {
		return claims{}, errTokenExpired
	}
	return c, nil
}

// readRefresh returns the claims of a token if it is valid now, else
// errTokenUnknown or errTokenRevoked.
func (i *issuer) readRefresh(token string) (claims, error) {
	c := claims{mfa: true} // the configured token belongs to the first era
	if subtle.ConstantTimeCompare([]byte(token), []byte(i.consent)) != 1 {
		var err error
		if c, err = i.open(token, useRefresh); err != nil {
			return claims{}, err
		}
	}
	if c.era != i.refreshEra.Load() {
		return claims{}, errTokenRevoked
	}
	return c, nil
}

// ExpireTokens expires every access token issued so far: the resources answer
// 401 to them.
func (s *Server) ExpireTokens() { s.tokens.accessEra.Add(1) }

// RevokeTokens revokes every refresh token issued so far, the configured one
// included, as when an administrator revokes sessions: the token endpoint
// answers invalid_grant (50173) to them. Access tokens remain valid.
func (s *Server) RevokeTokens() { s.tokens.refreshEra.Add(1) }

// IssueRefreshToken returns a new valid refresh token, as after a consent.
func (s *Server) IssueRefreshToken() string { return s.tokens.refresh(!s.Settings().WithoutMFA) }
