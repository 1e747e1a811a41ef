package pcsim_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

const (
	authorizeV1 = "/" + pcsim.DefaultTenantID + "/oauth2/authorize"
	authorizeV2 = "/" + pcsim.DefaultTenantID + "/oauth2/v2.0/authorize"

	redirectURI = "http://127.0.0.1:49152/callback?keep=1"
	verifier    = "dBjftJeZ4CVP-mBVcXkyl.~_qQ5ZhZNdM0N_B8TzAbCd"
)

func s256(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// consentQuery is a valid v2 request with changes: key, value, …. If a value is
// empty, the key is removed.
func consentQuery(changes ...string) url.Values {
	return edit(url.Values{
		"client_id": {pcsim.DefaultClientID}, "response_type": {"code"}, "redirect_uri": {redirectURI},
		"scope": {audience + "/user_impersonation openid offline_access"}, "state": {"a state & more"},
		"code_challenge": {s256(verifier)}, "code_challenge_method": {"S256"},
	}, changes...)
}

// consentQueryV1 is a valid v1 request with changes.
func consentQueryV1(changes ...string) url.Values {
	return edit(consentQuery(), append([]string{"scope", "openid", "resource", audience}, changes...)...)
}

// codeForm is a valid v2 redemption with changes.
func codeForm(code string, changes ...string) url.Values {
	return edit(url.Values{
		"grant_type": {"authorization_code"}, "client_id": {pcsim.DefaultClientID},
		"client_secret": {pcsim.DefaultClientSecret}, "code": {code}, "redirect_uri": {redirectURI},
		"code_verifier": {verifier}, "scope": {audience + "/user_impersonation openid offline_access"},
	}, changes...)
}

func edit(form url.Values, changes ...string) url.Values {
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
		if changes[i+1] == "" {
			form.Del(changes[i])
		}
	}
	return form
}

// decide submits the consent page's form.
func (r *rig) decide(path string, query url.Values, account, decision string) reply {
	r.t.Helper()
	form := url.Values{"account": {account}, "decision": {decision}}
	got, err := r.postToken(r.t.Context(), strings.TrimPrefix(path, "/")+"?"+query.Encode(), form)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

// sentBack returns the parameters of a redirect to the client.
func sentBack(t *testing.T, got reply) url.Values {
	t.Helper()
	location, err := url.Parse(got.header.Get("Location"))
	if err != nil || got.status != http.StatusFound {
		t.Fatalf("no redirect: %d, %v", got.status, err)
	}
	if back := location.Scheme + "://" + location.Host + location.Path; back != "http://127.0.0.1:49152/callback" {
		t.Fatalf("sent to %s", back)
	}
	return location.Query()
}

// accept consents as the given account and returns the code.
func (r *rig) accept(path string, query url.Values, account string) string {
	r.t.Helper()
	back := sentBack(r.t, r.decide(path, query, account, "accept"))
	code := back.Get("code")
	if diff := cmp.Diff(url.Values{"code": {code}, "state": {"a state & more"}, "keep": {"1"}}, back); diff != "" || code == "" {
		r.t.Fatal(diff)
	}
	return code
}

func TestConsentPageAsksForAnAccountAndADecision(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	for path, query := range map[string]url.Values{authorizeV1: consentQueryV1(), authorizeV2: consentQuery()} {
		got := r.get(path+"?"+query.Encode(), "")
		if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
			t.Fatalf("%d %s", got.status, got.body)
		}
		for _, want := range []string{
			`<form method="post">`, pcsim.DefaultClientID, audience,
			`name="account" value="` + pcsim.PartnerAccount + `" checked>`, `name="account" value="` + pcsim.ForeignAccount + `">`,
			`name="decision" value="accept"`, `name="decision" value="cancel"`, "Signing in proves a second factor.",
		} {
			if !strings.Contains(got.body, want) {
				t.Errorf("%s: no %s in %s", path, want, got.body)
			}
		}
		// If the page has an icon, browsers do not request one, which would be
		// recorded as a call.
		body := strings.Replace(got.body, `<link rel="icon" href="data:,">`, "", 1)
		if foreign := regexp.MustCompile(`(?i)(src|href|action)=|<script|url\(|@import`).FindString(body); foreign != "" {
			t.Errorf("the page refers to something: %s", foreign)
		}
		policy := got.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "form-action") {
			t.Errorf("Content-Security-Policy %q", policy)
		}
	}
}

func TestConsentPageTakesHints(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{Settings: pcsim.Settings{WithoutMFA: true}})
	query := consentQuery("login_hint", strings.ToUpper(pcsim.ForeignAccount), "prompt", "select_account",
		"scope", audience+"/.default openid")
	got := r.get(authorizeV2+"?"+query.Encode(), "")
	if !strings.Contains(got.body, pcsim.ForeignAccount+`" checked>`) || strings.Count(got.body, "checked") != 1 {
		t.Errorf("chosen is not the hint: %s", got.body)
	}
	if !strings.Contains(got.body, "Signing in proves no second factor.") {
		t.Errorf("silent about MFA: %s", got.body)
	}
	got = r.get(authorizeV2+"?"+consentQuery("login_hint", `"><script>`).Encode(), "")
	if !strings.Contains(got.body, pcsim.PartnerAccount+`" checked>`) {
		t.Errorf("unknown hint: %s", got.body)
	}
}

