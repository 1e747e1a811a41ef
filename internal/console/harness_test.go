package console

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

const (
	testClient = "the console"
	testSecret = "the secret of the client"
	anna       = "anna@contoso.example" // has every right
	bert       = "bert@contoso.example" // lacks support
)

// gatedSite is a console that people sign in to, and its provider.
type gatedSite struct {
	*Handler

	URL      string
	server   *httptest.Server
	issuer   *accesstest.Issuer
	provider *accesstest.Provider
	logs     *observer.ObservedLogs
	secret   atomic.Pointer[string]
	ahead    atomic.Int64 // by which the clock is set, a time.Duration
	posted   atomic.Int64 // forms that reached /console/test
	run      func()       // begins to fetch what the provider publishes
}

// newSite starts a console over TLS, with the pages /console/test, which shows a form,
// and /console/panic. What the provider publishes is known.
func newSite(t *testing.T) *gatedSite {
	t.Helper()
	s := newUnreadySite(t)
	s.run()
	return s
}

// newUnreadySite is newSite before what the provider publishes is known.
func newUnreadySite(t *testing.T) *gatedSite {
	t.Helper()
	s := &gatedSite{issuer: accesstest.NewQuickIssuer(t)}
	secret := testSecret
	s.secret.Store(&secret)
	auth, err := access.New(access.Config{Logger: zap.NewNop(), JWT: []access.Issuer{{
		Issuer: s.issuer.URL, Audiences: []string{accesstest.Audience}, Algorithms: []string{"ES256"}, CallerClaim: "azp", RightsClaim: "roles",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	openID, err := auth.OpenID(s.issuer.URL, testClient, s.clientSecret)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	s.logs = logs
	s.Handler, err = New(Config{
		SignIn: &SignIn{Provider: openID, Secret: s.clientSecret}, Logger: zap.New(core), Version: "1.2.3",
		Now: func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.addPages()
	s.serve(t)
	s.provider = s.issuer.Provide(t, &accesstest.Provider{
		ClientID: testClient, ClientSecret: testSecret, RedirectURIs: []string{s.URL + "/console/callback"}, SignedOutURIs: []string{s.URL + "/console/signed-out"},
		People: []accesstest.Person{{Name: anna, Roles: access.Words()}, {Name: bert, Roles: []string{"check"}}, {Name: "nobody"}},
	})
	s.run = func() {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- auth.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		auth.AwaitKeys(ctx)
	}
	return s
}

func (s *gatedSite) serve(t *testing.T) {
	t.Helper()
	s.server = httptest.NewUnstartedServer(s.Handler)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that a panic ends
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	s.URL = s.server.URL
}

func (s *gatedSite) clientSecret() []byte { return []byte(*s.secret.Load()) }

func (s *gatedSite) addPages() {
	s.mux.HandleFunc("GET /console/test", s.signedIn(access.Support, func(w http.ResponseWriter, r *http.Request, u *user) {
		s.fail(w, r, u, http.StatusOK, "query "+r.URL.RawQuery)
	}))
	s.mux.HandleFunc("POST /console/test", s.signedIn(access.Support, func(w http.ResponseWriter, r *http.Request, u *user) {
		s.posted.Add(1)
		s.fail(w, r, u, http.StatusOK, "posted "+r.PostForm.Get("text"))
	}))
	s.mux.HandleFunc("GET /console/panic", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("late") {
			w.WriteHeader(http.StatusOK)
		}
		panic("canary of a panic")
	})
}

// outcome returns the sign-ins with an outcome.
func (s *gatedSite) outcome(outcome string) float64 {
	return testutil.ToFloat64(s.cfg.SignIn.outcomes.WithLabelValues(outcome))
}

// browser is a browser with cookies of its own.
type browser struct {
	t      *testing.T
	client *http.Client
	site   *gatedSite
}

func (s *gatedSite) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport, _ := s.server.Client().Transport.(*http.Transport)
	return &browser{t: t, site: s, client: &http.Client{
		Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// answer is what a browser got.
type answer struct {
	status   int
	header   http.Header
	body     string
	location string
	cookies  []*http.Cookie
}

func (b *browser) send(method, at string, form url.Values, header ...string) answer {
	b.t.Helper()
	if strings.HasPrefix(at, "/") {
		at = b.site.URL + at
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, at, strings.NewReader(form.Encode()))
	if err != nil {
		b.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body), resp.Header.Get("Location"), resp.Cookies()}
}

func (b *browser) get(at string, header ...string) answer {
	b.t.Helper()
	return b.send(http.MethodGet, at, nil, header...)
}

// begin begins a sign-in that leads to a path, and returns the address that the provider
// sends the browser back to after person was chosen.
func (b *browser) begin(to, person string) string {
	b.t.Helper()
	began := b.get(signInPath(to))
	if began.status != http.StatusSeeOther || !strings.HasPrefix(began.location, b.site.issuer.URL+accesstest.AuthorizePath+"?") {
		b.t.Fatalf("sign-in: %d %s\n%s", began.status, began.location, began.body)
	}
	back := accesstest.Choose(b.t, began.location, person)
	if !strings.HasPrefix(back, b.site.URL+"/console/callback?") {
		b.t.Fatalf("the provider sends to %q", back)
	}
	return back
}

// signIn signs a person in.
func (b *browser) signIn(person string) {
	b.t.Helper()
	if back := b.get(b.begin("", person)); back.status != http.StatusSeeOther || back.location != Path {
		b.t.Fatalf("callback: %d %s\n%s", back.status, back.location, back.body)
	}
}

// csrf returns the token of the form of a page.
func (a answer) csrf(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(a.body)
	if found == nil {
		t.Fatalf("no form: %d %s", a.status, a.body)
	}
	return found[1]
}
