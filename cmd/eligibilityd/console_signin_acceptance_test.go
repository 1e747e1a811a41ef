//go:build acceptance

package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// People who sign in to the console under test.
const (
	everyRight  = "every-right@example.com"
	onlySupport = "only-support@example.com"
	noSupport   = "no-support@example.com"
	onePartner  = "one-partner@example.com"
	scriptName  = `<script>window.pwned=1</script>@example.com`
)

const consoleClient = "console-client"

// consoleServe is serve with TLS, as in production, whose users sign in at a provider of
// OpenID Connect.
type consoleServe struct {
	*instance

	far      simulated
	between  *relay // what the service reaches the simulator by
	redis    *cachetest.Redis
	issuer   *accesstest.Issuer
	provider *accesstest.Provider
	base     string // of the REST listener
	records  string // the file of the decision log
	secret   string // the file of the client secret
	ca       *accesstest.Authority

	mu     sync.Mutex
	tokens []string // that the provider has issued; guarded by mu
}

func startConsoleServe(t *testing.T, more ...string) *consoleServe {
	t.Helper()
	dir := t.TempDir()
	s := &consoleServe{
		far: simulateApart(t), redis: cachetest.StartRedis(t), issuer: accesstest.NewIssuer(t), ca: accesstest.NewAuthority(t),
		records: filepath.Join(dir, "decisions", "decisions.jsonl"), secret: filepath.Join(dir, "client-secret"),
	}
	if err := os.Mkdir(filepath.Dir(s.records), 0o700); err != nil {
		t.Fatal(err)
	}
	s.between = startRelay(t, strings.TrimPrefix(s.far.api, "http://"))
	support := []string{"support", "watch"}
	s.provider = s.issuer.Provide(t, &accesstest.Provider{
		ClientID: consoleClient,
		People: []accesstest.Person{
			{Name: everyRight, Roles: []string{"check", "batch", "fresh", "prefetch", "watch", "watch_all", "support"}},
			{Name: onlySupport, Roles: support},
			{Name: noSupport, Roles: []string{"check"}},
			{Name: onePartner, Roles: support},
			{Name: scriptName, Roles: support},
		},
		IDToken: func(claims map[string]any) string {
			token := s.issuer.Key().Sign(t, nil, claims)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.tokens = append(s.tokens, token)
			return token
		},
	})
	s.newSecret(t, "first-secret-of-the-console-client")
	certificate := s.ca.Server(t)
	s.instance = startInstance(t, "http://"+s.between.address, slices.Concat([]string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + s.redis.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=250ms", "ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=250ms",
		"ELIGIBILITY_SERVER__DRAIN=0s",
		"ELIGIBILITY_SERVER__TLS__CERTIFICATE_FILE=" + certificate.CertificateFile, "ELIGIBILITY_SERVER__TLS__KEY_FILE=" + certificate.KeyFile,
		"ELIGIBILITY_AUTH__JWT=[{issuer: " + s.issuer.URL + ", audiences: [" + accesstest.Audience + "]}]",
		"ELIGIBILITY_DECISION_LOG__FILE=" + s.records,
		"ELIGIBILITY_CONSOLE__ENABLED=true",
		"ELIGIBILITY_CONSOLE__OIDC__CLIENT_ID=" + consoleClient,
		"ELIGIBILITY_CONSOLE__OIDC__CLIENT_SECRET_FILE=" + s.secret,
	}, more)...)
	s.base = "https://localhost:" + portOf(s.HTTP)
	s.provider.Change(func(p *accesstest.Provider) {
		p.RedirectURIs = []string{s.base + "/console/callback"}
		p.SignedOutURIs = []string{s.base + "/console/signed-out"}
	})
	s.awaitReady(t)
	return s
}

// newSecret gives the client another secret, at the provider and in the service's file.
func (s *consoleServe) newSecret(t *testing.T, secret string) {
	t.Helper()
	s.provider.Change(func(p *accesstest.Provider) { p.ClientSecret = secret })
	if err := os.WriteFile(s.secret+".new", []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.secret+".new", s.secret); err != nil {
		t.Fatal(err)
	}
}

// signIn opens a page without a session, and signs in at the provider.
func (s *consoleServe) signIn(t *testing.T, v *browserVisitor, path, person string) {
	t.Helper()
	v.open(s.base + path)
	if text := v.reads(t); !strings.Contains(text, person) {
		t.Fatalf("%s does not lead to the provider: %s", path, text)
	}
	v.click(t, person)
}

// cookie is a cookie of the browser.
type cookie struct {
	Name, Value, Path, Domain, SameSite string
	Secure, HTTPOnly                    bool
	Expiry                              int64
}

// session returns the cookie of the console's session, if there is one.
func (v *browserVisitor) session(t *testing.T) (one cookie, found bool) {
	t.Helper()
	var all []cookie
	v.call(http.MethodGet, "/cookie", nil, &all)
	at := slices.IndexFunc(all, func(c cookie) bool { return c.Name == "__Host-eligibility-console" })
	if at < 0 {
		return one, false
	}
	return all[at], true
}

// endSession removes the cookie of the session, as its end does.
func (v *browserVisitor) endSession(t *testing.T) {
	t.Helper()
	v.call(http.MethodDelete, "/cookie/__Host-eligibility-console", nil, nil)
}

