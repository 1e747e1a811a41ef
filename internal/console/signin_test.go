package console

import (
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

func TestAPersonSignsInAndOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	first := b.get("/console/test?q=a&b=%2F")
	if first.status != http.StatusSeeOther || first.location != "/console/sign-in?to=%2Fconsole%2Ftest%3Fq%3Da%26b%3D%252F" {
		t.Fatalf("%d %s", first.status, first.location)
	}
	back := b.get(b.begin("/console/test?q=a&b=%2F", anna))
	if back.status != http.StatusSeeOther || back.location != "/console/test?q=a&b=%2F" {
		t.Fatalf("%d %s\n%s", back.status, back.location, back.body)
	}
	page := b.get(back.location)
	if page.status != http.StatusOK || !strings.Contains(page.body, anna) || !strings.Contains(page.body, "query q=a&amp;b=%2F") {
		t.Errorf("%d %s", page.status, page.body)
	}

	out := b.send(http.MethodPost, "/console/sign-out", url.Values{"csrf": {page.csrf(t)}})
	if out.status != http.StatusSeeOther || out.location != "/console/signed-out" {
		t.Fatalf("%d %s\n%s", out.status, out.location, out.body)
	}
	last := b.get(out.location)
	want := s.issuer.URL + accesstest.EndSessionPath + "?client_id=the+console&post_logout_redirect_uri=" + url.QueryEscape(s.URL+"/console/signed-out")
	if last.status != http.StatusOK || !strings.Contains(html.UnescapeString(last.body), want) || strings.Contains(last.body, anna) {
		t.Errorf("%d %s\nwant %s", last.status, last.body, want)
	}
	if again := b.get("/console/test"); again.status != http.StatusSeeOther || !strings.HasPrefix(again.location, "/console/sign-in") {
		t.Errorf("after the sign-out: %d %s", again.status, again.location)
	}
	if got := s.outcome(outcomeOK); got != 1 {
		t.Errorf("%v sign-ins are counted", got)
	}
	var records []string
	for _, entry := range s.logs.All() {
		records = append(records, fmt.Sprint(entry.Message, " ", entry.ContextMap()["person"]))
	}
	if got := strings.Join(records, "; "); got != "signed in to the console "+anna+"; signed out of the console "+anna {
		t.Errorf("records %q", got)
	}
}

// Neither the browser nor the log gets what is secret.
func TestNoSecretLeavesTheConsole(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	began := b.get("/console/sign-in")
	back := accesstest.Choose(t, began.location, anna)
	called := b.get(back)
	answers := []answer{began, called, b.get("/console/test"), b.get(back), b.get("/console/nothing"), b.get("/console/signed-out")}
	code := func() string {
		parsed, err := url.Parse(back)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Query().Get("code")
	}()
	var a attempt
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
	request.AddCookie(began.cookies[0])
	if !s.cfg.SignIn.open(withTLS(request), attemptCookie, &a) {
		t.Fatal("the cookie of the sign-in cannot be read")
	}
	text := fmt.Sprint(s.logs.All())
	for _, got := range answers {
		text += got.body + fmt.Sprint(got.header)
	}
	for name, secret := range map[string]string{"client secret": testSecret, "code": code, "verifier": a.Verifier, "token": "eyJ"} {
		if secret == "" || strings.Contains(text, secret) {
			t.Errorf("the %s %q is in a response or in the log", name, secret)
		}
	}
	for _, got := range answers {
		for _, cookie := range got.cookies {
			if !strings.HasPrefix(cookie.Name, "__Host-") || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
				t.Errorf("cookie %v", cookie)
			}
			if len(cookie.String()) > maxCookieBytes {
				t.Errorf("cookie of %d bytes", len(cookie.String()))
			}
		}
	}
}

