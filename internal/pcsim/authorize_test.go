package pcsim_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// consentQuery is a good v2 request, changed as told: key, value, …. An empty
// value removes the key.
func consentQuery(changes ...string) url.Values {
	return edit(url.Values{
		"client_id": {pcsim.DefaultClientID}, "response_type": {"code"}, "redirect_uri": {redirectURI},
		"scope": {audience + "/user_impersonation openid offline_access"}, "state": {"a state & more"},
		"code_challenge": {s256(verifier)}, "code_challenge_method": {"S256"},
	}, changes...)
}

// consentQueryV1 is a good v1 request, changed as told.
func consentQueryV1(changes ...string) url.Values {
	return edit(consentQuery(), append([]string{"scope", "openid", "resource", audience}, changes...)...)
}

// codeForm is a good v2 redemption, changed as told.
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

// decide sends the consent page's form.
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
		// The icon keeps browsers from asking for one, which would be recorded as a call.
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

func TestCodeBringsTokens(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountSays("Allowed"))
	got := r.grant(v2Path, codeForm(r.accept(authorizeV2, consentQuery("nonce", "n"), pcsim.PartnerAccount)))
	if got := r.probe(got["access_token"].(string)); got.status != 200 || got.header.Get("isMfaCompliant") != "true" {
		t.Errorf("%d %s", got.status, got.body)
	}
	r.grant(v2Path, refreshForm("refresh_token", got["refresh_token"].(string)))
	now := float64(r.clock.Now().Unix())
	want := map[string]any{
		"aud": pcsim.DefaultClientID, "ver": "2.0", "iss": r.url + "/" + pcsim.DefaultTenantID + "/v2.0",
		"tid": pcsim.DefaultTenantID, "preferred_username": pcsim.PartnerAccount, "nonce": "n",
		"iat": now, "nbf": now, "exp": now + 3600,
	}
	said := idClaims(t, got["id_token"].(string))
	if said["oid"] == nil || said["sub"] == nil {
		t.Errorf("no oid or sub: %v", said)
	}
	delete(said, "oid")
	delete(said, "sub")
	if diff := cmp.Diff(want, said); diff != "" {
		t.Error(diff)
	}
	for _, member := range []string{"access_token", "refresh_token", "id_token"} {
		delete(got, member)
	}
	rest := map[string]any{
		"token_type": "Bearer", "scope": audience + "/user_impersonation", "expires_in": 3600.0, "ext_expires_in": 3600.0,
	}
	if diff := cmp.Diff(rest, got); diff != "" {
		t.Error(diff)
	}
}

func TestCodeBringsTokensFromV1(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountSays("Allowed"))
	for _, resources := range [][2]string{{audience, ""}, {"", audience}, {audience, audience}} {
		code := r.accept(authorizeV1, consentQueryV1("resource", resources[0]), pcsim.PartnerAccount)
		got := r.grant(v1Path, codeForm(code, "scope", "", "resource", resources[1]))
		if got := r.account(customerID, got["access_token"].(string)); got.status != 200 {
			t.Errorf("%v: %d %s", resources, got.status, got.body)
		}
		if got["expires_in"] != "3600" || got["resource"] != audience || got["refresh_token"] == nil {
			t.Errorf("%v: %v", resources, got)
		}
		said := idClaims(t, got["id_token"].(string))
		if said["ver"] != "1.0" || said["iss"] != "https://sts.windows.net/"+pcsim.DefaultTenantID+"/" {
			t.Errorf("%v", said)
		}
	}
	code := r.accept(authorizeV1, consentQueryV1("resource", "", "scope", ""), pcsim.PartnerAccount)
	got, err := r.postToken(t.Context(), v1Path, codeForm(code, "scope", ""))
	if err != nil {
		t.Fatal(err)
	}
	checkEntra(t, "no resource at all", got, 400, "invalid_request", 900144)
}

func TestOnlyWhatWasAskedForComes(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	tests := []struct {
		consented, asked string
		members          []string
	}{
		{audience + "/user_impersonation", "", nil},
		{audience + "/user_impersonation openid", "", []string{"id_token"}},
		{audience + "/user_impersonation offline_access", "", []string{"refresh_token"}},
		{audience + "/.default openid offline_access", audience + "/.default", nil},
	}
	for _, tc := range tests {
		code := r.accept(authorizeV2, consentQuery("scope", tc.consented), pcsim.PartnerAccount)
		got := r.grant(v2Path, codeForm(code, "scope", tc.asked))
		for _, member := range []string{"id_token", "refresh_token"} {
			if _, came := got[member]; came != slices.Contains(tc.members, member) {
				t.Errorf("%s, then %q: %s came: %v", tc.consented, tc.asked, member, came)
			}
		}
	}
}

func TestForeignAccountIsOfAnotherTenant(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	got := r.grant(v2Path, codeForm(r.accept(authorizeV2, consentQuery(), pcsim.ForeignAccount)))
	said := idClaims(t, got["id_token"].(string))
	if said["tid"] != pcsim.ForeignTenantID || said["preferred_username"] != pcsim.ForeignAccount {
		t.Errorf("%v", said)
	}
}

func TestConsentWithoutMFASticks(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{Settings: pcsim.Settings{WithoutMFA: true}})
	r.set(accountSays("Allowed"))
	code := r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)
	r.settings(pcsim.Settings{})
	got := r.grant(v2Path, codeForm(code))
	again := r.grant(v2Path, refreshForm("refresh_token", got["refresh_token"].(string)))
	for _, granted := range []map[string]any{got, again} {
		if got := r.account(customerID, granted["access_token"].(string)); code900421(got) {
			continue
		}
		t.Error("a token without MFA passed")
	}
}

