package pcclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
	"github.com/eligibilityd/eligibilityd/internal/tokenstore/vaulttest"
)

// vaulted is a rig whose refresh token is in a vault.
type vaulted struct {
	*rig

	vault *vaulttest.Vault
}

func (v vaulted) use(cfg *pcclient.Config) {
	cfg.RefreshTokenFile = ""
	cfg.RefreshTokenVault = tokenstore.VaultSecret{URL: v.vault.URL, Name: vaulttest.Secret}
	cfg.VaultCredential = vaulttest.Credential{}
}

func startVaulted(t *testing.T, s setup, change ...func(*pcclient.Config)) vaulted {
	t.Helper()
	var v vaulted
	v.vault = vaulttest.Start(t, func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) })
	v.vault.Put("refresh-0")
	s.config = func(cfg *pcclient.Config) {
		v.use(cfg)
		for _, change := range change {
			change(cfg)
		}
	}
	v.rig = start(t, s)
	return v
}

// vaultHolds fails the test unless the newest version is that one.
func (v vaulted) vaultHolds(want string, versions int) {
	v.t.Helper()
	if got, n := v.vault.Value(), v.vault.Versions(); got != want || n != versions {
		v.t.Fatalf("the vault holds %q in %d versions, want %q in %d", got, n, want, versions)
	}
}

func TestVaultIsWrittenBeforeTheTokenCounts(t *testing.T) {
	t.Parallel()
	var v vaulted
	v = startVaulted(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
		if want := []string{"refresh-1", "refresh-2"}[n-1]; v.vault.Value() != want {
			t.Errorf("request %d came while the vault held %q", n, v.vault.Value())
		}
		responds(http.StatusOK, allowed)(w, req, n)
	}})
	if len(v.vault.Asked()) != 0 {
		t.Errorf("New asked %v", v.vault.Asked())
	}
	v.ask()
	v.aged("0", "7.776e+06")
	v.renew()
	if v.sent() != "refresh-1" {
		t.Errorf("sent %q", v.sent())
	}
	v.vaultHolds("refresh-2", 3)
	v.unstored(0)
	v.keepsSecrets()
}

func TestVaultKeepsATokenThatIsNotRotated(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{login: responds(200, notRotated)})
	v.ask()
	v.renew()
	v.vaultHolds("refresh-0", 1)
	v.unstored(0)
	v.aged("3600", "7.7724e+06") // of the version's date
}

// Replicas share a vault: what one stores, the other takes up; and a token that
// the login host refuses one of them gives way to the other's.
func TestReplicasShareAVault(t *testing.T) {
	t.Parallel()
	refused := false
	one := startVaulted(t, setup{})
	two := start(t, setup{config: one.use, login: func(w http.ResponseWriter, req *http.Request, n int) {
		if req.PostForm.Get("refresh_token") == "refresh-0" && !refused {
			refused = true
			one.ask() // rotates meanwhile
			entra(400, "invalid_grant", 50173)(w, req, n)
			return
		}
		grants(w, req, n)
	}})
	two.ask()
	if two.sent() != "refresh-1" || two.login.count() != 2 {
		t.Errorf("sent %q in %d requests", two.sent(), two.login.count())
	}
	one.vaultHolds("refresh-2", 3)
	one.renew()
	if one.sent() != "refresh-2" {
		t.Errorf("the first sent %q", one.sent())
	}
	one.unstored(0)
	two.unstored(0)
}

// Two that rotate at once: the one that comes later keeps what is there.
func TestReplicasThatRotateAtOnce(t *testing.T) {
	t.Parallel()
	var v vaulted
	v = startVaulted(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		if n == 1 {
			v.vault.Put("theirs")
		}
		grants(w, req, n)
	}})
	v.ask()
	v.vaultHolds("theirs", 2)
	v.renew()
	if v.sent() != "theirs" {
		t.Errorf("sent %q", v.sent())
	}
}

