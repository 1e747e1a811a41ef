package pcclient

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// What a consent that the login host granted may lack. Nothing is stored then.
var (
	// ErrConsentTenant is returned if the account that signed in does not belong
	// to Config.TenantID.
	ErrConsentTenant = errors.New("partner center: consent: the account is of another tenant")
	// ErrConsentIdentity is returned if the id_token is unreadable or for another
	// application, so that the account is unknown.
	ErrConsentIdentity = errors.New("partner center: consent: no readable id_token for this application")
	// ErrConsentRefreshToken is returned if no usable refresh token came.
	ErrConsentRefreshToken = errors.New("partner center: consent: no refresh token")
)

// Consent is one interactive consent of the secure application model: the
// authorization code grant with PKCE, which brings the refresh token that
// FlowAppUser lives on. It serves one sign-in.
//
// Source: https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-auth-code-flow
// (read 2026-11-21)
type Consent struct {
	login       *login
	authorize   string
	purpose     url.Values // what the token is for
	tenantID    string
	clientID    string
	redirectURL string
	state       string
	verifier    string
}

// NewConsent prepares a consent whose answer the login host sends to
// redirectURL. It makes no call and reads no file; it fails on a Config that
// cannot work, with every fault at once. Config.Flow must be FlowAppUser.
func NewConsent(cfg Config, redirectURL string) (*Consent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Flow != FlowAppUser {
		return nil, errors.New("partner center: consent: only the app+user flow needs one")
	}
	cfg = cfg.withDefaults()
	// A code is good once: its only request gets the time of a whole renewal.
	cfg.AttemptTimeout = tokenTimeout
	transport := cfg.Transport
	if transport == nil {
		transport = newTransport(cfg.AttemptTimeout)
	}
	login, err := newLogin(cfg, transport, nil, nil, func(error, bool) {})
	if err != nil {
		return nil, err
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	consent := &Consent{
		login:       login,
		authorize:   cfg.TokenEndpoint.page(cfg, "authorize"),
		purpose:     cfg.TokenEndpoint.purpose(cfg),
		tenantID:    cfg.TenantID,
		clientID:    cfg.ClientID,
		redirectURL: redirectURL,
		state:       rand.Text(),
		verifier:    base64.RawURLEncoding.EncodeToString(secret[:]),
	}
	// openid returns the identity of the account as well.
	consent.purpose.Set("scope", strings.TrimSpace(consent.purpose.Get("scope")+" openid"))
	return consent, nil
}

// URL returns the sign-in page of the login host. It makes the person choose an
// account: theirs is rarely the one that the service shall act for.
func (c *Consent) URL() string {
	challenge := sha256.Sum256([]byte(c.verifier))
	query := url.Values{
		"client_id":             {c.clientID},
		"response_type":         {"code"},
		"response_mode":         {"query"},
		"redirect_uri":          {c.redirectURL},
		"state":                 {c.state},
		"prompt":                {"select_account"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
	maps.Copy(query, c.purpose)
	return c.authorize + "?" + query.Encode()
}

// Expects reports, in constant time, whether an answer with that state belongs
// to this consent.
func (c *Consent) Expects(state string) bool {
	return subtle.ConstantTimeCompare([]byte(state), []byte(c.state)) == 1
}

// CanStore reports, before anybody is sent to sign in, why the refresh token
// could not be stored, or nil.
func (c *Consent) CanStore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := c.login.refreshToken.store.CheckSave(ctx); err != nil {
		return fmt.Errorf("partner center: consent: %w", err)
	}
	return nil
}

// Redeem exchanges the code of an answer for a refresh token, checks its account
// and stores it as configured. It returns the tenant of the account, a GUID. It
// makes one request, because a code works once, and takes 10 s at most. If the
// login host refuses or does not answer, the error is an *APIError; otherwise it
// is one of the errors above or that of the storage.
func (c *Consent) Redeem(ctx context.Context, code string) (tenantID string, err error) {
	form := maps.Clone(c.login.form)
	form.Set("grant_type", "authorization_code")
	maps.Copy(form, c.purpose)
	form.Set("code", code)
	form.Set("redirect_uri", c.redirectURL)
	form.Set("code_verifier", c.verifier)
	granted, fail := c.login.attempt(ctx, form)
	if own, ok := c.login.transport.(*http.Transport); ok {
		own.CloseIdleConnections()
	}
	if fail != nil {
		return "", fail
	}
	if tenantID, err = c.checkTenant(granted.idToken); err != nil {
		return "", err
	}
	if granted.refresh == "" {
		return "", ErrConsentRefreshToken
	}
	// A person's consent is not thrown away because the browser's time is up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := c.login.refreshToken.store.Save(ctx, granted.refresh); err != nil {
		return "", fmt.Errorf("partner center: consent: store refresh token: %w", err)
	}
	return tenantID, nil
}

// checkTenant returns the tenant of the account that an id_token is about, if
// it is the configured one. If that is a domain name, only the login host can map
// it: the request went to that tenant's own endpoint. The signature is not
// checked, because the token came over TLS from the login host itself.
//
// Source: https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation
// (read 2026-11-21)
func (c *Consent) checkTenant(idToken string) (string, error) {
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return "", ErrConsentIdentity
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", ErrConsentIdentity
	}
	claims, err := parseObject(payload)
	if err != nil {
		return "", ErrConsentIdentity
	}
	audience, _ := claims["aud"].(string)
	claimed, _ := claims["tid"].(string)
	tenant, err := uuid.Parse(claimed)
	if err != nil || len(claimed) != len(uuid.Nil.String()) || !strings.EqualFold(audience, c.clientID) {
		return "", ErrConsentIdentity
	}
	if configured, err := uuid.Parse(c.tenantID); err == nil && configured != tenant {
		return "", fmt.Errorf("%w: %s", ErrConsentTenant, tenant)
	}
	return tenant.String(), nil
}
