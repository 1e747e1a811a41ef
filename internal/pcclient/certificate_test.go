package pcclient_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// certNow is a time in the life of the certificates, which is 2026 in UTC.
func certNow() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// ourKey and anotherKey are made once: keys take their time.
var (
	ourKey     = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	anotherKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
)

func certify(t *testing.T, key crypto.Signer) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "eligibilityd"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func certificate(t *testing.T, makeKey func() (*rsa.PrivateKey, error)) *tls.Certificate {
	t.Helper()
	key, err := makeKey()
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, key)
}

func TestConfigOfACertificate(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it is to be refused
	if err != nil {
		t.Fatal(err)
	}
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ours, other := certificate(t, ourKey), certificate(t, anotherKey)
	at := func(year int, month time.Month, day, sec int) func() time.Time {
		return func() time.Time { return time.Date(year, month, day, 0, 0, sec, 0, time.UTC) }
	}
	for name, test := range map[string]struct {
		cert  *tls.Certificate
		now   func() time.Time
		fault string
	}{
		"good":           {ours, certNow, ""},
		"its first":      {ours, at(2026, 1, 1, 0), ""},
		"too early":      {ours, at(2026, 1, 1, -1), "is not valid before 2026-01-01T00:00:00Z"},
		"its last":       {ours, at(2027, 1, 1, -1), ""},
		"too late":       {ours, at(2027, 1, 1, 0), "expired at 2026-12-31T23:59:59Z"},
		"empty":          {&tls.Certificate{}, certNow, "is empty"},
		"no certificate": {&tls.Certificate{Certificate: [][]byte{[]byte("canary-secret")}}, certNow, "cannot be read"},
		"no key":         {&tls.Certificate{Certificate: ours.Certificate}, certNow, "needs its RSA private key"},
		"no RSA key":     {&tls.Certificate{Certificate: ours.Certificate, PrivateKey: elliptical}, certNow, "needs its RSA private key"},
		"another's key":  {&tls.Certificate{Certificate: ours.Certificate, PrivateKey: other.PrivateKey}, certNow, "does not belong to the private key"},
		"not RSA":        {certify(t, elliptical), certNow, "must have an RSA key"},
		"a short key":    {certify(t, small), certNow, "must have a key of at least 2048 bits"},
	} {
		cfg := good()
		cfg.ClientSecret, cfg.ClientCertificate, cfg.Now = "", test.cert, test.now
		err := cfg.Validate()
		switch {
		case test.fault == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.fault != "" && (err == nil || err.Error() != "partner center: client certificate: "+test.fault):
			t.Errorf("%s: got %v, want %s", name, err, test.fault)
		}
	}
	both := good()
	both.ClientCertificate, both.Now = ours, certNow
	if err := both.Validate(); err == nil || err.Error() != "partner center: client certificate: conflicts with the client secret" {
		t.Errorf("both credentials: %v", err)
	}
}

// certified is a rig at a simulator that knows our certificate.
type certified struct {
	sim   *pcsim.Server
	host  *host
	file  string
	clock *clock
}

func startCertified(t *testing.T, known ...*x509.Certificate) certified {
	t.Helper()
	c := certified{file: filepath.Join(t.TempDir(), "refresh-token"), clock: &clock{now: certNow()}}
	var err error
	if c.sim, err = pcsim.New(pcsim.Config{ClientCertificates: known, Now: c.clock.Now}); err != nil {
		t.Fatal(err)
	}
	handler := c.sim.Handler()
	c.host = listen(t, func(w http.ResponseWriter, r *http.Request, _ int) { handler.ServeHTTP(w, r) })
	t.Cleanup(c.sim.Close)
	if err := os.WriteFile(c.file, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c certified) assertions() (all []string) {
	for _, asked := range c.host.asked() {
		if assertion := asked.form.Get("client_assertion"); assertion != "" {
			all = append(all, assertion)
		}
	}
	return all
}

func leaf(t *testing.T, pair *tls.Certificate) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func decoded(t *testing.T, part string) (object map[string]any) {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || json.Unmarshal(text, &object) != nil {
		t.Fatalf("%q: %v", part, err)
	}
	return object
}

// T-07: the simulator checks the signature, the claims and that each assertion
// comes once; what it does not check is compared here.
func TestACertificateStandsInForTheSecret(t *testing.T) {
	t.Parallel()
	ours := certificate(t, ourKey)
	for name, flow := range map[string]pcclient.Flow{"app+user": pcclient.FlowAppUser, "app-only": pcclient.FlowAppOnly} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCertified(t, leaf(t, ours))
			r := start(t, setup{config: func(cfg *pcclient.Config) { c.use(cfg, ours); cfg.Flow = flow }})
			if err := r.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			all := c.assertions()
			if len(all) == 0 {
				t.Fatal("no assertion was sent")
			}
			for _, asked := range c.host.asked() {
				if asked.form.Has("client_secret") || asked.form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
					t.Errorf("form %v", asked.form)
				}
			}
			c.looksRight(t, ours, all[0])
			lives := r.Lifetimes()
			if left := lives.AccessToken.Sub(certNow()); !lives.Certificate.Equal(leaf(t, ours).NotAfter) || left < time.Minute || left > 24*time.Hour {
				t.Errorf("lifetimes %+v", lives)
			}
		})
	}
}

