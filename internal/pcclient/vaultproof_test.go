package pcclient_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/identity"
	"github.com/eligibilityd/eligibilityd/internal/identity/identitytest"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore/vaulttest"
)

// startSecretVault starts a rig whose client secret is in a vault. The login host
// accepts the secrets for which accepts returns true.
func startSecretVault(t *testing.T, secret string, accepts func(secret string) bool) vaulted {
	t.Helper()
	var v vaulted
	v.vault = vaulttest.Start(t, time.Now)
	if secret != "" {
		v.vault.Put(secret)
	}
	v.rig = start(t, setup{
		config: func(cfg *pcclient.Config) {
			cfg.ClientSecret = ""
			cfg.ClientSecretVault = tokenstore.VaultSecret{URL: v.vault.URL, Name: vaulttest.Secret}
			cfg.VaultCredential = vaulttest.Credential{}
		},
		login: func(w http.ResponseWriter, r *http.Request, n int) {
			if !accepts(r.PostForm.Get("client_secret")) {
				entra(http.StatusUnauthorized, "invalid_client", 7000215)(w, r, n)
				return
			}
			grants(w, r, n)
		},
	})
	return v
}

func anySecret(string) bool { return true }

// secrets are the client secrets that were sent.
func (v vaulted) secrets() (sent []string) {
	for _, asked := range v.login.asked() {
		sent = append(sent, asked.form.Get("client_secret"))
	}
	return sent
}

func (v vaulted) sentSecrets(want ...string) {
	v.t.Helper()
	if got := v.secrets(); !slices.Equal(got, want) {
		v.t.Errorf("sent %q, want %q", got, want)
	}
}

// reads is how often the vault was asked for the secret, challenges apart.
func (v vaulted) reads() int { return len(v.vault.Asked()) }

// The secret is read with the first request and hourly. A new one takes effect
// without a restart.
func TestTheSecretInAVaultIsReadHourly(t *testing.T) {
	t.Parallel()
	v := startSecretVault(t, " canary-one\n", anySecret)
	if v.reads() != 0 {
		t.Error("New has asked the vault")
	}
	v.ask()
	read := v.reads()
	v.clock.advance(56 * time.Minute)
	v.ask() // renews the token early
	eventually(t, "a renewal", func() bool { return v.login.count() == 2 })
	if v.reads() != read {
		t.Error("the vault is asked within the hour")
	}
	v.vault.Put("canary-two")
	v.renew()
	v.sentSecrets("canary-one", "canary-one", "canary-two")
	v.keepsSecret("canary-")
}

// A secret that was replaced takes effect at once if the login host refuses the old
// one; if it was not replaced, the refusal stands after one request.
func TestARefusedSecretIsReadAgain(t *testing.T) {
	t.Parallel()
	v := startSecretVault(t, "canary-one", func(secret string) bool { return secret == "canary-two" })
	v.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidClient)
	v.sentSecrets("canary-one")
	v.vault.Put("canary-two")
	v.clock.advance(time.Minute)
	v.ask()
	v.sentSecrets("canary-one", "canary-one", "canary-two")
}

// While the vault cannot be read, the old secret stays in use; that is counted,
// logged once and visible.
func TestAVaultThatFailsKeepsTheOldSecret(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"away": 503, "refusing": 403, "empty": 404} {
		v := startSecretVault(t, "canary-one", anySecret)
		v.ask()
		v.vault.Break(http.MethodGet, status)
		for range 3 {
			v.clock.advance(61 * time.Minute)
			v.ask()
		}
		v.sentSecrets("canary-one", "canary-one", "canary-one", "canary-one")
		if !v.shows("client_credential_failures_total 3") || v.LoginHealth().State != health.Degraded {
			t.Errorf("%s: %+v, %s", name, v.LoginHealth(), v.scrape())
		}
		v.logged(zapcore.ErrorLevel, "continuing with what was read before", 3)
		v.vault.Mend()
		v.vault.Put("canary-two")
		v.renew()
		if v.LoginHealth().State != health.OK || v.secrets()[4] != "canary-two" {
			t.Errorf("%s: %+v, %q", name, v.LoginHealth(), v.secrets())
		}
	}
}