// recordOf returns the records of the decision log that name a person.
func (s *consoleServe) recordOf(t *testing.T, person string) string {
	t.Helper()
	text, err := os.ReadFile(s.records)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"person":"`+person+`"`) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}

// Somebody signs in at the provider and lands on the page that was opened, asks Microsoft,
// is named in the decision log, and signs out. Others are refused: who lacks the right,
// and who cancels.
func TestAcceptanceConsoleSignIn(t *testing.T) {
	s := startConsoleServe(t)
	v := startVisitor(t, s.base)
	s.far.put(t, flipping(blockedByMicrosoft, "NotAllowed", 0))

	s.signIn(t, v, "/console/customers/"+blockedByMicrosoft, everyRight)
	var at string
	v.call(http.MethodGet, "/url", nil, &at)
	if text := v.reads(t); at != s.base+"/console/customers/"+blockedByMicrosoft || !strings.Contains(text, everyRight) {
		t.Errorf("after the sign-in, %s: %s", at, text)
	}
	session, found := v.session(t)
	life := time.Until(time.Unix(session.Expiry, 0))
	if !found || !session.Secure || !session.HTTPOnly || session.Path != "/" || session.SameSite != "Lax" || life > 8*time.Hour || life < 7*time.Hour {
		t.Errorf("the session's cookie: %+v, %v", session, life)
	}
	v.click(t, "Ask Microsoft now")
	if text := v.reads(t); !strings.Contains(text, "May not buy") || !strings.Contains(text, "NotAllowed") {
		t.Errorf("asked: %s", text)
	}
	eventually(t, "the record with the person", func() bool { return s.recordOf(t, everyRight) != "" })
	record := s.recordOf(t, everyRight)
	t.Logf("the decision log: %s", record)
	for _, want := range []string{blockedByMicrosoft, `"caller":"console"`, `"max_age":"0s"`} {
		if !strings.Contains(record, want) {
			t.Errorf("%s is not in %s", want, record)
		}
	}
	v.click(t, "Who asked")
	if text := v.reads(t); strings.Count(text, everyRight) < 2 {
		t.Errorf("who asked: %s", text)
	}

	v.click(t, "Sign out")
	if _, found := v.session(t); found {
		t.Error("signed out, the cookie is still there")
	}
	v.call(http.MethodGet, "/url", nil, &at)
	if text := v.reads(t); !strings.Contains(text, "signed out") && !strings.Contains(text, "Signed out") {
		t.Errorf("signed out, %s: %s", at, text)
	}
	v.check(t, "signed-out")
	v.keep(t, "signed-out.png")
	v.open(s.base + "/console/reviews")
	if text := v.reads(t); !strings.Contains(text, onlySupport) {
		t.Errorf("without a session: %s", text)
	}

	v.click(t, "Cancel")
	if text := v.reads(t); strings.Contains(text, "alert(") || strings.Contains(text, "May not buy") {
		t.Errorf("cancelled: %s", text)
	}
	v.check(t, "sign-in-cancelled")
	v.keep(t, "sign-in-cancelled.png")

	s.signIn(t, v, "/console", noSupport)
	if text := v.reads(t); !strings.Contains(text, "support") || strings.Contains(text, "May this customer buy?") {
		t.Errorf("without the right: %s", text)
	}
	v.check(t, "refused")
	v.keep(t, "refused.png")
	v.click(t, "Sign out")

	s.signIn(t, v, "/console/customers/"+blockedByMicrosoft, onlySupport)
	if text := v.reads(t); !strings.Contains(text, "May not buy") || !strings.Contains(text, "needs the right fresh") {
		t.Errorf("without the right fresh: %s", text)
	}
	v.click(t, "Sign out")

	s.signIn(t, v, "/console", scriptName)
	if text := v.reads(t); !strings.Contains(text, scriptName) {
		t.Errorf("a person called %s: %s", scriptName, text)
	}
	v.check(t, "script-as-a-name")

	// A new client secret ends sessions, also on a page that is open.
	s.newSecret(t, "second-secret-of-the-console-client")
	eventually(t, "the end of the session", func() bool {
		v.open(s.base + "/console")
		return strings.Contains(v.reads(t), onlySupport)
	})
	s.signIn(t, v, "/console", onlySupport)

	// The session ends while pages are open: a search leads to the sign-in, and to the
	// customer after it; a form is refused; a page that updates itself reports it.
	v.endSession(t)
	v.paste(t, blockedByMicrosoft)
	v.click(t, "Sign in")
	v.click(t, everyRight)
	if text := v.reads(t); !strings.Contains(text, blockedByMicrosoft) || !strings.Contains(text, "May not buy") {
		t.Errorf("after the search and the sign-in: %s", text)
	}
	v.endSession(t)
	eventuallyIn(t, 40*time.Second, "the end of the session on the page", func() bool { return strings.Contains(v.reads(t), "signed out") })
	v.click(t, "Ask Microsoft now")
	if text := v.reads(t); !strings.Contains(text, "Your session has ended") || !strings.Contains(text, "Nothing was done") {
		t.Errorf("asked without a session: %s", text)
	}
	v.check(t, "session-ended")
	v.keep(t, "session-ended.png")
	v.onlyAsked(t, "localhost:"+portOf(s.HTTP), strings.TrimPrefix(s.issuer.URL, "http://"))
}
