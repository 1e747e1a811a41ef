package pcclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/remote"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// The defaults of [Config].
const (
	DefaultAttemptTimeout = 3 * time.Second
)

// Flow is how the client proves who it is.
type Flow uint8

const (
	// FlowAppUser acts for the user who once consented, by a refresh token
	// (Microsoft's secure application model). Both resources accept it.
	FlowAppUser Flow = iota
	// FlowAppOnly acts for the application alone. Partner Center refuses it
	// for the account status; qualifications work.
	FlowAppOnly
)

// Config selects the hosts, the credentials and the limits of a Client.
type Config struct {
	// BaseURL is Partner Center's root, such as
	// "https://api.partnercenter.microsoft.com". Required; http for loopback only.
	BaseURL string
	// Authority is the login host's root, such as
	// "https://login.microsoftonline.com". Required; http for loopback only.
	Authority string
	// TenantID is the partner's own tenant, a GUID or a domain name. Required.
	TenantID string
	// ClientID is the application's ID. Required.
	ClientID string
	// ClientSecret is the application's secret. One of it and the four that follow
	// is required, and no more.
	ClientSecret string
	// ClientSecretVault holds the secret: it is read before the first token request,
	// hourly, and when the login host refuses the secret.
	ClientSecretVault tokenstore.VaultSecret
	// ClientCertificate signs an assertion for each token request in place of
	// a secret. Its first certificate is the one that the application knows,
	// and its key RSA.
	ClientCertificate *tls.Certificate
	// ClientCertificateVault holds the certificate and its key, and is read as
	// ClientSecretVault is.
	ClientCertificateVault tokenstore.VaultSecret
	// ClientAssertion is an identity that is a federated credential of the
	// application: its tokens take the place of a secret.
	ClientAssertion identity.Assertion
	// Audience is whom tokens are for, such as
	// "https://api.partnercenter.microsoft.com". Required. It depends on the
	// cloud, not on BaseURL.
	Audience string
	// TokenEndpoint is TokenEndpointV2 unless set.
	TokenEndpoint TokenEndpoint
	// Flow is FlowAppUser unless set.
	Flow Flow
	// RefreshTokenFile holds the refresh token and nothing else; it is read
	// before every renewal and rewritten when the login host sends a new one.
	// It or RefreshTokenVault is required for FlowAppUser, and not both;
	// both are ignored otherwise.
	RefreshTokenFile string
	// RefreshTokenVault holds the refresh token in place of a file: it is read
	// before every renewal and gets a new version when the login host sends a
	// new token.
	RefreshTokenVault tokenstore.VaultSecret
	// VaultCredential is who asks these vaults; nil means azidentity's default
	// chain: environment, workload identity, managed identity, developer tools.
	VaultCredential tokenstore.Credential
	// ReadOnly leaves the stored refresh token as it is: a new one is dropped,
	// and the old one goes on working. It is for a look by somebody other than
	// the service, whose file would no longer be the service's.
	ReadOnly bool
	// AttemptTimeout limits one HTTP attempt, its body included. Zero means
	// DefaultAttemptTimeout.
	AttemptTimeout time.Duration
	// Budget admits the requests to Partner Center. Replays count, token requests
	// do not. Nil means one for this Client alone, of budget.DefaultPerMinute.
	Budget *budget.Budget

	// Now is the clock for expiries and pauses; nil means time.Now.
	Now func() time.Time
	// Logger receives what no caller gets; nil means none.
	Logger *zap.Logger
	// Transport carries the requests to both hosts; nil means an own
	// *http.Transport with explicit limits.
	Transport http.RoundTripper
	// Registerer takes the metrics; nil means that they go nowhere.
	Registerer prometheus.Registerer
}

