package access_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

const (
	clientID     = "console"
	clientSecret = "a secret: of the client & more"
	redirectURI  = "https://gate.example/console/callback"
)

// signingIn is a provider and the client that signs people in at it.
type signingIn struct {
	issuer   *accesstest.Issuer
	provider *accesstest.Provider
	access   *access.Authenticator
	openID   *access.OpenID
	secret   string
}

func newSigningIn(t *testing.T, change func(cfg *access.Issuer)) *signingIn {
	t.Helper()
	s := &signingIn{issuer: accesstest.NewQuickIssuer(t), secret: clientSecret}
	s.provider = s.issuer.Provide(t, &accesstest.Provider{
		ClientID: clientID, ClientSecret: clientSecret, RedirectURIs: []string{redirectURI},
		People: []accesstest.Person{{Name: "anna@contoso.example", Roles: []string{"Eligibility.Support", "fresh", "unknown"}}},
	})
	s.authenticate(t, change)
	return s
}

// again returns a client that knows nothing yet, at the same provider.
func (s *signingIn) again(t *testing.T) *signingIn {
	t.Helper()
	other := &signingIn{issuer: s.issuer, provider: s.provider, secret: s.secret}
	other.authenticate(t, nil)
	return other
}

func (s *signingIn) authenticate(t *testing.T, change func(cfg *access.Issuer)) {
	t.Helper()
	cfg := access.Issuer{
		Issuer: s.issuer.URL, Audiences: []string{accesstest.Audience}, Algorithms: []string{"ES256"}, CallerClaim: "azp", RightsClaim: "roles",
		Rights: map[string][]string{"Eligibility.Support": {"support", "check"}},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	s.access, err = access.New(access.Config{
		JWT: []access.Issuer{cfg}, Logger: nop(), Callers: map[string]access.Grant{"anna@contoso.example": {Partners: []string{"contoso-eu"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.openID, err = s.access.OpenID(s.issuer.URL, clientID, func() []byte { return []byte(s.secret) }); err != nil {
		t.Fatal(err)
	}
}

// fetch fetches what Run fetches.
func (s *signingIn) fetch(t *testing.T) {
	t.Helper()
	if err := s.access.FetchKeys(t.Context(), s.issuer.URL); err != nil {
		t.Fatal(err)
	}
}

func attempt() access.Attempt {
	return access.Attempt{
		State: "the state", Nonce: "the nonce", RedirectURI: redirectURI,
		Verifier: "a-verifier-that-is-long-enough-for-the-specification",
	}
}

// begin returns the code with which the provider sends a person back.
func (s *signingIn) begin(t *testing.T, a access.Attempt) string {
	t.Helper()
	at, err := s.openID.SignInURL(a)
	if err != nil {
		t.Fatal(err)
	}
	back, err := url.Parse(accesstest.Choose(t, at, "anna@contoso.example"))
	if err != nil || back.Query().Get("state") != a.State || back.Query().Get("code") == "" {
		t.Fatalf("sent back to %v, %v", back, err)
	}
	return back.Query().Get("code")
}

func TestAPersonSignsIn(t *testing.T) {
	t.Parallel()
	for name, methods := range map[string]any{"in the form": []string{"client_secret_post"}, "in the header": []string{"client_secret_basic"}, "by default": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSigningIn(t, nil)
			s.issuer.Discover("token_endpoint_auth_methods_supported", methods)
			s.fetch(t)
			person, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt()))
			if err != nil {
				t.Fatal(err)
			}
			if person.Name != "anna@contoso.example" || person.Rights != access.Support|access.Check|access.Fresh {
				t.Errorf("%+v", person)
			}
			want := &access.Caller{Name: "console", Person: person.Name, Rights: person.Rights, Partners: []string{"contoso-eu"}}
			if diff := cmp.Diff(want, s.openID.Caller(person)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if other := s.openID.Caller(access.Person{Name: "bert"}); other.Partners != nil {
				t.Errorf("%+v", other)
			}
		})
	}
}

// A code is worth nothing without what the sign-in began with, nor twice.
func TestACodeCountsOnceAndForItsSignIn(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	s.fetch(t)
	for name, change := range map[string]func(a *access.Attempt){
		"another verifier": func(a *access.Attempt) { a.Verifier += "x" },
		"another address":  func(a *access.Attempt) { a.RedirectURI = "https://evil.example/console/callback" },
	} {
		a := attempt()
		code := s.begin(t, a)
		change(&a)
		var fault *access.ProviderError
		if _, err := s.openID.SignIn(t.Context(), a, code); !errors.As(err, &fault) || fault.Code != "invalid_grant" {
			t.Errorf("%s: %v", name, err)
		}
	}
	code := s.begin(t, attempt())
	if _, err := s.openID.SignIn(t.Context(), attempt(), code); err != nil {
		t.Fatal(err)
	}
	if _, err := s.openID.SignIn(t.Context(), attempt(), code); err == nil {
		t.Error("a code counted twice")
	}
	for _, code := range []string{"", strings.Repeat("x", 5000)} {
		if _, err := s.openID.SignIn(t.Context(), attempt(), code); err == nil {
			t.Errorf("a code of %d bytes was sent", len(code))
		}
	}
}

func TestLiesOfIDTokensAreRefused(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, func(cfg *access.Issuer) { cfg.Require = map[string]string{"tid": "the tenant", "idtyp": "app"} })
	s.fetch(t)
	elsewhere := accesstest.NewQuickIssuer(t)
	signed := func(change map[string]any) func(map[string]any) string {
		return func(claims map[string]any) string {
			for name, value := range change {
				if claims[name] = value; value == nil {
					delete(claims, name)
				}
			}
			return s.issuer.Key().Sign(t, nil, claims)
		}
	}
	hour := time.Hour
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	accepted := map[string]func(map[string]any) string{
		"as it should be":            signed(nil),
		"its own azp":                signed(map[string]any{"azp": clientID}),
		"several audiences":          signed(map[string]any{"aud": []string{"x", clientID}, "azp": clientID}),
		"a name of another language": signed(map[string]any{"preferred_username": "Ærøskøbing 日本"}),
		"no rights":                  signed(map[string]any{"roles": nil}),
	}
	refused := map[string]func(map[string]any) string{
		"none":          func(map[string]any) string { return "" },
		"no token":      func(map[string]any) string { return "a.b" },
		"no JSON":       func(map[string]any) string { return "a.b.c" },
		"large":         func(map[string]any) string { return strings.Repeat("a", 5000) + "." + strings.Repeat("b", 5000) + ".c" },
		"control bytes": func(map[string]any) string { return "a.b\n.c" },
		"alg none": func(claims map[string]any) string {
			return accesstest.Unsigned(t, map[string]any{"alg": "none", "typ": "JWT"}, claims) + "."
		},
		"alg none, signed": func(claims map[string]any) string {
			return accesstest.Unsigned(t, map[string]any{"alg": "none", "typ": "JWT"}, claims) + ".AAAA"
		},
		"HS256 with the client secret": func(claims map[string]any) string {
			text := accesstest.Unsigned(t, map[string]any{"alg": "HS256", "typ": "JWT"}, claims)
			signature, err := jwt.SigningMethodHS256.Sign(text, []byte(clientSecret))
			if err != nil {
				t.Error(err)
			}
			return text + "." + jwt.New(jwt.SigningMethodHS256).EncodeSegment(signature)
		},
		"another key":             func(claims map[string]any) string { return elsewhere.Key().Sign(t, nil, claims) },
		"another issuer":          signed(map[string]any{"iss": elsewhere.URL}),
		"another audience":        signed(map[string]any{"aud": accesstest.Audience}),
		"no audience":             signed(map[string]any{"aud": nil}),
		"issued to another":       signed(map[string]any{"azp": "another"}),
		"azp no text":             signed(map[string]any{"azp": 7}),
		"several and no azp":      signed(map[string]any{"aud": []string{"x", clientID}}),
		"another nonce":           signed(map[string]any{"nonce": "the nonce of another"}),
		"no nonce":                signed(map[string]any{"nonce": nil}),
		"an empty nonce":          signed(map[string]any{"nonce": ""}),
		"expired":                 signed(map[string]any{"exp": at(-hour)}),
		"no expiry":               signed(map[string]any{"exp": nil}),
		"issued long ago":         signed(map[string]any{"iat": at(-hour)}),
		"issued in the future":    signed(map[string]any{"iat": at(hour)}),
		"no time of issue":        signed(map[string]any{"iat": nil}),
		"not yet valid":           signed(map[string]any{"nbf": at(hour)}),
		"another tenant":          signed(map[string]any{"tid": "another"}),
		"nobody":                  signed(map[string]any{"preferred_username": nil, "sub": nil}),
		"a long name":             signed(map[string]any{"preferred_username": strings.Repeat("x", 129)}),
		"a name with a line":      signed(map[string]any{"preferred_username": "anna\nlevel=error"}),
		"a name that turns right": signed(map[string]any{"preferred_username": "anna\u202egnp"}),
		"a name that is a number": signed(map[string]any{"preferred_username": 7}),
		"an empty name":           signed(map[string]any{"preferred_username": ""}),
		"rights no list":          signed(map[string]any{"roles": 7}),
	}
	for _, rows := range []map[string]func(map[string]any) string{accepted, refused} {
		for name, token := range rows {
			s.provider.Change(func(p *accesstest.Provider) {
				p.IDToken = func(claims map[string]any) string {
					if _, has := claims["tid"]; !has {
						claims["tid"] = "the tenant"
					}
					return token(claims)
				}
			})
			person, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt()))
			_, want := accepted[name]
			if (err == nil) != want || (person != access.Person{}) != want {
				t.Errorf("%s: %+v, %v", name, person, err)
			}
			if err != nil && (strings.Contains(err.Error(), clientSecret) || strings.Contains(err.Error(), "anna") || strings.Contains(err.Error(), "eyJ")) {
				t.Errorf("%s: the error repeats what was sent: %v", name, err)
			}
			// Let the limit of sign-ins recover: it is not examined here.
			s.openID.PermitExchanges()
		}
	}
}

