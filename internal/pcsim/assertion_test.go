package pcsim_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the older thumbprint is one
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// credential is a certificate with its key.
type credential struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

// knownCredential and foreignCredential are generated once because generation
// is slow.
var (
	knownCredential   = sync.OnceValues(makeCredential)
	foreignCredential = sync.OnceValues(makeCredential)
)

func makeCredential() (credential, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return credential{}, err
	}
	cert, err := certify(key.Public(), key)
	return credential{key, cert}, err
}

func certify(public crypto.PublicKey, private crypto.Signer) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "eligibilityd"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func must[T any](t *testing.T, get func() (T, error)) T {
	t.Helper()
	v, err := get()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// claimSet returns valid claims with changes: name, value, …. If a value is
// nil, the claim is removed.
func claimSet(aud string, now time.Time, changes ...any) map[string]any {
	set := map[string]any{
		"aud": aud, "iss": pcsim.DefaultClientID, "sub": pcsim.DefaultClientID, "jti": uuid.NewString(),
		"nbf": now.Unix(), "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}
	return change(set, changes...)
}

func change(set map[string]any, changes ...any) map[string]any {
	for i := 0; i < len(changes); i += 2 {
		name := changes[i].(string)
		set[name] = changes[i+1]
		if changes[i+1] == nil {
			delete(set, name)
		}
	}
	return set
}

// modern and older are the headers of the two forms.
func (c credential) modern(changes ...any) map[string]any {
	sum := sha256.Sum256(c.cert.Raw)
	return change(map[string]any{
		"alg": "PS256", "typ": "JWT", "x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:]),
	}, changes...)
}

func (c credential) older(changes ...any) map[string]any {
	sum := sha1.Sum(c.cert.Raw) //nolint:gosec // see above
	return change(map[string]any{
		"alg": "RS256", "typ": "JWT", "x5t": base64.RawURLEncoding.EncodeToString(sum[:]),
	}, changes...)
}

// sign makes a token; it uses PSS unless the header has RS256.
func (c credential) sign(t *testing.T, header, claims map[string]any) string {
	t.Helper()
	part := func(v map[string]any) string {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	var options crypto.SignerOpts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	if header["alg"] == "RS256" {
		options = crypto.SHA256
	}
	signature, err := c.key.Sign(rand.Reader, sum[:], options)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func asserted(form url.Values, assertion string) url.Values {
	form.Del("client_secret")
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	return form
}

func TestAssertionsDoInPlaceOfTheSecret(t *testing.T) {
	t.Parallel()
	known := must(t, knownCredential)
	r := start(t, pcsim.Config{ClientCertificates: []*x509.Certificate{known.cert}})
	r.set(accountWithStatus("Allowed"))
	both := known.modern("x5t", known.older()["x5t"])
	for path, form := range map[string]url.Values{
		v1Path: refreshForm("resource", audience), v2Path: refreshForm(),
	} {
		for _, header := range []map[string]any{known.modern(), known.older(), both} {
			assertion := known.sign(t, header, claimSet(r.url+"/"+path, r.clock.Now()))
			got := r.grant(path, asserted(form, assertion))
			if got := r.account(customerID, got["access_token"].(string)); got.status != 200 {
				t.Errorf("%s %v: %d", path, header["alg"], got.status)
			}
		}
	}
	appOnly := known.sign(t, known.modern(), claimSet(r.url+"/"+v2Path, r.clock.Now()))
	r.grant(v2Path, asserted(appOnlyForm(), appOnly))
}

func TestAssertionRefusals(t *testing.T) {
	t.Parallel()
	known, foreign := must(t, knownCredential), must(t, foreignCredential)
	r := start(t, pcsim.Config{ClientCertificates: []*x509.Certificate{known.cert}})
	v2 := r.url + "/" + v2Path
	now := r.clock.Now()
	good := func(changes ...any) string { return known.sign(t, known.modern(), claimSet(v2, now, changes...)) }
	parts := strings.Split(good(), ".")
	others := strings.Split(good(), ".")
	tests := []struct {
		name, assertion string
		code            int
	}{
		{"no token", "", 50027},
		{"two parts", strings.Join(parts[:2], "."), 50027},
		{"no base64", parts[0] + "." + parts[1] + ".!", 50027},
		{"header no JSON", base64.RawURLEncoding.EncodeToString([]byte("x")) + "." + parts[1] + "." + parts[2], 50027},
		{"claims no JSON", parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("x")) + "." + parts[2], 50027},
		{"other type", known.sign(t, known.modern("typ", "JWE"), claimSet(v2, now)), 50027},
		{"audience a list", good("aud", []string{v2}), 50027},
		{"no jti", good("jti", nil), 50027},
		{"no exp", good("exp", nil), 50027},
		{"no nbf", good("nbf", nil), 50027},
		{"no iat", good("iat", nil), 50027},
		{"foreign certificate", foreign.sign(t, foreign.modern(), claimSet(v2, now)), 700027},
		{"foreign key", foreign.sign(t, known.modern(), claimSet(v2, now)), 700027},
		{"signature of something else", parts[0] + "." + parts[1] + "." + others[2], 700027},
		{"unsigned", known.sign(t, known.modern("alg", "none"), claimSet(v2, now)), 700027},
		{"no thumbprint", known.sign(t, known.modern("x5t#S256", nil), claimSet(v2, now)), 700027},
		{"PS256 with the older thumbprint", known.sign(t, known.older("alg", "PS256"), claimSet(v2, now)), 700027},
		{"RS256 with the newer thumbprint", known.sign(t, known.modern("alg", "RS256"), claimSet(v2, now)), 700027},
		{"for the other endpoint", known.sign(t, known.modern(), claimSet(r.url+"/"+v1Path, now)), 700023},
		{"for Microsoft", good("aud", "https://login.microsoftonline.com/"+v2Path), 700023},
		{"other issuer", good("iss", "x"), 700021},
		{"other subject", good("sub", "x"), 700021},
		{"over", good("exp", now.Unix()), 700024},
		{"too long", good("exp", now.Unix()+601), 700024},
		{"not begun", good("nbf", now.Unix()+1), 700024},
		{"issued in the future", good("iat", now.Unix()+1), 700024},
	}
	for _, tc := range tests {
		got, err := r.postToken(t.Context(), v2Path, asserted(refreshForm(), tc.assertion))
		if err != nil {
			t.Fatal(err)
		}
		checkEntra(t, tc.name, got, 401, "invalid_client", tc.code)
	}
	form := asserted(refreshForm(), good())
	form.Set("client_assertion_type", "x")
	got, err := r.postToken(t.Context(), v2Path, form)
	if err != nil {
		t.Fatal(err)
	}
	checkEntra(t, "other assertion type", got, 401, "invalid_client", 50027)
	r.grant(v2Path, asserted(refreshForm(), good())) // it was not for the table's sake
}

func TestAssertionsAreGoodOnce(t *testing.T) {
	t.Parallel()
	known := must(t, knownCredential)
	r := start(t, pcsim.Config{ClientCertificates: []*x509.Certificate{known.cert}})
	use := func(name string, id string, code int) {
		t.Helper()
		set := claimSet(r.url+"/"+v2Path, r.clock.Now(), "jti", id)
		got, err := r.postToken(t.Context(), v2Path, asserted(refreshForm(), known.sign(t, known.modern(), set)))
		switch {
		case err != nil:
			t.Fatal(err)
		case code == 0 && got.status != 200:
			t.Errorf("%s: %d %s", name, got.status, got.body)
		case code != 0 && got.status == 200:
			t.Errorf("%s passed", name)
		}
	}
	use("first", "a", 0)
	use("again", "a", 50013)
	use("another", "b", 0)
	r.clock.Advance(10*time.Minute - 1)
	use("again, just before its end", "a", 50013)
	r.clock.Advance(1)
	use("after its end", "a", 0)
}

func TestAssertionsFollowMicrosoftsClock(t *testing.T) {
	t.Parallel()
	known := must(t, knownCredential)
	r := start(t, pcsim.Config{ClientCertificates: []*x509.Certificate{known.cert}})
	for skew, status := range map[time.Duration]int{0: 200, 10 * time.Minute: 401, -10 * time.Minute: 401, 365 * 24 * time.Hour: 401} {
		r.settings(pcsim.Settings{ClockSkew: skew})
		assertion := known.sign(t, known.modern(), claimSet(r.url+"/"+v2Path, r.clock.Now()))
		got, err := r.postToken(t.Context(), v2Path, asserted(refreshForm(), assertion))
		if err != nil || got.status != status {
			t.Errorf("%v: %d %v, want %d", skew, got.status, err, status)
		}
	}
	r.settings(pcsim.Settings{})
	for name, move := range map[string]time.Duration{"not yet good": -365 * 24 * time.Hour, "run out": 2 * 365 * 24 * time.Hour} {
		r.clock.Advance(move)
		assertion := known.sign(t, known.modern(), claimSet(r.url+"/"+v2Path, r.clock.Now()))
		got, err := r.postToken(t.Context(), v2Path, asserted(refreshForm(), assertion))
		if err != nil || !strings.Contains(got.body, "AADSTS700027") {
			t.Errorf("certificate %s: %s %v", name, got.body, err)
		}
		r.clock.Advance(-move)
	}
}

func TestCertificatesCanBeRegisteredLater(t *testing.T) {
	t.Parallel()
	known, foreign := must(t, knownCredential), must(t, foreignCredential)
	r := start(t, pcsim.Config{})
	for _, c := range []credential{known, foreign} {
		if err := r.RegisterCertificate(c.cert); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []credential{known, foreign} {
		r.grant(v2Path, asserted(refreshForm(), c.sign(t, c.modern(), claimSet(r.url+"/"+v2Path, r.clock.Now()))))
	}
}

func TestAssertionsOverTLSNameTheEndpointSo(t *testing.T) {
	t.Parallel()
	known := must(t, knownCredential)
	r := start(t, pcsim.Config{ClientCertificates: []*x509.Certificate{known.cert}})
	ts := httptest.NewTLSServer(r.Handler())
	t.Cleanup(ts.Close)
	tls := &rig{Server: r.Server, t: t, url: ts.URL, client: ts.Client(), clock: r.clock}
	tls.grant(v2Path, asserted(refreshForm(), known.sign(t, known.modern(), claimSet(ts.URL+"/"+v2Path, r.clock.Now()))))
}

func TestOnlyRSACertificatesAreTaken(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := certify(key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for want, cert := range map[string]*x509.Certificate{"ECDSA": curve, "nil": nil} {
		if err := newServer(t).RegisterCertificate(cert); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("RegisterCertificate: %v, want %s", err, want)
		}
		_, err := pcsim.New(pcsim.Config{ClientCertificates: []*x509.Certificate{cert}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want %s", err, want)
		}
	}
}