func TestWhatCannotBeTrustedIsNeverRedirected(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	const other = "/contoso/oauth2/v2.0/authorize"
	type bad struct {
		path  string
		query url.Values
		code  string
	}
	tests := []bad{
		{other, consentQuery(), "AADSTS90002"},
		{authorizeV2, consentQuery("client_id", ""), "AADSTS900144"},
		{authorizeV2, consentQuery("client_id", "<b>x</b>"), "AADSTS700016"},
	}
	for _, to := range []string{
		"", "/callback", "https://127.0.0.1/callback", "http://example.com/callback", "http://127.0.0.1.example.com/",
		"http://user@localhost/", "http://localhost/#x", "http://localhost/#", "http://localhost:x/", "http:localhost", "http://10.0.0.1/",
		"javascript:alert(1)", "//localhost/",
	} {
		tests = append(tests, bad{authorizeV2, consentQuery("redirect_uri", to), "AADSTS50011"})
	}
	for _, tc := range tests {
		for _, got := range []reply{
			r.get(tc.path+"?"+tc.query.Encode(), ""),
			r.decide(tc.path, tc.query, pcsim.PartnerAccount, "accept"),
			r.decide(tc.path, tc.query, pcsim.PartnerAccount, "cancel"),
		} {
			if got.status != 400 || got.header.Get("Location") != "" || !strings.Contains(got.body, tc.code+": ") {
				t.Errorf("%v: %d to %q: %s", tc.query, got.status, got.header.Get("Location"), got.body)
			}
		}
	}
	for _, form := range [][2]string{{"somebody else", "accept"}, {pcsim.PartnerAccount, "perhaps"}, {"", ""}} {
		got := r.decide(authorizeV2, consentQuery(), form[0], form[1])
		if got.status != 400 || got.header.Get("Location") != "" {
			t.Errorf("%v: %d to %q", form, got.status, got.header.Get("Location"))
		}
	}
}

func TestEveryLoopbackHostAndPortIsTaken(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	for _, to := range []string{"http://localhost", "http://127.0.0.1:1/a/b", "http://[::1]:65535/"} {
		got := r.decide(authorizeV2, consentQuery("redirect_uri", to), pcsim.PartnerAccount, "cancel")
		if got.status != 302 || !strings.HasPrefix(got.header.Get("Location"), to+"?error=") {
			t.Errorf("%s: %d to %s", to, got.status, got.header.Get("Location"))
		}
	}
}

func TestRequestsForConsentAreRefusedToTheClient(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	tests := []struct {
		path   string
		query  url.Values
		word   string
		aadsts string
	}{
		{authorizeV2, consentQuery("response_type", ""), "invalid_request", "AADSTS900144"},
		{authorizeV2, consentQuery("response_type", "id_token"), "unsupported_response_type", "AADSTS700054"},
		{authorizeV2, consentQuery("response_mode", "form_post"), "invalid_request", "AADSTS900910"},
		{authorizeV2, consentQuery("state", ""), "invalid_request", "AADSTS900144"},
		{authorizeV2, consentQuery("code_challenge", ""), "invalid_request", "AADSTS900144"},
		{authorizeV2, consentQuery("code_challenge", "short"), "invalid_request", "AADSTS900910"},
		{authorizeV2, consentQuery("code_challenge", s256("")[:40]), "invalid_request", "AADSTS900910"},
		{authorizeV2, consentQuery("code_challenge_method", ""), "invalid_request", "AADSTS900910"},
		{authorizeV2, consentQuery("code_challenge_method", "plain"), "invalid_request", "AADSTS900910"},
		{authorizeV2, consentQuery("scope", ""), "invalid_request", "AADSTS900144"},
		{authorizeV2, consentQuery("scope", "openid"), "invalid_scope", "AADSTS70011"},
		{authorizeV2, consentQuery("scope", "https://graph.microsoft.com/.default"), "invalid_resource", "AADSTS500011"},
		{authorizeV2, consentQuery("prompt", "never"), "invalid_request", "AADSTS90023"},
		{authorizeV2, consentQuery("prompt", "none"), "login_required", "AADSTS50058"},
		{authorizeV1, consentQueryV1("resource", "https://graph.microsoft.com"), "invalid_resource", "AADSTS500011"},
	}
	for _, tc := range tests {
		back := sentBack(t, r.get(tc.path+"?"+tc.query.Encode(), ""))
		if back.Get("error") != tc.word || !strings.HasPrefix(back.Get("error_description"), tc.aadsts+": ") ||
			back.Get("state") != tc.query.Get("state") || back.Has("code") {
			t.Errorf("%v: %v", tc.query, back)
		}
	}
}

func TestCancelIsAccessDenied(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	back := sentBack(t, r.decide(authorizeV2, consentQuery(), pcsim.PartnerAccount, "cancel"))
	if !strings.HasPrefix(back.Get("error_description"), "AADSTS65004: ") {
		t.Errorf("error_description %q", back.Get("error_description"))
	}
	back.Del("error_description")
	want := url.Values{"error": {"access_denied"}, "error_subcode": {"cancel"}, "state": {"a state & more"}, "keep": {"1"}}
	if diff := cmp.Diff(want, back); diff != "" {
		t.Error(diff)
	}
}