// Validate returns every fault of the configuration at once. It reads no file.
// No error contains a secret.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("partner center: "+format, args...))
	}
	if err := remote.CheckRoot(c.BaseURL); err != nil {
		fault("base URL: %w", err)
	}
	if err := remote.CheckRoot(c.Authority); err != nil {
		fault("authority: %w", err)
	}
	if strings.Trim(c.TenantID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") != "" || strings.Trim(c.TenantID, ".") == "" {
		fault("tenant ID: must be a GUID or a domain name")
	}
	if c.ClientID == "" {
		fault("client ID: is missing")
	}
	if err := c.checkCredential(); err != nil {
		fault("%w", err)
	}
	if err := checkAudience(c.Audience); err != nil {
		fault("audience: %w", err)
	}
	switch c.Flow {
	case FlowAppUser:
		if err := c.checkRefreshToken(); err != nil {
			fault("%w", err)
		}
	case FlowAppOnly:
	default:
		fault("flow: %d is unknown", c.Flow)
	}
	if c.TokenEndpoint > TokenEndpointV1 {
		fault("token endpoint: %d is unknown", c.TokenEndpoint)
	}
	if c.AttemptTimeout < 0 {
		fault("attempt timeout: must not be negative")
	}
	return errors.Join(faults...)
}

// checkCredential wants one credential, and a certificate that is valid now.
func (c Config) checkCredential() error {
	given := 0
	for _, has := range []bool{
		c.ClientSecret != "", c.ClientCertificate != nil, c.ClientAssertion != identity.Assertion{},
		c.ClientSecretVault != tokenstore.VaultSecret{}, c.ClientCertificateVault != tokenstore.VaultSecret{},
	} {
		if has {
			given++
		}
	}
	switch {
	case given == 0:
		return errors.New("client secret: is missing, and so is a client certificate")
	case given > 1 && c.ClientCertificate != nil && c.ClientSecret != "":
		return errors.New("client certificate: conflicts with the client secret")
	case given > 1:
		return errors.New("client credential: one of secret, certificate and assertion is possible, from one place")
	}
	for _, vault := range []tokenstore.VaultSecret{c.ClientSecretVault, c.ClientCertificateVault} {
		if vault == (tokenstore.VaultSecret{}) {
			continue
		}
		if err := vault.Validate(); err != nil {
			return fmt.Errorf("client credential: vault: %w", err)
		}
	}
	if c.ClientCertificate == nil {
		return nil
	}
	now := c.Now
	if now == nil {
		now = time.Now
	}
	if err := checkCertificate(c.ClientCertificate, now()); err != nil {
		return fmt.Errorf("client certificate: %w", err)
	}
	return nil
}

// checkRefreshToken wants one place for the refresh token.
func (c Config) checkRefreshToken() error {
	switch {
	case c.RefreshTokenVault == (tokenstore.VaultSecret{}) && c.RefreshTokenFile == "":
		return errors.New("refresh token file: is missing, and so is a vault")
	case c.RefreshTokenVault == (tokenstore.VaultSecret{}):
		return nil
	case c.RefreshTokenFile != "":
		return errors.New("refresh token vault: conflicts with the file")
	}
	if err := c.RefreshTokenVault.Validate(); err != nil {
		return fmt.Errorf("refresh token vault: %w", err)
	}
	return nil
}

// checkAudience refuses the audience of the retired directory API: the login
// host still issues such tokens, and Partner Center refuses them.
//
// Source: https://learn.microsoft.com/partner-center/developer/deprecate-azure-active-directory-graph-token
// (read 2026-11-21)
func checkAudience(audience string) error {
	u, err := url.Parse(audience)
	if err != nil || audience == "" {
		return errors.New("must be a URI")
	}
	switch strings.ToLower(u.Hostname()) {
	case "graph.windows.net", "graph.chinacloudapi.cn":
		return errors.New("is retired; use Partner Center's own")
	}
	return nil
}

// withDefaults fills in what the zero values stand for.
func (c Config) withDefaults() Config {
	c.BaseURL = strings.TrimRight(c.BaseURL, "/")
	c.Authority = strings.TrimRight(c.Authority, "/")
	c.Audience = strings.TrimRight(c.Audience, "/")
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = DefaultAttemptTimeout
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}