func TestThePersonIsNamedByTheFirstClaim(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	s.fetch(t)
	for want, more := range map[string]map[string]any{
		"anna@contoso.example":             {"email": "b@contoso.example"},
		"b@contoso.example":                {"preferred_username": nil, "email": "b@contoso.example", "email_verified": true},
		"subject of anna@contoso.example":  {"preferred_username": nil},
		"subject of anna@contoso.example ": {"preferred_username": nil, "sub": "subject of anna@contoso.example "},
		"not verified":                     {"preferred_username": nil, "email": "b@contoso.example", "email_verified": false, "sub": "not verified"},
		"not known whether verified":       {"preferred_username": nil, "email": "b@contoso.example", "sub": "not known whether verified"},
		"verified by a text":               {"preferred_username": nil, "email": "b@contoso.example", "email_verified": "true", "sub": "verified by a text"},
	} {
		s.provider.Change(func(p *accesstest.Provider) { p.People[0].More = more })
		person, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt()))
		if err != nil || person.Name != want {
			t.Errorf("%v: %+v, %v", more, person, err)
		}
	}
}

func TestFaultsOfTheTokenEndpoint(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	s.fetch(t)
	write := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	const canary = "canary"
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		code   string // in place of cause
	}{
		"500":                     {write(http.StatusInternalServerError, "<html>"+canary), ""},
		"a code":                  {write(http.StatusBadRequest, `{"error":"temporarily_unavailable","error_description":"canary"}`), "temporarily_unavailable"},
		"a code of another shape": {write(http.StatusBadRequest, `{"error":"<script>canary</script>"}`), "unknown"},
		"a long code":             {write(http.StatusBadRequest, `{"error":"`+strings.Repeat("x", 65)+`"}`), "unknown"},
		"a code that is a list":   {write(http.StatusBadRequest, `{"error":["canary"]}`), ""},
		"a page":                  {write(http.StatusOK, "<html>"+canary), ""},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/canary", http.StatusTemporaryRedirect)
		}, ""},
		"without an end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(canary, 1000))); err != nil {
					return
				}
			}
		}, ""},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`{"id_token":"canary`))
		}, ""},
	} {
		s.provider.Change(func(p *accesstest.Provider) { p.Token = row.answer })
		_, err := s.openID.SignIn(t.Context(), attempt(), "a code")
		var fault *access.ProviderError
		if !errors.As(err, &fault) || fault.Code != row.code || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "without an end" && !strings.Contains(err.Error(), "larger than 256 KiB") {
			t.Errorf("%s: %v", name, err)
		}
	}

	// The request is given up with the browser's.
	asked := make(chan struct{})
	s.provider.Change(func(p *accesstest.Provider) {
		p.Token = func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or net/http does not notice that the client leaves
			close(asked)
			<-r.Context().Done()
		}
	})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-asked
		leave()
	}()
	var fault *access.ProviderError
	if _, err := s.openID.SignIn(ctx, attempt(), "a code"); !errors.As(err, &fault) || !errors.Is(err, context.Canceled) {
		t.Errorf("a slow one: %v", err)
	}
	s.issuer.Close()
	if _, err := s.openID.SignIn(t.Context(), attempt(), "a code"); !errors.As(err, &fault) {
		t.Errorf("a closed one: %v", err)
	}
}