// use points a configuration at the simulator, with that certificate.
func (c certified) use(cfg *pcclient.Config, pair *tls.Certificate) {
	cfg.BaseURL, cfg.Authority = c.host.URL, c.host.URL
	cfg.TenantID, cfg.ClientID = pcsim.DefaultTenantID, pcsim.DefaultClientID
	cfg.ClientSecret, cfg.ClientCertificate = "", pair
	cfg.RefreshTokenFile, cfg.Now = c.file, c.clock.Now
}

func (c certified) looksRight(t *testing.T, pair *tls.Certificate, assertion string) {
	t.Helper()
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	sum := sha256.Sum256(pair.Certificate[0])
	if diff := cmp.Diff(map[string]any{
		"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:]),
	}, decoded(t, parts[0])); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	claims := decoded(t, parts[1])
	id, _ := claims["jti"].(string)
	if parsed, err := uuid.Parse(id); err != nil || parsed.Version() != 4 {
		t.Errorf("jti %q", id)
	}
	delete(claims, "jti")
	now := certNow().Unix()
	if diff := cmp.Diff(map[string]any{
		"aud": c.host.URL + "/" + pcsim.DefaultTenantID + "/oauth2/v2.0/token",
		"iss": pcsim.DefaultClientID, "sub": pcsim.DefaultClientID,
		"nbf": float64(now - 10), "iat": float64(now - 10), "exp": float64(now + 300),
	}, claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

// Each attempt has an assertion of its own, replays and renewals included.
func TestNoAssertionIsSentTwice(t *testing.T) {
	t.Parallel()
	ours := certificate(t, ourKey)
	r := start(t, setup{
		login: inTurn{entra(http.StatusServiceUnavailable, "temporarily_unavailable", 90033), grants}.play,
		config: func(cfg *pcclient.Config) {
			cfg.ClientSecret, cfg.ClientCertificate = "", ours
		},
	})
	r.ask()
	r.clock.advance(2 * time.Hour)
	r.ask()
	seen := map[string]bool{}
	for _, asked := range r.login.asked() {
		seen[asked.form.Get("client_assertion")] = true
	}
	if r.login.count() != 3 || len(seen) != 3 || seen[""] {
		t.Errorf("%d requests with %d assertions, none sent: %v", r.login.count(), len(seen), seen[""])
	}
}

// F-07: a certificate that the application does not know.
func TestAnUnknownCertificateIsRefused(t *testing.T) {
	t.Parallel()
	ours := certificate(t, ourKey)
	c := startCertified(t, leaf(t, certificate(t, anotherKey)))
	r := start(t, setup{config: func(cfg *pcclient.Config) { c.use(cfg, ours) }})
	fail := r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidClient)
	if fail.Code != "invalid_client" {
		t.Errorf("code %q", fail.Code)
	}
	if codes := fail.LoginCodes(); len(codes) != 1 || codes[0] != 700027 {
		t.Errorf("AADSTS %v", codes)
	}
	r.leaksNothing(t, c.assertions(), &fail)
}

// leaksNothing fails the test if an assertion stands in an error, the log or
// a metric.
func (r *rig) leaksNothing(t *testing.T, assertions []string, err error) {
	t.Helper()
	if len(assertions) == 0 {
		t.Error("no assertion was sent: nothing is tested")
	}
	output := fmt.Sprintf("%v %+v %#v %s", err, err, err, r.scrape())
	for _, entry := range r.logs.All() {
		output += fmt.Sprint(entry.Message, entry.ContextMap())
	}
	for _, assertion := range assertions {
		for part := range strings.SplitSeq(assertion, ".") {
			if strings.Contains(output, part) {
				t.Errorf("an assertion leaked: %s", output)
			}
		}
	}
}

// The consent's one request is signed as well.
func TestConsentWithACertificate(t *testing.T) {
	t.Parallel()
	ours := certificate(t, ourKey)
	c := startCertified(t, leaf(t, ours))
	cfg := good()
	c.use(&cfg, ours)
	consent, err := pcclient.NewConsent(cfg, redirect)
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := consent.Redeem(t.Context(), codeFrom(t, consent.URL()))
	if err != nil || tenant != pcsim.DefaultTenantID {
		t.Fatalf("tenant %q, %v", tenant, err)
	}
	if len(c.assertions()) != 1 {
		t.Errorf("%d assertions", len(c.assertions()))
	}
	stored, err := os.ReadFile(c.file)
	if err != nil || string(stored) == pcsim.DefaultRefreshToken || len(stored) == 0 {
		t.Errorf("stored %d bytes, %v", len(stored), err)
	}
}

// codeFrom consents at the simulator's page and returns the code.
func codeFrom(t *testing.T, page string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{
		Jar: jar, Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	decision := url.Values{"account": {pcsim.PartnerAccount}, "decision": {"accept"}}.Encode()
	var location string
	for _, step := range []*http.Request{
		httptest.NewRequestWithContext(t.Context(), http.MethodGet, page, http.NoBody),
		httptest.NewRequestWithContext(t.Context(), http.MethodPost, page, strings.NewReader(decision)),
	} {
		step.RequestURI = "" // a server's only
		step.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := browser.Do(step)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		location = resp.Header.Get("Location")
	}
	u, err := url.Parse(location)
	if err != nil || u.Query().Get("code") == "" {
		t.Fatalf("sent to %q, %v", location, err)
	}
	return u.Query().Get("code")
}
