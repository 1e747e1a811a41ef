package console

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// withTLS makes a request one that came over TLS.
func withTLS(r *http.Request) *http.Request {
	r.TLS = new(tls.ConnectionState)
	return r
}

// sealed returns a cookie that a console has set.
func (s *gatedSite) sealed(t *testing.T, name string, content any) *http.Cookie {
	t.Helper()
	w := httptest.NewRecorder()
	if err := s.cfg.SignIn.seal(w, withTLS(httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/console", http.NoBody)), name, content, time.Hour); err != nil {
		t.Fatal(err)
	}
	return w.Result().Cookies()[0]
}

// of returns the user of a request with cookies.
func (s *gatedSite) of(cookies ...*http.Cookie) *user {
	r := withTLS(httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/console", http.NoBody))
	for _, cookie := range cookies {
		r.AddCookie(cookie)
	}
	return s.session(r)
}

func TestSessionsThatDoNotCount(t *testing.T) {
	t.Parallel()
	s := newUnreadySite(t)
	now := time.Now()
	content := func(change func(c *session)) session {
		c := session{stamp: newStamp(now, sessionFor), Person: anna, Rights: "check,support", CSRF: make([]byte, csrfBytes)}
		if change != nil {
			change(&c)
		}
		return c
	}
	good := s.sealed(t, sessionCookie, content(nil))
	if u := s.of(good); u == nil || u.caller.Person != anna || u.caller.Name != "console" || u.caller.Rights != access.Check|access.Support {
		t.Fatalf("%+v", u)
	}
	named := func(name, value string) *http.Cookie { return &http.Cookie{Name: name, Value: value} } //nolint:gosec // a browser's
	with := func(value string) *http.Cookie { return named(good.Name, value) }
	tampered := func(at int) *http.Cookie {
		raw, err := base64.RawURLEncoding.DecodeString(good.Value)
		if err != nil {
			t.Fatal(err)
		}
		raw[(at+len(raw))%len(raw)] ^= 1
		return with(base64.RawURLEncoding.EncodeToString(raw))
	}
	attempted := s.sealed(t, attemptCookie, content(nil))
	for name, cookies := range map[string][]*http.Cookie{
		"none":                      nil,
		"empty":                     {with("")},
		"no base64":                 {with("%%%")},
		"short":                     {with(good.Value[:8])},
		"cut off":                   {with(good.Value[:len(good.Value)-1])},
		"with more":                 {with(good.Value + "AAAA")},
		"large":                     {with(strings.Repeat("A", 5000))},
		"another nonce":             {tampered(0)},
		"another text":              {tampered(20)},
		"another tag":               {tampered(-1)},
		"twice":                     {good, good},
		"without the prefix":        {named(sessionCookie, good.Value)},
		"sealed as a sign-in":       {with(attempted.Value)},
		"under the sign-in's name":  {named(attempted.Name, good.Value)},
		"expired":                   {s.sealed(t, sessionCookie, content(func(c *session) { c.stamp = newStamp(now.Add(-sessionFor-time.Second), sessionFor) }))},
		"longer than a session":     {s.sealed(t, sessionCookie, content(func(c *session) { c.stamp = newStamp(now.Add(-sessionFor-time.Second), 100*sessionFor) }))},
		"issued in the future":      {s.sealed(t, sessionCookie, content(func(c *session) { c.stamp = newStamp(now.Add(time.Hour), sessionFor) }))},
		"nobody's":                  {s.sealed(t, sessionCookie, content(func(c *session) { c.Person = "" }))},
		"of a name that is a line":  {s.sealed(t, sessionCookie, content(func(c *session) { c.Person = "a\nb" }))},
		"without a token for forms": {s.sealed(t, sessionCookie, content(func(c *session) { c.CSRF = nil }))},
		"a list":                    {s.sealed(t, sessionCookie, []int{1})},
	} {
		if u := s.of(cookies...); u != nil {
			t.Errorf("%s: signed in as %+v", name, u.caller)
		}
	}
	newer := s.sealed(t, sessionCookie, content(func(c *session) { c.Rights = "check,of_a_newer_version" }))
	if u := s.of(newer); u == nil || u.caller.Rights != access.Check {
		t.Errorf("a right of a newer version: %+v", u)
	}
	s.ahead.Store(int64(-2 * time.Minute))
	if u := s.of(good); u != nil {
		t.Error("a clock that was set back prolongs a session")
	}
	s.ahead.Store(int64(sessionFor))
	if u := s.of(good); u != nil {
		t.Error("a session lasts longer than 8 h")
	}
	s.ahead.Store(0)
	other := "another secret of the client"
	s.secret.Store(&other)
	if u := s.of(good); u != nil {
		t.Error("a session outlives its secret")
	}
}

func TestANewSecretEndsSessions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	b.signIn(anna)
	changed := "another secret of the client"
	s.secret.Store(&changed)
	if got := b.get("/console/test"); got.status != http.StatusSeeOther {
		t.Errorf("%d", got.status)
	}
	s.provider.ClientSecret = changed
	b.signIn(anna)
	if got := b.get("/console/test"); got.status != http.StatusOK {
		t.Errorf("%d", got.status)
	}
}

// The largest session fits into a cookie.
func TestTheLargestSessionFits(t *testing.T) {
	t.Parallel()
	s := newUnreadySite(t)
	w := httptest.NewRecorder()
	r := withTLS(httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/console", http.NoBody))
	name := strings.Repeat("<", 128) // JSON writes six bytes for each
	if err := s.startSession(w, r, access.Person{Name: name, Rights: access.AllRights}); err != nil {
		t.Fatal(err)
	}
	cookie := w.Result().Cookies()[0]
	if u := s.of(cookie); u == nil || u.caller.Person != name || u.caller.Rights != access.AllRights {
		t.Errorf("%+v", u)
	}
	largest := attempt{To: returnPath("/console?" + strings.Repeat("\"", maxReturnBytes-9)), State: secretText(), Nonce: secretText(), Verifier: secretText()}
	if len(largest.To) < maxReturnBytes {
		t.Fatalf("leads to %s", largest.To)
	}
	if err := s.cfg.SignIn.seal(w, r, attemptCookie, largest, time.Hour); err != nil {
		t.Error(err)
	}
	if err := s.cfg.SignIn.seal(w, r, sessionCookie, strings.Repeat("x", 4000), time.Hour); err == nil {
		t.Error("a cookie that browsers drop was set")
	}
}

// Over plain HTTP, browsers on the same machine accept no cookie with the prefix.
func TestCookiesOfThisMachine(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"localhost:8080": sessionCookie, "127.0.0.1": sessionCookie, "[::1]:8080": sessionCookie, "[::1]": sessionCookie,
		"gate.example": "__Host-" + sessionCookie, "gate.example:80": "__Host-" + sessionCookie, "localhost.evil.example": "__Host-" + sessionCookie, "": "__Host-" + sessionCookie,
	} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/console", http.NoBody)
		r.Host = host
		if got := newCookie(r, sessionCookie); got.Name != want || got.Secure == (want == sessionCookie) {
			t.Errorf("%q: %+v", host, got)
		}
	}
}

func TestFormsOfOthersDoNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, other := s.browser(t), s.browser(t)
	b.signIn(anna)
	other.signIn(anna)
	form := func(csrf ...string) url.Values { return url.Values{"csrf": csrf, "text": {"x"}} }
	own := func() string { return b.get("/console/test").csrf(t) }
	if a, b := own(), own(); a == b {
		t.Error("the token looks the same twice")
	}
	for name, row := range map[string]struct {
		form   url.Values
		header []string
		status int
	}{
		"no token":                {form(), nil, http.StatusForbidden},
		"an empty one":            {form(""), nil, http.StatusForbidden},
		"another session's":       {form(other.get("/console/test").csrf(t)), nil, http.StatusForbidden},
		"two":                     {form(own(), own()), nil, http.StatusForbidden},
		"cut off":                 {form(own()[:20]), nil, http.StatusForbidden},
		"all zero":                {form(base64.RawURLEncoding.EncodeToString(make([]byte, 2*csrfBytes))), nil, http.StatusForbidden},
		"from another site":       {form(own()), []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		"from another port":       {form(own()), []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		"from another origin":     {form(own()), []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		"from a sandbox":          {form(own()), []string{"Origin", "null"}, http.StatusForbidden},
		"in a form that is none":  {form(own()), []string{"Content-Type", "application/json"}, http.StatusForbidden},
		"malformed":               {form(own()), []string{"Content-Type", "application/x-www-form-urlencoded; %"}, http.StatusForbidden},
		"large":                   {url.Values{"text": {strings.Repeat("x", maxBodyBytes)}, "csrf": {own()}}, nil, http.StatusRequestEntityTooLarge},
		"the own, from this site": {form(own()), []string{"Origin", s.URL, "Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		"the own":                 {form(own()), nil, http.StatusOK},
	} {
		before := s.posted.Load()
		got := b.send(http.MethodPost, "/console/test", row.form, row.header...)
		status := got.status
		if name == "malformed" && status == http.StatusBadRequest {
			status = http.StatusForbidden
		}
		if status != row.status || s.posted.Load()-before != map[bool]int64{true: 1, false: 0}[row.status == http.StatusOK] {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := b.send(http.MethodPost, "/console/test?csrf="+own(), url.Values{"text": {"x"}}); got.status != http.StatusForbidden {
		t.Errorf("a token in the address: %d", got.status)
	}
	stranger := s.browser(t)
	if got := stranger.send(http.MethodPost, "/console/test", form(own())); got.status != http.StatusUnauthorized || !strings.Contains(got.body, "/console/sign-in") {
		t.Errorf("without a session: %d %s", got.status, got.body)
	}
}

func TestAPersonWithoutTheRight(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for person, want := range map[string]string{bert: "with the rights check", "nobody": "without any right"} {
		b := s.browser(t)
		b.signIn(person)
		got := b.get("/console/test")
		if got.status != http.StatusForbidden || !strings.Contains(got.body, "the right <strong>support</strong>") || !strings.Contains(got.body, "<bdi>"+person) || !strings.Contains(got.body, want) {
			t.Errorf("%d %s", got.status, got.body)
		}
		refused := s.logs.FilterMessage("request to the console refused").FilterField(zap.String("person", person)).All()
		if len(refused) != 1 || refused[0].ContextMap()["cause"] != "lacks the right support" || refused[0].ContextMap()["page"] != "GET /console/test" {
			t.Errorf("records %v", refused)
		}
		if posted := b.send(http.MethodPost, "/console/test", url.Values{"csrf": {got.csrf(t)}}); posted.status != http.StatusForbidden || s.posted.Load() != 0 {
			t.Errorf("%d", posted.status)
		}
		if out := b.send(http.MethodPost, "/console/sign-out", url.Values{"csrf": {got.csrf(t)}}); out.location != "/console/signed-out" {
			t.Errorf("%d %s", out.status, out.body)
		}
	}
}

func TestRequestsOfScriptsAreNotSentToTheProvider(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	for path, header := range map[string][]string{
		"/console/test":   {"Sec-Fetch-Mode", "cors"},
		"/console/events": nil,
	} {
		if got := b.get(path, header...); got.status != http.StatusUnauthorized || got.location != "" {
			t.Errorf("%s: %d %s", path, got.status, got.location)
		}
	}
	if got := b.get("/console/test", "Sec-Fetch-Mode", "navigate"); got.status != http.StatusSeeOther {
		t.Errorf("%d", got.status)
	}
}