// T-11: what the vault does not take stays in memory, is an alert, and is
// stored when the vault takes it again. A vault that is away altogether is no
// reason to stop, nor to overwrite what may be newer.
func TestVaultThatFailsUnderway(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		method string
		status int
	}{
		"writing is forbidden": {http.MethodPut, http.StatusForbidden},
		"writing fails":        {http.MethodPut, http.StatusServiceUnavailable},
		"writing is throttled": {http.MethodPut, http.StatusTooManyRequests},
		"a deleted secret":     {http.MethodPut, http.StatusConflict},
		"reading fails":        {http.MethodGet, http.StatusInternalServerError},
		"reading is forbidden": {http.MethodGet, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := startVaulted(t, setup{})
			v.ask()
			v.vault.Break(test.method, test.status)
			v.renew()
			v.vaultHolds("refresh-1", 2)
			v.unstored(1)
			v.logged(zapcore.ErrorLevel, "kept in memory only", 1)
			v.renew()
			if v.sent() != "refresh-2" {
				t.Errorf("sent %q, want the one in memory", v.sent())
			}
			v.vault.Mend()
			v.clock.advance(time.Minute)
			eventually(t, "stored", func() bool {
				v.ask()
				return v.shows("refresh_token_unstored 0")
			})
			v.vaultHolds("refresh-3", 3)
			v.counts(3, v.api.count())
			v.keepsSecrets()
		})
	}
}

// At the start there is nothing in memory to go on with.
func TestVaultThatFailsAtTheStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		class  pcclient.Class
		reason pcclient.Reason
		want   error // nil: the vault is away
		logged string
	}{
		"no such secret": {http.StatusNotFound, pcclient.ClassCredentials, pcclient.ReasonRefreshToken, tokenstore.ErrNone, "eligibilityd login"},
		"forbidden":      {http.StatusForbidden, pcclient.ClassCredentials, pcclient.ReasonRefreshToken, tokenstore.ErrUnreadable, "eligibilityd login"},
		"bad request":    {http.StatusBadRequest, pcclient.ClassCredentials, pcclient.ReasonRefreshToken, tokenstore.ErrUnreadable, "eligibilityd login"},
		"down":           {http.StatusServiceUnavailable, pcclient.ClassUnavailable, pcclient.ReasonRefreshTokenStore, nil, "cannot be asked"},
		"throttled":      {http.StatusTooManyRequests, pcclient.ClassUnavailable, pcclient.ReasonRefreshTokenStore, nil, "cannot be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := startVaulted(t, setup{})
			v.vault.Break(http.MethodGet, test.status)
			_, err := v.RefreshToken(t.Context())
			if err == nil || errors.Is(err, tokenstore.ErrNone) != errors.Is(test.want, tokenstore.ErrNone) ||
				errors.Is(err, tokenstore.ErrUnreadable) != errors.Is(test.want, tokenstore.ErrUnreadable) {
				t.Errorf("RefreshToken: %v, want %v", err, test.want)
			}
			if asked := v.vault.Asked(); len(asked) != 2 { // the challenge, and no replay
				t.Errorf("asked %v", asked)
			}
			fail := v.askInVain(test.class, test.reason)
			if fail.Op != pcclient.OpToken || fail.RetryAfter != 0 {
				t.Errorf("got %+v", fail)
			}
			level := zapcore.ErrorLevel
			if test.want == nil {
				level = zapcore.WarnLevel
			}
			v.logged(level, test.logged, 1)
			v.vault.Mend()
			v.clock.advance(30 * time.Second)
			eventually(t, "asked again", func() bool { return v.Token(t.Context()) == nil })
			v.ask()
			v.keepsSecrets(err, &fail)
		})
	}
}

