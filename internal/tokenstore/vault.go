package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	azlog "github.com/Azure/azure-sdk-for-go/sdk/azcore/log"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/eligibilityd/eligibilityd/internal/identity"
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

// Vault is a secret of a Key Vault. As a Store it keeps the refresh token: each
// Save adds a version of the secret, which the vault dates.
type Vault struct {
	client *azsecrets.Client
	name   string
}

// NewVault returns the store of a secret that Validate accepts. It makes no call.
// If credential is nil, identity.Default is used, which reads the environment.
func NewVault(secret VaultSecret, credential Credential, roundTripper http.RoundTripper) (*Vault, error) {
	u, err := url.Parse(strings.TrimRight(secret.URL, "/"))
	if err != nil {
		return nil, errors.New("URL: is no URL")
	}
	of, _ := vaultCloud(u.Hostname())
	if credential == nil {
		if credential, err = identity.Default(of, identity.NewTransport(roundTripper, "")); err != nil {
			return nil, err
		}
	}
	plain := ""
	if u.Scheme == "http" { // the SDK refuses to send a token over http
		plain, u.Scheme = u.Host, "https"
	}
	client, err := azsecrets.NewClient(u.String(), vaultCredential{credential}, &azsecrets.ClientOptions{
		ClientOptions: azcore.ClientOptions{
			Cloud:     of,
			Transport: identity.NewTransport(roundTripper, plain),
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
		stored.Value = Trim(*got.Value)
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

// ErrSecret means that a vault has no such secret, or denies access to it: an
// operator must act.
var ErrSecret = errors.New("the vault does not hand out the secret")

// Secret is a secret that somebody else puts into a vault.
type Secret struct {
	Value string
	// ContentType is what the vault says about the form of Value, such as
	// "application/x-pkcs12".
	ContentType string
}

// Read returns the secret as it is now. It returns ErrSecret, identity.ErrRefused if
// the process has no identity for the vault, or another error if the vault cannot be
// reached.
func (v *Vault) Read(ctx context.Context) (Secret, error) {
	got, err := v.client.GetSecret(ctx, v.name, "", nil)
	var refused *azcore.ResponseError
	switch fault := vaultFault(ctx, err); {
	case err == nil && (got.Value == nil || *got.Value == ""):
		return Secret{}, fmt.Errorf("%w: it is empty", ErrSecret)
	case err == nil:
		secret := Secret{Value: *got.Value}
		if got.ContentType != nil {
			secret.ContentType = *got.ContentType
		}
		return secret, nil
	case (errors.Is(fault, ErrNone) || errors.Is(fault, ErrUnreadable)) && errors.As(err, &refused):
		return Secret{}, fmt.Errorf("%w, status %d", ErrSecret, refused.StatusCode)
	default:
		return Secret{}, fault
	}
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
	case err == nil:
		return nil
	case errors.Is(err, errVaultCredential):
		return err
	case !errors.As(err, &refused):
		return fmt.Errorf("vault: %w", remote.Cause(ctx, err))
	case refused.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w: the vault has no such secret", ErrNone)
	case refused.StatusCode == http.StatusTooManyRequests, remote.ServerFailed(refused.StatusCode),
		refused.StatusCode >= 300 && refused.StatusCode <= 399: // a proxy's; a vault does not redirect
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
	token, err := identity.Get(ctx, c.TokenCredential, options)
	if err != nil {
		return azcore.AccessToken{}, fmt.Errorf("%w: %w", errVaultCredential, err)
	}
	return token, nil
}
