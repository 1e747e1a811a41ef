package pcsim_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func TestV1SendsNumbersAsStrings(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	form := appOnlyForm()
	form.Del("scope")
	form.Set("resource", audience)
	got := r.grant(v1Path, form)
	delete(got, "access_token")
	want := map[string]any{
		"token_type": "Bearer", "resource": audience,
		"expires_in": "3600", "ext_expires_in": "3600",
		"not_before": fmt.Sprint(r.clock.Now().Unix()), "expires_on": fmt.Sprint(r.clock.Now().Unix() + 3600),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestV2SendsNumbersAndRotatesTheRefreshToken(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	got := r.grant(v2Path, refreshForm())
	rotated, _ := got["refresh_token"].(string)
	delete(got, "access_token")
	delete(got, "refresh_token")
	want := map[string]any{
		"token_type": "Bearer", "scope": audience + "/user_impersonation",
		"expires_in": 3600.0, "ext_expires_in": 3600.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again := r.grant(v2Path, refreshForm("refresh_token", rotated))["refresh_token"]
	if rotated == "" || rotated == pcsim.DefaultRefreshToken || again == rotated {
		t.Errorf("no new refresh token on every use: %q, %q", rotated, again)
	}
	for _, old := range []string{pcsim.DefaultRefreshToken, rotated} {
		r.grant(v2Path, refreshForm("refresh_token", old)) // use does not revoke it
	}
	if app := r.grant(v2Path, appOnlyForm()); app["refresh_token"] != nil {
		t.Error("app-only got a refresh token")
	}
}

func TestTokensForTheChineseCloudWork(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	const china = "https://partner.partnercenterapi.microsoftonline.cn"
	for _, got := range []map[string]any{
		r.grant(v1Path, refreshForm("resource", china)),
		r.grant(v2Path, refreshForm("scope", china+"/user_impersonation")),
	} {
		if got := r.account(customerID, got["access_token"].(string)); got.status != 200 {
			t.Errorf("got %d", got.status)
		}
	}
}

func TestRefreshTokensSurviveARestart(t *testing.T) {
	t.Parallel()
	rotated := start(t, pcsim.Config{}).IssueRefreshToken()
	start(t, pcsim.Config{}).grant(v2Path, refreshForm("refresh_token", rotated))
	foreign := start(t, pcsim.Config{ClientSecret: "another"})
	got, err := foreign.postToken(t.Context(), v2Path, refreshForm("client_secret", "another", "refresh_token", rotated))
	if err != nil || got.status != http.StatusBadRequest {
		t.Errorf("other credentials: %d, %v", got.status, err)
	}
}

func TestTokenRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	v1 := func(changes ...string) url.Values {
		return refreshForm(append([]string{"scope", "", "resource", audience}, changes...)...)
	}
	appOnly := func(scope string) url.Values {
		form := appOnlyForm()
		form.Set("scope", scope)
		return form
	}
	tests := []struct {
		name   string
		path   string
		form   url.Values
		status int
		word   string
		code   int
	}{
		{"other tenant", "contoso/oauth2/token", v1(), 400, "invalid_request", 90002},
		{"no grant type", v1Path, v1("grant_type", ""), 400, "invalid_request", 900144},
		{"no client id", v1Path, v1("client_id", ""), 400, "invalid_request", 900144},
		{"password grant", v1Path, v1("grant_type", "password"), 400, "unsupported_grant_type", 70003},
		{"other client", v2Path, refreshForm("client_id", "x"), 400, "unauthorized_client", 700016},
		{"no secret", v2Path, refreshForm("client_secret", ""), 401, "invalid_client", 7000218},
		{"wrong secret", v2Path, refreshForm("client_secret", "x"), 401, "invalid_client", 7000215},
		{"no refresh token", v2Path, refreshForm("refresh_token", ""), 400, "invalid_request", 900144},
		{"foreign refresh token", v2Path, refreshForm("refresh_token", "x"), 400, "invalid_grant", 9002313},
		{"access token as refresh token", v2Path, refreshForm("refresh_token", r.userToken()), 400, "invalid_grant", 9002313},
		{"no resource", v1Path, v1("resource", ""), 400, "invalid_request", 900144},
		{"other resource", v1Path, v1("resource", "https://graph.microsoft.com"), 400, "invalid_resource", 500011},
		{"no scope", v2Path, refreshForm("scope", ""), 400, "invalid_request", 900144},
		{"scope without audience", v2Path, refreshForm("scope", "offline_access"), 400, "invalid_scope", 70011},
		{"two audiences", v2Path, refreshForm("scope", audience+"/.default "+audience+"/.default"), 400, "invalid_scope", 70011},
		{"other permission", v2Path, refreshForm("scope", audience+"/Mail.Read"), 400, "invalid_scope", 70011},
		{"other audience", v2Path, refreshForm("scope", "https://x/.default"), 400, "invalid_resource", 500011},
		{"app-only, user scope", v2Path, appOnly(audience + "/user_impersonation"), 400, "invalid_scope", 70011},
		{"form too large", v2Path, refreshForm("x", strings.Repeat("x", 70_000)), 400, "invalid_request", 900910},
	}
	for _, tc := range tests {
		got, err := r.postToken(t.Context(), tc.path, tc.form)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		checkEntra(t, tc.name, got, tc.status, tc.word, tc.code)
	}
	got, err := r.do(r.request(http.MethodGet, "/"+v2Path, ""))
	if err != nil {
		t.Fatal(err)
	}
	checkEntra(t, "GET", got, 400, "invalid_request", 900561)
}

// checkEntra checks every member of an error in Entra's form.
func checkEntra(t *testing.T, name string, got reply, status int, word string, aadsts int) {
	t.Helper()
	body := decode(t, got.body)
	if got.status != status || body["error"] != word {
		t.Errorf("%s: %d %v, want %d %s", name, got.status, body["error"], status, word)
	}
	if diff := cmp.Diff([]any{float64(aadsts)}, body["error_codes"]); diff != "" {
		t.Errorf("%s: error_codes %s", name, diff)
	}
	if text, _ := body["error_description"].(string); !strings.HasPrefix(text, fmt.Sprintf("AADSTS%d: ", aadsts)) {
		t.Errorf("%s: error_description %q", name, text)
	}
	if body["timestamp"] != "2026-11-21 12:00:00Z" {
		t.Errorf("%s: timestamp %v", name, body["timestamp"])
	}
	for _, member := range []string{"trace_id", "correlation_id"} {
		if text, _ := body[member].(string); uuid.Validate(text) != nil {
			t.Errorf("%s: %s %q is no GUID", name, member, text)
		}
	}
}

func TestRevokedRefreshTokensNeedNewConsent(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	rotated := r.IssueRefreshToken()
	r.RevokeTokens()
	for _, token := range []string{pcsim.DefaultRefreshToken, rotated} {
		got, err := r.postToken(t.Context(), v2Path, refreshForm("refresh_token", token))
		if err != nil {
			t.Fatal(err)
		}
		checkEntra(t, "revoked", got, 400, "invalid_grant", 50173)
	}
	r.grant(v2Path, refreshForm("refresh_token", r.IssueRefreshToken()))
}

func TestConfiguredCredentialsReplaceTheDefaults(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{TenantID: "fabrikam.example", ClientID: "id", ClientSecret: "secret", RefreshToken: "consent"})
	r.grant("fabrikam.example/oauth2/v2.0/token",
		refreshForm("client_id", "id", "client_secret", "secret", "refresh_token", "consent"))
	got, err := r.postToken(t.Context(), "fabrikam.example/oauth2/v2.0/token",
		refreshForm("client_id", "id", "client_secret", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	checkEntra(t, "default refresh token", got, 400, "invalid_grant", 9002313)
}

func TestImpossibleConfigIsRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	_, err := pcsim.New(pcsim.Config{TenantID: "a/b", TokenLifetime: -1, RequestsPerMinute: -1})
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range []string{"tenant id", "token lifetime", "requests per minute"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q lacks %q", err, word)
		}
	}
}

func TestScriptedTokenFailures(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	err := r.ScriptTokens(
		pcsim.Step{EntraError: 700082, Times: 1},
		pcsim.Step{EntraError: 90055, Times: 1},
		pcsim.Step{Raw: &pcsim.Raw{Status: 502, Headers: map[string]string{"Content-Type": "text/html"}, Body: "<html>"}, Times: 2},
		pcsim.Step{},
	)
	if err != nil {
		t.Fatal(err)
	}
	var statuses []int
	for range 6 {
		got, err := r.postToken(t.Context(), v2Path, refreshForm())
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, got.status)
	}
	if want := []int{400, 429, 502, 502, 200, 200}; !slices.Equal(statuses, want) {
		t.Errorf("got %v, want %v", statuses, want)
	}
	if got := r.Stats().Tokens; got != 6 {
		t.Errorf("%d token requests counted, want 6", got)
	}
}

func TestScriptedTokenLifetime(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	if err := r.ScriptTokens(pcsim.Step{ExpiresIn: 5e9}); err != nil {
		t.Fatal(err)
	}
	r.set(accountWithStatus("Allowed"))
	got := r.grant(v2Path, refreshForm())
	if got["expires_in"] != 5.0 {
		t.Errorf("expires_in %v", got["expires_in"])
	}
	r.clock.Advance(5e9)
	if got := r.account(customerID, got["access_token"].(string)); got.status != 401 {
		t.Errorf("after 5 s: %d", got.status)
	}
}