// A vault that is away is asked by probes, and no caller waits for them.
func TestVaultThatIsAwayIsLeftAlone(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{})
	v.vault.Close()
	v.askInVain(pcclient.ClassUnavailable, pcclient.ReasonRefreshTokenStore)
	for n, seconds := range []int{1, 2, 4, 5, 5} {
		renewals := fmt.Sprintf(`token_renewals_total{outcome="refresh_token_store"} %d`, n+1)
		v.clock.advance(time.Duration(seconds)*time.Second - 1)
		v.atOnce()
		if !v.shows(renewals) {
			t.Errorf("asked again before its time:\n%s", v.scrape())
		}
		v.clock.advance(1)
		v.atOnce()
		renewals = fmt.Sprintf(`token_renewals_total{outcome="refresh_token_store"} %d`, n+2)
		eventually(t, "the probe has failed", func() bool { return v.shows(renewals) })
	}
	v.counts(0, 0)
}

// A vault that gives no answer keeps nobody longer than 5 s, and a caller with
// less time leaves on its own.
func TestVaultThatHangs(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{})
	v.vault.Break(http.MethodGet, 0)
	hurried, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	failure(t, v.Token(hurried), pcclient.ClassUnavailable, pcclient.ReasonTimeout)
	failure(t, v.Token(t.Context()), pcclient.ClassUnavailable, pcclient.ReasonRefreshTokenStore)
	v.keepsSecrets()
}

func TestSecretThatIsNoToken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		value string
		want  error
	}{
		"blank": {" \n", tokenstore.ErrNone},
		"huge":  {strings.Repeat("a", 64<<10+1), tokenstore.ErrUnreadable},
	} {
		v := startVaulted(t, setup{})
		v.vault.Put(test.value)
		if _, err := v.RefreshToken(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	v := startVaulted(t, setup{})
	v.vault.Put("  theirs\n")
	v.ask()
	if v.sent() != "theirs" {
		t.Errorf("sent %q", v.sent())
	}
}

// An answer without end is cut off.
func TestVaultThatTalksForEver(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{})
	v.vault.Put(strings.Repeat("a", 2<<20))
	if _, err := v.RefreshToken(t.Context()); err == nil || errors.Is(err, tokenstore.ErrUnreadable) {
		t.Errorf("two megabytes were read to their end: %v", err)
	}
}

// The text of a credential's failure is not repeated.
func TestNoCredentialForTheVault(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{}, func(cfg *pcclient.Config) {
		cfg.VaultCredential = vaulttest.Credential{Err: errors.New("canary-credential")}
	})
	fail := v.askInVain(pcclient.ClassCredentials, pcclient.ReasonRefreshToken)
	if !strings.Contains(fail.Error(), "no Azure credential for the vault") {
		t.Errorf("got %v", &fail)
	}
	v.keepsSecrets(&fail)
}

func TestRefreshTokenReturnsItsStartTime(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{})
	if since, err := v.RefreshToken(t.Context()); err != nil || !since.Equal(v.clock.Now()) {
		t.Errorf("vault: %v, %v", since, err)
	}
	r := start(t, setup{})
	r.bornAt(r.clock.Now().Add(-time.Hour))
	if since, err := r.RefreshToken(t.Context()); err != nil || !since.Equal(r.clock.Now().Add(-time.Hour)) {
		t.Errorf("file: %v, %v", since, err)
	}
	r = start(t, setup{config: appOnly})
	if since, err := r.RefreshToken(t.Context()); err != nil || !since.IsZero() {
		t.Errorf("app-only: %v, %v", since, err)
	}
}

func TestReadOnlyLeavesTheVaultAlone(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{}, func(cfg *pcclient.Config) { cfg.ReadOnly = true })
	v.ask()
	v.vaultHolds("refresh-0", 1)
	if slices.ContainsFunc(v.vault.Asked(), func(asked string) bool { return !strings.HasPrefix(asked, "GET ") }) {
		t.Errorf("asked %v", v.vault.Asked())
	}
}

