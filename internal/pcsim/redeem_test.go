package pcsim_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func TestCodeBringsTokens(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
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
	r.set(accountWithStatus("Allowed"))
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
	r.set(accountWithStatus("Allowed"))
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

// idClaims decodes an id_token. It cannot verify the signature because the key
// is not published.
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
