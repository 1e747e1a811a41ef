package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// VaultSecret names a secret of an Azure Key Vault. The zero value is none.
type VaultSecret struct {
	// URL is the vault's root, such as "https://NAME.vault.azure.net". The host
	// is a vault of any Azure cloud. Loopback is allowed as well, also with http.
	URL string
	// Name is the name of the secret.
	Name string
}

// Credential obtains access tokens for a vault.
type Credential = azcore.TokenCredential

// SilenceSDK keeps Azure's SDK from printing to standard error if
// AZURE_SDK_GO_LOGGING is set.
func SilenceSDK() { azlog.SetListener(nil) }

// maxAnswerBytes is the size beyond which a vault's answer is not read.
const maxAnswerBytes = 1 << 20

var secretName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// Validate returns why the secret cannot be used. The zero value is an error.
func (v VaultSecret) Validate() error {
	if err := remote.CheckRoot(v.URL); err != nil {
		return fmt.Errorf("URL: %w", err)
	}
	u, err := url.Parse(v.URL)
	if err != nil || strings.Trim(u.Path, "/") != "" {
		return errors.New("URL: must not have a path")
	}
	if _, ok := vaultCloud(u.Hostname()); !ok {
		return errors.New("URL: is of no Azure Key Vault")
	}
	if !secretName.MatchString(v.Name) {
		return errors.New("name: must be of 1 to 127 letters, digits and hyphens")
	}
	return nil
}

// vaultCloud returns the Azure cloud of a vault's host; !ok if it is in none. An
// access token is sent to no other host.
//
// Source: https://learn.microsoft.com/en-us/azure/key-vault/general/about-keys-secrets-certificates#dns-suffixes-for-object-identifiers
// (read 2026-11-21)
func vaultCloud(host string) (of cloud.Configuration, ok bool) {
	host = strings.ToLower(host)
	switch {
	case strings.HasSuffix(host, ".vault.azure.net"), loopback.IsHost(host):
		return cloud.AzurePublic, true
	case strings.HasSuffix(host, ".vault.usgovcloudapi.net"):
		return cloud.AzureGovernment, true
	case strings.HasSuffix(host, ".vault.azure.cn"):
		return cloud.AzureChina, true
	}
	return cloud.Configuration{}, false
}

// Vault stores the refresh token in a Key Vault. Each Save adds a version of the
// secret, which the vault dates.
type Vault struct {
	client *azsecrets.Client
	name   string
}

// NewVault returns the store of a secret that Validate accepts. It makes no call.
// If credential is nil, azidentity's default chain is used, which reads the
// environment.
func NewVault(secret VaultSecret, credential Credential, roundTripper http.RoundTripper) (*Vault, error) {
	u, err := url.Parse(strings.TrimRight(secret.URL, "/"))
	if err != nil {
		return nil, errors.New("URL: is no URL")
	}
	of, _ := vaultCloud(u.Hostname())
	transport := &vaultTransport{http.Client{
		Transport:     roundTripper,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, ""}
	if credential == nil {
		credential, err = azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
			ClientOptions: azcore.ClientOptions{Cloud: of, Transport: &vaultTransport{transport.Client, ""}},
		})
		if err != nil {
			return nil, errors.New("no Azure credential can be made of the environment: see AZURE_TOKEN_CREDENTIALS")
		}
	}
	if u.Scheme == "http" { // the SDK refuses to send a token over http
		transport.plain, u.Scheme = u.Host, "https"
	}
	client, err := azsecrets.NewClient(u.String(), vaultCredential{credential}, &azsecrets.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Cloud:     of,
			Transport: transport,
			Retry:     policy.RetryOptions{MaxRetries: -1}, // the caller retries
		},
		DisableChallengeResourceVerification: loopback.IsHost(u.Hostname()),
	})
	if err != nil {
		return nil, errors.New("client of the vault cannot be made")
	}
	return &Vault{client: client, name: secret.Name}, nil
}

// Load implements Store.
func (v *Vault) Load(ctx context.Context) (Token, error) {
	got, err := v.client.GetSecret(ctx, v.name, "", nil)
	if err != nil {
		return Token{}, vaultFault(ctx, err)
	}
	var stored Token
	if got.Value != nil {
		stored.Value = trim(*got.Value)
	}
	if got.Attributes != nil && got.Attributes.Created != nil {
		stored.Stored = *got.Attributes.Created
	}
	switch {
	case stored.Value == "":
		return Token{}, fmt.Errorf("%w: secret of the vault is empty", ErrNone)
	case len(stored.Value) > maxTokenBytes:
		return Token{}, fmt.Errorf("%w: secret of the vault is too large", ErrUnreadable)
	case !plain(stored.Value):
		return Token{}, fmt.Errorf("%w: secret of the vault %w", ErrNone, errNotPlain)
	}
	return stored, nil
}

// Save implements Store.
func (v *Vault) Save(ctx context.Context, token string) error {
	if _, err := v.client.SetSecret(ctx, v.name, azsecrets.SetSecretParameters{Value: &token}, nil); err != nil {
		return vaultFault(ctx, err)
	}
	return nil
}

// CheckSave checks read access only: the vault grants write access separately,
// and nothing but a write can test it.
func (v *Vault) CheckSave(ctx context.Context) error {
	if _, err := v.Load(ctx); err != nil && !errors.Is(err, ErrNone) {
		return err
	}
	return nil
}

// vaultFault converts an error of the SDK to one of a Store. It drops the text,
// which repeats the vault's response.
func vaultFault(ctx context.Context, err error) error {
	var refused *azcore.ResponseError
	switch {
	case errors.Is(err, errVaultCredential):
		return err
	case !errors.As(err, &refused):
		return fmt.Errorf("vault: %w", remote.Cause(ctx, err))
	case refused.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: the vault has no such secret", ErrNone)
	case refused.StatusCode == http.StatusTooManyRequests, remote.ServerFailed(refused.StatusCode):
		return fmt.Errorf("vault: status %d", refused.StatusCode)
	default:
		return fmt.Errorf("%w: the vault refuses, status %d", ErrUnreadable, refused.StatusCode)
	}
}

var errVaultCredential = errors.New("no Azure credential for the vault")

// vaultCredential replaces a credential's errors, whose text repeats responses.
type vaultCredential struct{ azcore.TokenCredential }

// GetToken implements azcore.TokenCredential.
func (c vaultCredential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.TokenCredential.GetToken(ctx, options)
	var failed *azidentity.AuthenticationFailedError
	switch {
	case err == nil:
		return token, nil
	case errors.As(err, &failed) && failed.RawResponse != nil:
		return azcore.AccessToken{}, fmt.Errorf("%w: authentication failed, status %d", errVaultCredential, failed.RawResponse.StatusCode)
	case ctx.Err() != nil:
		return azcore.AccessToken{}, fmt.Errorf("%w: %w", errVaultCredential, ctx.Err())
	default:
		return azcore.AccessToken{}, errVaultCredential
	}
}

// vaultTransport sends a vault's requests. It follows no redirect, limits the
// size of an answer, and uses plain HTTP for one host, which is loopback.
type vaultTransport struct {
	http.Client

	plain string
}

// Do implements policy.Transporter.
func (t *vaultTransport) Do(req *http.Request) (*http.Response, error) {
	if t.plain != "" && req.URL.Host == t.plain {
		req = req.Clone(req.Context())
		req.URL.Scheme = "http"
	}
	resp, err := t.Client.Do(req) //nolint:gosec // the operator configures the vault, and the SDK the identity endpoint
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswerBytes), resp.Body}
	return resp, nil
}