func TestConsentIsStoredInTheVault(t *testing.T) {
	t.Parallel()
	v := vaulted{vault: vaulttest.Start(t, time.Now)}
	c := startConsent(t, consents(aboutUs(), freshToken), v.use)
	if err := c.CanStore(t.Context()); err != nil {
		t.Errorf("no secret yet: %v", err)
	}
	v.vault.Break(http.MethodGet, http.StatusForbidden)
	if err := c.CanStore(t.Context()); !errors.Is(err, tokenstore.ErrUnreadable) {
		t.Errorf("forbidden: %v", err)
	}
	v.vault.Mend()
	if _, err := c.Redeem(t.Context(), "code"); err != nil {
		t.Fatal(err)
	}
	if v.vault.Value() != "canary-refresh" || c.stored() != "" {
		t.Errorf("the vault holds %q, the file %q", v.vault.Value(), c.stored())
	}
	v.vault.Break(http.MethodPut, http.StatusForbidden)
	if _, err := c.Redeem(t.Context(), "code"); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a consent that cannot be stored: %v", err)
	}
}

func TestConfigOfAVault(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		url, secret string
		fault       string
	}{
		"global":               {"https://partner.vault.azure.net", "a-Secret-1", ""},
		"ends in a slash":      {"https://partner.vault.azure.net/", "s", ""},
		"US government":        {"https://partner.vault.usgovcloudapi.net", "s", ""},
		"China":                {"https://partner.vault.azure.cn", "s", ""},
		"capitals":             {"https://Partner.Vault.Azure.NET", "s", ""},
		"loopback":             {"http://127.0.0.1:1", "s", ""},
		"loopback with TLS":    {"https://localhost:1", "s", ""},
		"plain HTTP":           {"http://partner.vault.azure.net", "s", "URL: must start with https://"},
		"elsewhere":            {"https://partner.vault.azure.net.example", "s", "URL: is of no Azure Key Vault"},
		"no vault's name":      {"https://vault.azure.net", "s", "URL: is of no Azure Key Vault"},
		"a path":               {"https://partner.vault.azure.net/secrets/s", "s", "URL: must not have a path"},
		"no URL":               {"", "s", "URL: must be an absolute URL"},
		"no secret":            {"https://partner.vault.azure.net", "", "name: must be of"},
		"a secret with a path": {"https://partner.vault.azure.net", "a/b", "name: must be of"},
		"a long secret":        {"https://partner.vault.azure.net", strings.Repeat("a", 128), "name: must be of"},
	} {
		cfg := good()
		cfg.RefreshTokenFile, cfg.RefreshTokenVault = "", tokenstore.VaultSecret{URL: test.url, Name: test.secret}
		err := cfg.Validate()
		switch {
		case test.fault == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.fault != "" && (err == nil || !strings.Contains(err.Error(), "refresh token vault: "+test.fault)):
			t.Errorf("%s: got %v, want %s", name, err, test.fault)
		}
		cfg.RefreshTokenFile = "x"
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "conflicts with the file") {
			t.Errorf("%s, and a file: %v", name, err)
		}
	}
}

// A token for the vault goes nowhere that an answer points to.
func TestVaultThatRedirects(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{})
	v.vault.Break(http.MethodGet, http.StatusTemporaryRedirect)
	if _, err := v.RefreshToken(t.Context()); err == nil || errors.Is(err, tokenstore.ErrUnreadable) || !strings.Contains(err.Error(), "status 307") {
		t.Errorf("got %v", err)
	}
	for _, asked := range v.vault.Asked() {
		if strings.HasSuffix(asked, "elsewhere") {
			t.Errorf("asked %s", asked)
		}
	}
}

// A client that is closed while it stores does not lose the token.
func TestClosedClientStoresWhatItWasGranted(t *testing.T) {
	t.Parallel()
	v := startVaulted(t, setup{})
	closed, left := make(chan struct{}), make(chan bool, 1)
	v.vault.BeforePut(func(ctx context.Context) {
		go func() {
			defer close(closed)
			v.Close()
		}()
		select {
		case <-ctx.Done():
			left <- true
		case <-time.After(100 * time.Millisecond):
			left <- false
		}
	})
	_ = v.Token(t.Context())
	if <-left {
		t.Error("the client left before the vault had answered")
	}
	<-closed
	v.vaultHolds("refresh-1", 2)
}