func TestASecretThatChangesIsUsed(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	s.fetch(t)
	s.provider.Change(func(p *accesstest.Provider) { p.ClientSecret = "another" })
	var fault *access.ProviderError
	if _, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt())); !errors.As(err, &fault) || fault.Code != "invalid_client" {
		t.Errorf("the old one: %v", err)
	}
	s.secret = "another"
	if _, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt())); err != nil {
		t.Errorf("the new one: %v", err)
	}
}

func TestNobodySignsInBeforeTheConfigurationIsKnown(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	if _, err := s.openID.SignInURL(attempt()); !errors.Is(err, access.ErrNotReady) {
		t.Errorf("%v", err)
	}
	if _, err := s.openID.SignIn(t.Context(), attempt(), "x"); !errors.Is(err, access.ErrNotReady) {
		t.Errorf("%v", err)
	}
	if !s.access.Wanted(s.issuer.URL) {
		t.Error("the configuration is not asked for")
	}
	for member, values := range map[string][]any{
		"authorization_endpoint": {nil, "", 7, "http://evil.example/", "javascript:alert(1)", "https://u:p@evil.example/"},
		"token_endpoint":         {nil, "http://evil.example/"},
		"end_session_endpoint":   {"javascript:alert(1)", "//evil.example"},
	} {
		good := s.issuer.URL + "/there"
		for _, value := range values {
			s := s.again(t)
			s.issuer.Discover(member, value)
			s.fetch(t)
			if _, err := s.openID.SignInURL(attempt()); !errors.Is(err, access.ErrNotReady) {
				t.Errorf("%s %v: %v", member, value, err)
			}
			s.issuer.Discover(member, good)
			s.fetch(t)
			if _, err := s.openID.SignInURL(attempt()); err != nil {
				t.Errorf("%s: %v", member, err)
			}
		}
	}
}

