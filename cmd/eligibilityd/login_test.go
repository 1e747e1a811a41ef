package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// person is a user with a browser.
type person struct {
	account  string // if empty, the partner's
	decision string // if empty, accept
}

// signIn opens the login host's page, decides, and follows the redirect. It
// returns the status and the text of the last page.
func (p person) signIn(t *testing.T, page string) (status int, header http.Header, text string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	if status, _, text := browse(t, browser, page, nil); status != http.StatusOK || !strings.Contains(text, "Permissions requested") {
		t.Fatalf("the login host's page: %d %s", status, text)
	}
	form := url.Values{"account": {pcsim.PartnerAccount}, "decision": {"accept"}}
	if p.account != "" {
		form.Set("account", p.account)
	}
	if p.decision != "" {
		form.Set("decision", p.decision)
	}
	return browse(t, browser, page, form)
}

// browse fetches a page or, if form is set, submits it.
func browse(t *testing.T, browser *http.Client, page string, form url.Values) (status int, header http.Header, text string) {
	t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(context.Background(), method, page, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// signInRun is a login command under test.
type signInRun struct {
	out    *output
	file   string // of the refresh token
	page   string // of the login host
	answer string // our page
	ended  chan error
	cancel context.CancelFunc
}

// startLogin runs login until it waits for the user.
func startLogin(t *testing.T, simulator string, more ...string) *signInRun {
	t.Helper()
	run := &signInRun{out: new(output), file: filepath.Join(t.TempDir(), "refresh-token"), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	run.cancel = cancel
	t.Cleanup(cancel)
	opened := make(chan string, 1)
	open := func(_ context.Context, page string) error {
		opened <- page
		return nil
	}
	go func() {
		run.ended <- login(ctx, pcsimtest.Environ(simulator, run.file, more...), loginFlags{timeout: patience}, open, run.out)
	}()
	select {
	case run.page = <-opened:
	case err := <-run.ended:
		t.Fatalf("login ended at once: %v", err)
	case <-time.After(patience):
		t.Fatal("no page was opened")
	}
	u, err := url.Parse(run.page)
	if err != nil {
		t.Fatal(err)
	}
	run.answer = u.Query().Get("redirect_uri")
	return run
}

// end waits for the command to end and returns its error.
func (r *signInRun) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		t.Fatal("login does not end")
		return nil
	}
}

// stored returns the refresh token's file, or "" if there is none.
func (r *signInRun) stored() string {
	content, err := os.ReadFile(r.file)
	if err != nil {
		return ""
	}
	return string(content)
}

// serve works with the token that login stored.
func TestLoginStoresWhatServeNeeds(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	run := startLogin(t, partnerCenter.URL)
	status, header, text := person{}.signIn(t, run.page)
	if err := run.end(t); err != nil {
		t.Fatal(err)
	}
	if status != http.StatusOK || !strings.Contains(text, "Consent is given") || !strings.Contains(text, pcsim.DefaultTenantID) {
		t.Errorf("page %d: %s", status, text)
	}
	for name, want := range map[string]string{
		"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(text, "<code>eligibilityd doctor --config FILE</code>") {
		t.Errorf("the page has no next step: %s", text)
	}
	if policy := header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") {
		t.Errorf("policy %q", policy)
	}
	if printed := run.out.String(); !strings.Contains(printed, run.page) || !strings.Contains(printed, run.file) || !strings.Contains(printed, "eligibilityd doctor") {
		t.Errorf("printed %s", printed)
	}
	token := run.stored()
	if info, err := os.Stat(run.file); err != nil || info.Mode().Perm() != 0o600 || token == "" {
		t.Errorf("stored %d bytes as %v, %v", len(token), info, err)
	}
	for _, secret := range []string{token, pcsim.DefaultClientSecret} {
		if strings.Contains(run.out.String()+text, secret) {
			t.Error("a secret is shown")
		}
	}
	p := startServe(t, partnerCenter.URL, "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE="+run.file)
	resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
	if err != nil || resp.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		t.Errorf("serve answers %v, %v", resp, err)
	}
}

// Version 1 of the endpoints, from the sign-in to the answer.
func TestLoginAndServeByVersionOne(t *testing.T) {
	t.Parallel()
	const versionOne = "ELIGIBILITY_PARTNER_CENTER__TOKEN_ENDPOINT=v1"
	_, partnerCenter := pcsimtest.Start(t)
	run := startLogin(t, partnerCenter.URL, versionOne)
	if !strings.Contains(run.page, "/oauth2/authorize?") {
		t.Errorf("page %s", run.page)
	}
	person{}.signIn(t, run.page)
	if err := run.end(t); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, partnerCenter.URL, versionOne, "ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE="+run.file)
	resp, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID})
	if err != nil || resp.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
		t.Errorf("serve answers %v, %v", resp, err)
	}
}

func TestFailedLoginReportsItsReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		who     person
		prepare func(*pcsim.Server) error
		want    string
	}{
		"another tenant": {who: person{account: pcsim.ForeignAccount}, want: "the account is of another tenant: " + pcsim.ForeignTenantID},
		"denied":         {who: person{decision: "cancel"}, want: "access_denied"},
		"the login host refuses the code": {
			prepare: func(sim *pcsim.Server) error { return sim.ScriptTokens(pcsim.Step{EntraError: 7000215}) },
			want:    "invalid_client",
		},
		"the login host is away": {
			prepare: func(sim *pcsim.Server) error { return sim.ScriptTokens(pcsim.Step{Failure: pcsim.FailureReset}) },
			want:    "connection",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim, partnerCenter := pcsimtest.Start(t)
			run := startLogin(t, partnerCenter.URL)
			if c.prepare != nil {
				if err := c.prepare(sim); err != nil {
					t.Fatal(err)
				}
			}
			_, _, text := c.who.signIn(t, run.page)
			err := run.end(t)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "nothing was stored") {
				t.Errorf("ended with %v", err)
			}
			if !strings.Contains(text, "Nothing was stored") || !strings.Contains(text, c.want) {
				t.Errorf("the page: %s", text)
			}
			if run.stored() != "" {
				t.Error("something was stored")
			}
		})
	}
}

// If the page receives any other request, login keeps waiting for its own
// answer.
func TestLoginWaitsForItsOwnAnswer(t *testing.T) {
	t.Parallel()
	sim, partnerCenter := pcsimtest.Start(t)
	run := startLogin(t, partnerCenter.URL)
	page, err := url.Parse(run.page)
	if err != nil {
		t.Fatal(err)
	}
	state := page.Query().Get("state")
	browser := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for name, c := range map[string]struct {
		page   string
		form   url.Values
		status int
	}{
		"wrong state":         {run.answer + "?code=stolen&state=guessed", nil, http.StatusBadRequest},
		"wrong state, denied": {run.answer + "?error=access_denied&state=guessed", nil, http.StatusBadRequest},
		"no state":            {run.answer + "?code=stolen", nil, http.StatusBadRequest},
		"two states":          {run.answer + "?code=stolen&state=" + state + "&state=" + state, nil, http.StatusBadRequest},
		"neither":             {run.answer + "?state=" + state, nil, http.StatusBadRequest},
		"both":                {run.answer + "?code=a&error=b&state=" + state, nil, http.StatusBadRequest},
		"another path":        {run.answer + "favicon.ico?code=stolen&state=" + state, nil, http.StatusNotFound},
		"another name":        {strings.Replace(run.answer, "localhost", "127.0.0.1", 1) + "?code=stolen&state=" + state, nil, http.StatusNotFound},
		"a form":              {run.answer + "?code=stolen&state=" + state, url.Values{}, http.StatusMethodNotAllowed},
	} {
		status, header, text := browse(t, browser, c.page, c.form)
		if status != c.status || header.Get("Cache-Control") != "no-store" || strings.Contains(text, "stolen") {
			t.Errorf("%s: %d, want %d; %s", name, status, c.status, text)
		}
	}
	if n := sim.Stats().Tokens; n != 0 {
		t.Fatalf("%d token requests", n)
	}
	person{}.signIn(t, run.page)
	if err := run.end(t); err != nil || run.stored() == "" {
		t.Errorf("ended with %v", err)
	}
}

// A second answer is rejected, even while the first is still being processed.
func TestLoginAcceptsOneAnswer(t *testing.T) {
	t.Parallel()
	sim, _ := pcsimtest.Start(t)
	asked, release := make(chan struct{}, 8), make(chan struct{})
	answerAll := sync.OnceFunc(func() { close(release) })
	partnerCenter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/token") {
			asked <- struct{}{}
			<-release
		}
		sim.Handler().ServeHTTP(w, r)
	}))
	defer partnerCenter.Close()
	defer answerAll()
	run := startLogin(t, partnerCenter.URL)
	page, err := url.Parse(run.page)
	if err != nil {
		t.Fatal(err)
	}
	answer := run.answer + "?code=made-up&state=" + page.Query().Get("state")
	browser := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	first := make(chan int, 1)
	go func() {
		status, _, _ := browse(t, browser, answer, nil)
		first <- status
	}()
	<-asked
	for range 3 {
		if status, _, _ := browse(t, browser, answer, nil); status != http.StatusConflict {
			t.Errorf("the same answer again: %d", status)
		}
	}
	answerAll()
	if status := <-first; status != http.StatusBadRequest {
		t.Errorf("a code that was made up: %d", status)
	}
	if err := run.end(t); err == nil || sim.Stats().Tokens != 1 {
		t.Errorf("ended with %v after %d token requests", err, sim.Stats().Tokens)
	}
}