func TestSignInsLeadNowhereElse(t *testing.T) {
	t.Parallel()
	for to, want := range map[string]string{
		"":                                      "/console",
		"/console":                              "/console",
		"/console?q=1":                          "/console?q=1",
		"/console/customers/a?b=c":              "/console/customers/a?b=c",
		"/console/a%20b":                        "/console/a%20b",
		"//evil.example":                        "/console",
		"//evil.example/console":                "/console",
		"///evil.example/console":               "/console",
		"https://evil.example/console/x":        "/console/x",
		"https://u:p@evil.example/console/x":    "/console/x",
		"https://evil.example/console":          "/console",
		"https:/console/x":                      "/console/x",
		"https:console":                         "/console",
		"javascript:alert(1)":                   "/console",
		"/\\evil.example":                       "/console",
		"/console\\evil":                        "/console",
		"/console/\\evil":                       "/console/%5Cevil",
		"/console/%5cevil":                      "/console/%5Cevil",
		"/console/..//evil.example":             "/console",
		"/console/../v1/reviews":                "/console",
		"/console/%2e%2e/v1":                    "/console",
		"/console//evil.example":                "/console",
		"/console/%2f%2fevil.example":           "/console",
		"/console@evil.example":                 "/console",
		"/consoles":                             "/console",
		"/":                                     "/console",
		"console/x":                             "/console",
		"?x":                                    "/console",
		"/console/x\r\nSet-Cookie: a=b":         "/console",
		"/console/%0d%0aSet-Cookie:%20a=b":      "/console",
		"/console?x=%0d%0aSet-Cookie:%20a=b":    "/console?x=%0d%0aSet-Cookie:%20a=b",
		"/console?\xff":                         "/console",
		"/console/%ff":                          "/console",
		"/console?\u0085":                       "/console",
		"/console/%c2%85":                       "/console",
		"/console?q=é":                          "/console?q=é",
		"/console/sign-in?to=/console":          "/console",
		"/console/sign-out":                     "/console",
		"/console/callback?code=x":              "/console",
		"/console/events":                       "/console",
		"/console/x#fragment":                   "/console/x",
		"/console/" + strings.Repeat("x", 2000): "/console",
	} {
		if got := returnPath(to); got != want {
			t.Errorf("%q: %q, want %q", to, got, want)
		}
	}
}

// Whatever a link asks for, a browser that follows the answer stays at the console.
func TestNoSignInLeadsToAnotherSite(t *testing.T) {
	t.Parallel()
	page, err := url.Parse("https://gate.example/console/sign-in")
	if err != nil {
		t.Fatal(err)
	}
	piece := rapid.SampledFrom([]string{"/", "//", "\\", "console", "/console", "evil.example", "https:", "javascript:", "..", ".", "%2f", "%5c", "%2e", "?", "#", "@", ":", "\r\n", "\t", " ", "\x00", "é", ";", "&"})
	rapid.Check(t, func(t *rapid.T) {
		to := strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "pieces"), "")
		got := returnPath(to)
		at, err := page.Parse(got)
		file, _, _ := strings.Cut(got, "?")
		if err != nil || at.Scheme != "https" || at.Host != "gate.example" || at.Path != Path && !strings.HasPrefix(at.Path, Path+"/") ||
			strings.HasPrefix(got, "//") || strings.Contains(file, "\\") || strings.ContainsAny(got, "\r\n\t\x00") {
			t.Fatalf("%q leads to %q", to, got)
		}
	})
}

// Whatever a link asks for, the cookie of the sign-in holds it.
func TestThePathOfEachSignInFitsIntoItsCookie(t *testing.T) {
	t.Parallel()
	secret := func() []byte { return []byte(testSecret) }
	s := &SignIn{Secret: secret}
	r := withTLS(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/console/sign-in", http.NoBody))
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{"\"", "\\", "<", "&", "\xff", "\x80", "\xed\xa0\x80", "\u2028", "\u0085", "\u200b", "\ufffd", "\x7f", "\x01", "%ff", "%01", "%22", "%e2%80%a8"}), rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		part := strings.Join(rapid.SliceOfN(piece, 1, 3).Draw(t, "pieces"), "")
		start := Path + rapid.SampledFrom([]string{"?", "/"}).Draw(t, "separator")
		most := (maxReturnBytes - len(start)) / max(len(part), 1)
		to := start + strings.Repeat(part, rapid.IntRange(most/4, most).Draw(t, "times"))
		a := attempt{stamp: newStamp(time.Now(), attemptFor), State: secretText(), Nonce: secretText(), Verifier: secretText(), To: returnPath(to)}
		if err := s.seal(httptest.NewRecorder(), r, attemptCookie, a, attemptFor); err != nil {
			t.Fatalf("%q leads to %q: %v", to, a.To, err)
		}
	})
}