func code900421(got reply) bool { return got.status == 401 && code(got.body) == 900421 }

func TestCodeRefusals(t *testing.T) {
	t.Parallel()
	known := must(t, knownCredential)
	r := start(t, pcsim.Config{})
	if err := r.RegisterCertificate(known.cert); err != nil {
		t.Fatal(err)
	}
	fresh := func() string { return r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount) }
	const graph = "https://graph.microsoft.com"
	tests := []struct {
		name   string
		form   url.Values
		status int
		word   string
		code   int
	}{
		{"no code", codeForm(""), 400, "invalid_request", 900144},
		{"no verifier", codeForm(fresh(), "code_verifier", ""), 400, "invalid_request", 900144},
		{"no redirect_uri", codeForm(fresh(), "redirect_uri", ""), 400, "invalid_request", 900144},
		{"made-up code", codeForm("made-up"), 400, "invalid_grant", 9002313},
		{"other redirect_uri", codeForm(fresh(), "redirect_uri", "http://127.0.0.1:49152/callback"), 400, "invalid_grant", 500112},
		{"other verifier", codeForm(fresh(), "code_verifier", strings.Repeat("x", 43)), 400, "invalid_grant", 501481},
		{"challenge as verifier", codeForm(fresh(), "code_verifier", s256(verifier)), 400, "invalid_grant", 501481},
		{"wrong secret", codeForm(fresh(), "client_secret", "x"), 401, "invalid_client", 7000215},
		{"no secret", codeForm(fresh(), "client_secret", ""), 401, "invalid_client", 7000218},
		{"bad assertion", asserted(codeForm(fresh()), "x"), 401, "invalid_client", 50027},
		{"wider scope", codeForm(fresh(), "scope", audience+"/user_impersonation email"), 400, "invalid_scope", 70011},
		{"other scope", codeForm(fresh(), "scope", graph+"/.default"), 400, "invalid_scope", 70011},
		{"scope without audience", codeForm(fresh(), "scope", "openid"), 400, "invalid_scope", 70011},
	}
	for _, tc := range tests {
		got, err := r.postToken(t.Context(), v2Path, tc.form)
		if err != nil {
			t.Fatal(err)
		}
		checkEntra(t, tc.name, got, tc.status, tc.word, tc.code)
	}
	for _, short := range []string{strings.Repeat("x", 42), strings.Repeat("x", 129), strings.Repeat("x", 42) + "+"} {
		code := r.accept(authorizeV2, consentQuery("code_challenge", s256(short)), pcsim.PartnerAccount)
		got, err := r.postToken(t.Context(), v2Path, codeForm(code, "code_verifier", short))
		if err != nil {
			t.Fatal(err)
		}
		checkEntra(t, "verifier "+short, got, 400, "invalid_grant", 501481)
	}
	assertion := known.sign(t, known.modern(), claimSet(r.url+"/"+v2Path, r.clock.Now()))
	r.grant(v2Path, asserted(codeForm(fresh()), assertion))
}

func TestCodesAreGoodOnceAndForFiveMinutes(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	redeem := func(name string, form url.Values, aadsts int) {
		t.Helper()
		got, err := r.postToken(t.Context(), v2Path, form)
		if err != nil {
			t.Fatal(err)
		}
		checkEntra(t, name, got, 400, "invalid_grant", aadsts)
	}
	used := r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)
	r.grant(v2Path, codeForm(used))
	redeem("used", codeForm(used), 54005)
	tried := r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)
	redeem("tried", codeForm(tried, "code_verifier", strings.Repeat("x", 43)), 501481)
	redeem("tried again", codeForm(tried), 54005)

	late, inTime := r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount), r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)
	r.clock.Advance(5*time.Minute - 1)
	r.grant(v2Path, codeForm(inTime))
	r.clock.Advance(1)
	got, err := r.postToken(t.Context(), v2Path, codeForm(late))
	if err != nil || !strings.Contains(got.body, "AADSTS70008: ") {
		t.Errorf("late: %s %v", got.body, err)
	}
}

func TestOnlySoManyCodesWait(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	for range 1000 {
		r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)
	}
	back := sentBack(t, r.decide(authorizeV2, consentQuery(), pcsim.PartnerAccount, "accept"))
	if back.Get("error") != "temporarily_unavailable" || back.Has("code") {
		t.Errorf("%v", back)
	}
	r.clock.Advance(5 * time.Minute)
	r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount)
}

func TestOneOfManyRedeemsACode(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	form := codeForm(r.accept(authorizeV2, consentQuery(), pcsim.PartnerAccount))
	var redeemed atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			got, err := r.postToken(t.Context(), v2Path, form)
			if err != nil {
				t.Error(err)
			}
			if got.status == http.StatusOK {
				redeemed.Add(1)
			}
		})
	}
	wg.Wait()
	if redeemed.Load() != 1 {
		t.Errorf("%d redeemed it", redeemed.Load())
	}
}

// idClaims reads an id_token. Its key is nobody's to know, so that only its
// form can be checked.
func idClaims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	read := func(part string) (v map[string]any) {
		text, err := base64.RawURLEncoding.DecodeString(part)
		if err == nil {
			err = json.Unmarshal(text, &v)
		}
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(signature) != 256 || read(parts[0])["alg"] != "RS256" {
		t.Errorf("header %v, signature of %d bytes, %v", read(parts[0]), len(signature), err)
	}
	return read(parts[1])
}