// Callers depend on the keys only, whose address is configured.
func TestKeysComeWithoutAConfigurationToSignInWith(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, func(cfg *access.Issuer) { cfg.KeysURL = cfg.Issuer + accesstest.KeysPath })
	s.issuer.Discover("issuer", "https://another.example")
	s.fetch(t)
	if _, err := s.openID.SignInURL(attempt()); !errors.Is(err, access.ErrNotReady) {
		t.Errorf("%v", err)
	}
	if _, err := s.access.Authenticate(access.Credentials{Authorization: []string{"Bearer " + s.issuer.Token(t, "checkout", nil)}}); err != nil {
		t.Errorf("a caller is refused: %v", err)
	}
	s.issuer.Discover("issuer", s.issuer.URL)
	s.fetch(t)
	if _, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt())); err != nil {
		t.Error(err)
	}
}

// An operator sees that nobody can sign in, although the keys come.
func TestAnIssuerWithoutAConfigurationToSignInWithIsDegraded(t *testing.T) {
	t.Parallel()
	for member, value := range map[string]string{"issuer": "https://another.example", "token_endpoint": "", "none": ""} {
		for _, keysURL := range []string{"", accesstest.KeysPath} {
			if member == "issuer" && keysURL == "" {
				continue // no keys either
			}
			s := newSigningIn(t, func(cfg *access.Issuer) {
				if keysURL != "" {
					cfg.KeysURL = cfg.Issuer + keysURL
				}
			})
			s.issuer.Discover(member, value)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.access.Run(ctx) }()
			s.access.AwaitKeys(ctx)
			want := health.Condition{State: health.Degraded, Kind: "failed"}
			if member == "none" {
				want = health.Condition{State: health.OK}
			}
			if got := s.access.Components()[0].Read(); got.State != want.State || got.Kind != want.Kind {
				t.Errorf("%s, keys at %q: %+v", member, keysURL, got)
			}
			if _, err := s.access.Authenticate(access.Credentials{Authorization: []string{"Bearer " + s.issuer.Token(t, "checkout", nil)}}); err != nil {
				t.Errorf("a caller is refused: %v", err)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAKeyThatIsNotKnownYetIsNoRefusal(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	s.fetch(t)
	s.issuer.Publish(accesstest.NewKey(t, "second", "ES256"))
	if _, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt())); !errors.Is(err, access.ErrNotReady) {
		t.Errorf("%v", err)
	}
	s.fetch(t)
	if _, err := s.openID.SignIn(t.Context(), attempt(), s.begin(t, attempt())); err != nil {
		t.Error(err)
	}
}

func TestAddressesOfTheProviderKeepTheirParameters(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	if s.openID.SignOutURL("https://x.example/") != "" {
		t.Error("an address that is not known")
	}
	s.issuer.Discover("authorization_endpoint", s.issuer.URL+"/authorize?p=B2C_1&state=theirs#x")
	s.issuer.Discover("end_session_endpoint", s.issuer.URL+"/out?p=B2C_1")
	s.fetch(t)
	at, err := s.openID.SignInURL(attempt())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"p": {"B2C_1"}, "client_id": {clientID}, "redirect_uri": {redirectURI}, "response_type": {"code"}, "scope": {"openid profile email"},
		"state": {"the state"}, "nonce": {"the nonce"}, "code_challenge_method": {"S256"}, "code_challenge": parsed.Query()["code_challenge"],
	}
	if diff := cmp.Diff(want, parsed.Query()); diff != "" || parsed.Fragment != "" || strings.Contains(at, attempt().Verifier) {
		t.Errorf("%s (-want +got):\n%s", at, diff)
	}
	if got := s.openID.SignOutURL("https://x.example/?a=b"); got != s.issuer.URL+"/out?client_id=console&p=B2C_1&post_logout_redirect_uri=https%3A%2F%2Fx.example%2F%3Fa%3Db" {
		t.Error(got)
	}
}

// Anybody can make the service send a code to the provider, but not without a bound.
func TestSignInsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	s.fetch(t)
	busy := 0
	for range 200 {
		if _, err := s.openID.SignIn(t.Context(), attempt(), "no code"); errors.Is(err, access.ErrBusy) {
			busy++
		}
	}
	if busy == 0 {
		t.Error("200 at once were sent")
	}
}

func TestAnIssuerOfTheConsoleMustBeKnown(t *testing.T) {
	t.Parallel()
	s := newSigningIn(t, nil)
	if _, err := s.access.OpenID("https://another.example", clientID, nil); err == nil {
		t.Error("an issuer that is not of auth.jwt")
	}
}