func TestLoginGivesUp(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	file := filepath.Join(t.TempDir(), "refresh-token")
	out := new(output)
	err := login(t.Context(), pcsimtest.Environ(partnerCenter.URL, file), loginFlags{noBrowser: true, timeout: time.Millisecond}, nil, out)
	if err == nil || !strings.Contains(err.Error(), "nobody has signed in within 1ms") {
		t.Errorf("ended with %v", err)
	}
	if printed := out.String(); !strings.Contains(printed, "/oauth2/v2.0/authorize?") || !regexp.MustCompile(`ssh -L (\d+):127\.0\.0\.1:\d+`).MatchString(printed) {
		t.Errorf("printed %s", printed)
	}
	run := startLogin(t, partnerCenter.URL)
	run.cancel()
	if err := run.end(t); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("ended with %v", err)
	}
}

func TestLoginFailsBeforeItOpensABrowser(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "refresh-token")
	open := func(context.Context, string) error {
		t.Error("a page was opened")
		return nil
	}
	for name, c := range map[string]struct {
		environ []string
		want    string
	}{
		"nothing configured":  {nil, "partner_center.refresh_token_file: is required"},
		"app-only":            {pcsimtest.Environ("http://127.0.0.1:1", file, "ELIGIBILITY_PARTNER_CENTER__FLOW=app_only"), "needs no login"},
		"nowhere to store it": {pcsimtest.Environ("http://127.0.0.1:1", filepath.Join(file, "below")), "directory of the refresh token file"},
	} {
		err := login(t.Context(), c.environ, loginFlags{timeout: time.Minute}, open, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ended with %v", name, err)
		}
	}
}

// If there are several partners, login is for one of them, and stores its token.
func TestLoginIsForOnePartner(t *testing.T) {
	t.Parallel()
	a, b := startPartnerHost(t), startPartnerHost(t)
	tokens := map[string]string{"A": filepath.Join(t.TempDir(), "token"), "B": filepath.Join(t.TempDir(), "token")}
	environ := slices.Concat(a.environ(t, "a"), b.environ(t, "b"))
	for i, entry := range environ {
		if name, _, ok := strings.Cut(entry, "__REFRESH_TOKEN_FILE="); ok {
			environ[i] = name + "__REFRESH_TOKEN_FILE=" + tokens[strings.TrimPrefix(name, "ELIGIBILITY_PARTNERS__")]
		}
	}
	nobody := func(context.Context, string) error { return errors.New("a page was opened") }
	for partner, want := range map[string]string{"": "name one with --partner", "c": `no partner "c"`} {
		err := login(t.Context(), environ, loginFlags{partner: partner, timeout: patience}, nobody, new(output))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--partner %q: %v", partner, err)
		}
	}
	sign := func(_ context.Context, page string) error {
		if !strings.HasPrefix(page, b.url) {
			t.Errorf("signed in at %s", page)
		}
		go func() { person{}.signIn(t, page) }()
		return nil
	}
	out := new(output)
	if err := login(t.Context(), environ, loginFlags{partner: "b", timeout: patience}, sign, out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), tokens["B"]) {
		t.Errorf("printed %s", out)
	}
	if _, err := os.Stat(tokens["A"]); err == nil {
		t.Error("the token of another partner was written")
	}
	if _, err := os.Stat(tokens["B"]); err != nil {
		t.Error(err)
	}
}

func TestLoginReportsAMissingBrowser(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	out := new(output)
	file := filepath.Join(t.TempDir(), "refresh-token")
	none := func(context.Context, string) error { return io.ErrUnexpectedEOF }
	_ = login(t.Context(), pcsimtest.Environ(partnerCenter.URL, file), loginFlags{timeout: time.Millisecond}, none, out)
	if !strings.Contains(out.String(), "No browser could be opened") {
		t.Errorf("printed %s", out)
	}
}

// A refusal repeats an error code only if it is a published one.
func TestRefusalsRepeatKnownWordsOnly(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"access_denied", "server_error", "invalid_request", "login_required"} {
		if todo, err := refusedConsent(word); todo == "" || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, %q", word, err, todo)
		}
	}
	if todo, err := refusedConsent("<b>made up</b>"); todo == "" || strings.Contains(err.Error(), "made up") {
		t.Errorf("repeats what anybody can write: %v", err)
	}
}