// An address that is no text leads to the first page, by a sign-in that works.
func TestASignInForAnAddressThatIsNoText(t *testing.T) {
	t.Parallel()
	b := newSite(t).browser(t)
	if back := b.get(b.begin("/console?"+strings.Repeat("\xff", 1000), anna)); back.location != Path {
		t.Errorf("%d %s", back.status, back.location)
	}
}

func TestCallbacksThatAreNoAnswerToTheSignIn(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change  func(b *browser, back string) string // what the browser opens in place of back
		outcome string
		status  int
	}{
		"without a cookie": {func(b *browser, back string) string {
			b.client.Jar = b.site.browser(b.t).client.Jar
			return back
		}, outcomeState, http.StatusBadRequest},
		"another state": {func(_ *browser, back string) string { return strings.Replace(back, "state=", "state=x", 1) }, outcomeState, http.StatusBadRequest},
		"no state":      {func(_ *browser, back string) string { return strings.Replace(back, "state=", "stat=", 1) }, outcomeState, http.StatusBadRequest},
		"two states":    {func(_ *browser, back string) string { return back + "&state=x" }, outcomeState, http.StatusBadRequest},
		"too late":      {func(b *browser, back string) string { b.site.ahead.Store(int64(attemptFor) + 1e9); return back }, outcomeState, http.StatusBadRequest},
		"of another secret": {func(b *browser, back string) string {
			other := "another secret"
			b.site.secret.Store(&other)
			return back
		}, outcomeState, http.StatusBadRequest},
		"a made-up code": {func(_ *browser, back string) string { return strings.Replace(back, "code=", "code=x", 1) }, outcomeProvider, http.StatusBadGateway},
		"no code":        {func(_ *browser, back string) string { return strings.Replace(back, "code=", "cod=", 1) }, outcomeProvider, http.StatusServiceUnavailable},
		"a code of another host": {func(_ *browser, back string) string {
			return strings.Replace(back, "127.0.0.1", "localhost", 1)
		}, outcomeState, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			b := s.browser(t)
			if name == "a code of another host" {
				transport, _ := b.client.Transport.(*http.Transport)
				transport.TLSClientConfig.ServerName = "127.0.0.1"
			}
			got := b.get(row.change(b, b.begin("/console/test", anna)))
			if got.status != row.status || s.outcome(row.outcome) != 1 || !strings.Contains(got.body, `href="/console/sign-in"`) {
				t.Errorf("%d, %s %v\n%s", got.status, row.outcome, s.outcome(row.outcome), got.body)
			}
			if page := b.get("/console/test"); page.status != http.StatusSeeOther {
				t.Errorf("signed in: %d", page.status)
			}
			if failed := s.logs.FilterMessage("sign-in to the console failed").All(); len(failed) != 1 || failed[0].ContextMap()["outcome"] != row.outcome {
				t.Errorf("records %v", failed)
			}
		})
	}
}

// A callback that is opened again, and the one of a tab that was slower, lead into the
// session that there is.
func TestCallbacksOfASessionThatExists(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	slower := b.begin("/console/test?tab=1", anna)
	faster := b.begin("/console/test?tab=2", anna)
	if got := b.get(faster); got.location != "/console/test?tab=2" {
		t.Fatalf("%d %s", got.status, got.location)
	}
	for name, back := range map[string]string{"slower": slower, "again": faster} {
		if got := b.get(back); got.status != http.StatusSeeOther || got.location != "/console" || len(got.cookies) > 0 {
			t.Errorf("%s: %d %s %v\n%s", name, got.status, got.location, got.cookies, got.body)
		}
	}
	if got := s.outcome(outcomeOK); got != 1 {
		t.Errorf("%v sign-ins", got)
	}
}

// The slower tab of a browser without a session does not sign in: its cookie was
// replaced.
func TestTheSignInBegunLastCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	slower := b.begin("/console/test?tab=1", anna)
	faster := b.begin("/console/test?tab=2", anna)
	if got := b.get(slower); got.status != http.StatusBadRequest {
		t.Errorf("%d %s", got.status, got.location)
	}
	if got := b.get(faster); got.location != "/console/test?tab=2" {
		t.Errorf("%d %s", got.status, got.location)
	}
}