// Without a secret, a vault that refuses or holds none needs somebody, and one that
// is away is an outage. The login host is not asked.
func TestAVaultWithoutASecret(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		secret string
		class  pcclient.Class
		reason pcclient.Reason
	}{
		"away":      {503, "canary-one", pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource},
		"throttled": {429, "canary-one", pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource},
		"timed out": {408, "canary-one", pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource},
		"elsewhere": {302, "canary-one", pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource},
		"refusing":  {403, "canary-one", pcclient.ClassCredentials, pcclient.ReasonClientCredential},
		"none":      {0, "", pcclient.ClassCredentials, pcclient.ReasonClientCredential},
		"two words": {0, "canary one", pcclient.ClassCredentials, pcclient.ReasonClientCredential},
		"blank":     {0, " \n", pcclient.ClassCredentials, pcclient.ReasonClientCredential},
	} {
		v := startSecretVault(t, test.secret, anySecret)
		if test.status != 0 {
			v.vault.Break(http.MethodGet, test.status)
		}
		fail := v.askInVain(test.class, test.reason)
		if strings.Contains(fail.Error(), "canary") {
			t.Errorf("%s: %v", name, &fail)
		}
		v.counts(0, 0)
		failure(t, v.CheckCredential(t.Context()), test.class, test.reason)
		v.vault.Mend()
		v.vault.Put("canary-two")
		v.clock.advance(time.Minute)
		eventually(t, "a token", func() bool { return v.Token(t.Context()) == nil })
		v.sentSecrets("canary-two")
		if err := v.CheckCredential(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A process without an identity for the vault, or with one that is refused, needs
// somebody, as it does with an assertion of that identity; an identity endpoint that
// is away is an outage.
func TestNoIdentityForAVault(t *testing.T) { //nolint:paralleltest // it changes the environment
	for name, test := range map[string]struct {
		prepare func(*identitytest.Endpoint)
		needs   bool // somebody
	}{
		"none":    {func(*identitytest.Endpoint) { t.Setenv("AZURE_TOKEN_CREDENTIALS", "WorkloadIdentityCredential") }, true},
		"refused": {func(e *identitytest.Endpoint) { e.Break(identitytest.Fails(400)) }, true},
		"away":    {func(e *identitytest.Endpoint) { e.Break(identitytest.Fails(302)) }, false},
	} {
		t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
		test.prepare(identitytest.Start(t))
		class, secret, refresh := pcclient.ClassUnavailable, pcclient.ReasonClientCredentialSource, pcclient.ReasonRefreshTokenStore
		if test.needs {
			class, secret, refresh = pcclient.ClassCredentials, pcclient.ReasonClientCredential, pcclient.ReasonRefreshToken
		}
		vault := vaulttest.Start(t, time.Now)
		of := tokenstore.VaultSecret{URL: vault.URL, Name: vaulttest.Secret}
		r := start(t, setup{config: func(cfg *pcclient.Config) { cfg.ClientSecret, cfg.ClientSecretVault = "", of }})
		fail := r.askInVain(class, secret)
		failure(t, r.CheckCredential(t.Context()), class, secret)
		r.counts(0, 0)
		kept := start(t, setup{config: func(cfg *pcclient.Config) { cfg.RefreshTokenFile, cfg.RefreshTokenVault = "", of }})
		stored := kept.askInVain(class, refresh)
		_, err := kept.RefreshToken(t.Context())
		for _, err := range []error{&fail, &stored, err} {
			if errors.Is(err, identity.ErrRefused) != test.needs || !strings.Contains(err.Error(), "no Azure credential for the vault") || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A secret that was replaced while a request with the old one was in flight takes
// effect at once when that is refused.
func TestASecretThatIsReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	var v vaulted
	v = startSecretVault(t, "canary-one", func(secret string) bool {
		if secret == "canary-one" {
			v.vault.Put("canary-two")
			read := v.reads()
			v.Reload()
			eventually(t, "a read", func() bool { return v.reads() > read })
		}
		return secret == "canary-two"
	})
	v.ask()
	v.sentSecrets("canary-one", "canary-two")
}

// On request, the vault is read at once, in the background.
func TestReloadReadsTheVault(t *testing.T) {
	t.Parallel()
	v := startSecretVault(t, "canary-one", anySecret)
	v.ask()
	v.vault.Put("canary-two")
	read := v.reads()
	v.Reload()
	eventually(t, "a read", func() bool { return v.reads() > read })
	v.clock.advance(time.Hour - time.Second) // less than would make it read again
	v.ask()
	eventually(t, "the new secret", func() bool { return slices.Contains(v.secrets(), "canary-two") })
	v.Close()
	v.Reload() // does nothing any more
	plain := start(t, setup{})
	plain.Reload()
}

// A vault that hangs costs a renewal its time, and Close does not wait for it.
func TestAVaultThatHangs(t *testing.T) {
	t.Parallel()
	v := startSecretVault(t, "canary-one", anySecret)
	v.vault.Break(http.MethodGet, 0)
	done := make(chan error)
	go func() { done <- v.Token(t.Context()) }()
	eventually(t, "a read", func() bool { return v.reads() > 0 })
	v.Close()
	if err := <-done; err == nil {
		t.Error("a token without a secret")
	}
}

// pemOf is a certificate with its key, as a vault holds it.
func pemOf(t *testing.T, pair *tls.Certificate) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
}

// A certificate in a vault signs assertions, and is replaced without a restart.
func TestACertificateInAVault(t *testing.T) {
	t.Parallel()
	vault := vaulttest.Start(t, time.Now)
	first, second := certificate(t, ourKey), certificate(t, anotherKey)
	now := &clock{now: certNow()}
	simulator, err := pcsim.New(pcsim.Config{ClientCertificates: []*x509.Certificate{leaf(t, first)}, Now: now.Now})
	if err != nil {
		t.Fatal(err)
	}
	on := httptest.NewServer(simulator.Handler())
	t.Cleanup(func() {
		simulator.Close()
		on.Close()
	})
	use := func(cfg *pcclient.Config) {
		cfg.Authority, cfg.TenantID, cfg.ClientID, cfg.Flow = on.URL, pcsim.DefaultTenantID, pcsim.DefaultClientID, pcclient.FlowAppOnly
		cfg.ClientSecret, cfg.Now = "", now.Now
		cfg.ClientCertificateVault = tokenstore.VaultSecret{URL: vault.URL, Name: vaulttest.Secret}
		cfg.VaultCredential = vaulttest.Credential{}
	}
	vault.Put(pemOf(t, first))
	r := start(t, setup{config: use})
	if lives := r.Lifetimes(); lives != (pcclient.Lifetimes{}) {
		t.Errorf("before the vault was read: %+v", lives)
	}
	if err := r.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lives := r.Lifetimes(); !lives.Certificate.Equal(leaf(t, first).NotAfter) || lives.AccessToken.IsZero() {
		t.Errorf("lifetimes %+v", lives)
	}
	if err := simulator.RegisterCertificate(leaf(t, second)); err != nil {
		t.Fatal(err)
	}
	vault.Put(pemOf(t, second))
	now.advance(61 * time.Minute)
	if err := r.Token(t.Context()); err != nil {
		t.Error(err)
	}
	r.keepsSecret("PRIVATE KEY")
	for name, content := range map[string]string{
		"no certificate": "canary", "no key": strings.Split(pemOf(t, first), "-----END PRIVATE KEY-----")[1],
		"another's key": strings.Split(pemOf(t, first), "-----BEGIN CERT")[0] + "-----BEGIN CERT" + strings.Split(pemOf(t, second), "-----BEGIN CERT")[1],
	} {
		vault.Put(content)
		err := start(t, setup{config: use}).Token(t.Context())
		failure(t, err, pcclient.ClassCredentials, pcclient.ReasonClientCredential)
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	vault.Put(pemOf(t, first))
	late := start(t, setup{config: func(cfg *pcclient.Config) {
		use(cfg)
		cfg.Now = func() time.Time { return certNow().AddDate(1, 0, 0) }
	}})
	if err := late.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "expired at 2026-12-31") {
		t.Error(err)
	}
}

func TestOneCredentialOnly(t *testing.T) {
	t.Parallel()
	vault := tokenstore.VaultSecret{URL: "https://partner.vault.azure.net", Name: "s"}
	for _, cfg := range []pcclient.Config{
		{},
		{ClientSecret: "s", ClientSecretVault: vault},
		{ClientSecretVault: vault, ClientCertificateVault: vault},
		{ClientSecretVault: tokenstore.VaultSecret{URL: "https://example.com", Name: "s"}},
	} {
		cfg.BaseURL, cfg.Authority, cfg.TenantID, cfg.ClientID = "https://a.example", "https://b.example", "t", "c"
		cfg.Audience, cfg.Flow = "https://api.partnercenter.microsoft.com", pcclient.FlowAppOnly
		if err := cfg.Validate(); err == nil {
			t.Errorf("%+v is valid", cfg)
		}
	}
}