// The victim of a login CSRF opens the callback of the attacker's sign-in.
func TestNobodyIsSignedInAsAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	attacker, victim := s.browser(t), s.browser(t)
	victim.begin("", anna)
	if got := victim.get(attacker.begin("", bert)); got.status != http.StatusBadRequest {
		t.Errorf("%d %s", got.status, got.location)
	}
	if got := victim.get("/console/test"); got.status != http.StatusSeeOther {
		t.Errorf("signed in: %d", got.status)
	}
}

func TestErrorsOfTheProviderAreShownAsCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	denied := b.get(b.begin("", "")) // Cancel
	if denied.status != http.StatusForbidden || !strings.Contains(denied.body, "refused: access_denied") || strings.Contains(denied.body, "alert") {
		t.Errorf("%d %s", denied.status, denied.body)
	}
	spoilt := b.get(strings.Replace(b.begin("", ""), "error=access_denied", "error=%3Cscript%3Ealert(1)%3C/script%3E", 1))
	if spoilt.status != http.StatusForbidden || !strings.Contains(spoilt.body, "refused: unknown") || strings.Contains(spoilt.body, "alert") {
		t.Errorf("%d %s", spoilt.status, spoilt.body)
	}
	if got := s.outcome(outcomeDenied); got != 2 {
		t.Errorf("%v", got)
	}
	if text := fmt.Sprint(s.logs.All()); strings.Contains(text, "alert") {
		t.Error(text)
	}
}

func TestFaultsOfTheProvider(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		change  func(p *accesstest.Provider)
		outcome string
		status  int
	}{
		"500": {func(p *accesstest.Provider) {
			p.Token = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canary", http.StatusInternalServerError) }
		}, outcomeProvider, http.StatusServiceUnavailable},
		"another secret":   {func(p *accesstest.Provider) { p.ClientSecret = "changed" }, outcomeProvider, http.StatusBadGateway},
		"another nonce":    {func(p *accesstest.Provider) { p.People[0].More = map[string]any{"nonce": "canary"} }, outcomeToken, http.StatusForbidden},
		"another audience": {func(p *accesstest.Provider) { p.People[0].More = map[string]any{"aud": "canary"} }, outcomeToken, http.StatusForbidden},
		"no token":         {func(p *accesstest.Provider) { p.IDToken = func(map[string]any) string { return "" } }, outcomeToken, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			b := s.browser(t)
			s.provider.Change(row.change)
			got := b.get(b.begin("", anna))
			if got.status != row.status || s.outcome(row.outcome) != 1 || strings.Contains(got.body+fmt.Sprint(s.logs.All()), "canary") {
				t.Errorf("%d %s %v %v", got.status, got.body, s.outcome(row.outcome), s.logs.All())
			}
			if page := b.get("/console/test"); page.status != http.StatusSeeOther {
				t.Errorf("signed in: %d", page.status)
			}
		})
	}
}

func TestBeforeTheProviderIsKnown(t *testing.T) {
	t.Parallel()
	s := newUnreadySite(t)
	b := s.browser(t)
	if got := b.get("/console/sign-in"); got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "not known yet") || s.outcome(outcomeNotReady) != 1 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := b.get("/console/signed-out"); got.status != http.StatusOK || strings.Contains(got.body, "provider too") {
		t.Errorf("%d %s", got.status, got.body)
	}
	s.run()
	b.signIn(anna)
}

// The provider sends the browser to no address but those that are registered there.
func TestTheHostOfARequestIsTheRedirectURIs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for host, want := range map[string]string{
		"evil.example":         "https://evil.example/console/callback",
		"gate.example:8443":    "https://gate.example:8443/console/callback",
		"127.0.0.1:1":          "https://127.0.0.1:1/console/callback", // TLS
		"a.example/x?y=":       "",
		"user@evil.example":    "",
		"evil.example#console": "",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/console/sign-in", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := s.browser(t).client.Do(req)
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", host, err)
			}
			continue
		}
		_ = resp.Body.Close()
		if want == "" && resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", host, resp.StatusCode)
		}
		at, err := url.Parse(resp.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		if got := at.Query().Get("redirect_uri"); got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
		if want != "" && accesstest.Choose(t, at.String(), anna) != "" {
			t.Errorf("%s: the provider sends a code there", host)
		}
	}
}
