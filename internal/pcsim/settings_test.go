package pcsim_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// probe requests an account and asks whether the token proves MFA.
func (r *rig) probe(token string) reply {
	r.t.Helper()
	req := r.request(http.MethodGet, "/v1/customers/"+customerID+"/validationStatus?type=account", token)
	req.Header.Set("ValidateMfa", "true")
	got, err := r.do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *rig) settings(to pcsim.Settings) {
	r.t.Helper()
	if err := r.SetSettings(to); err != nil {
		r.t.Fatal(err)
	}
}

func TestTokensWithoutMFAAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{Settings: pcsim.Settings{WithoutMFA: true}})
	r.set(accountWithStatus("Allowed"))
	without := r.userToken()
	got := r.probe(without)
	if got.status != 401 || code(got.body) != 900421 || got.header.Get("WWW-Authenticate") == "" {
		t.Errorf("account: %d %s", got.status, got.body)
	}
	if value := got.header.Get("isMfaCompliant"); value != "false" {
		t.Errorf("isMfaCompliant %q, want false", value)
	}
	if got := r.qualifications(customerID, without); got.status != 401 || code(got.body) != 900421 {
		t.Errorf("qualifications: %d %s", got.status, got.body)
	}
	appOnly := r.grant(v2Path, appOnlyForm())["access_token"].(string)
	if got := r.qualifications(customerID, appOnly); got.status != 200 {
		t.Errorf("app-only is exempt, got %d %s", got.status, got.body)
	}
	r.settings(pcsim.Settings{})
	if got := r.account(customerID, without); got.status != 401 {
		t.Errorf("an old token got better: %d", got.status)
	}
	if got := r.probe(r.userToken()); got.status != 200 || got.header.Get("isMfaCompliant") != "true" {
		t.Errorf("new token: %d, isMfaCompliant %q", got.status, got.header.Get("isMfaCompliant"))
	}
}

func TestRefreshTokenKeepsWhatItWasConsentedWith(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	r.settings(pcsim.Settings{WithoutMFA: true})
	without := r.IssueRefreshToken()
	r.settings(pcsim.Settings{})
	for range 2 {
		got := r.grant(v2Path, refreshForm("refresh_token", without))
		if got := r.account(customerID, got["access_token"].(string)); code(got.body) != 900421 {
			t.Errorf("%d %s", got.status, got.body)
		}
		without = got["refresh_token"].(string) // rotated
	}
}

func TestMFAIsReportedOnlyOnRequest(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	if got, present := r.account(customerID, token).header["Ismfacompliant"]; present {
		t.Errorf("unasked: %v", got)
	}
	if got, present := r.probe("made-up").header["Ismfacompliant"]; present {
		t.Errorf("of a foreign token: %v", got)
	}
	appOnly := r.grant(v2Path, appOnlyForm())["access_token"].(string)
	if got := r.probe(appOnly).header.Get("isMfaCompliant"); got != "false" {
		t.Errorf("app-only: %q", got)
	}
}

func TestMFAIsEnforcedBitByBit(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	r.settings(pcsim.Settings{WithoutMFA: true})
	token := r.userToken()
	for percent, want := range map[int]int{0: 0, 1: 1, 50: 50, 99: 99, 100: 100} {
		r.settings(pcsim.Settings{WithoutMFA: true, MFAPassPercent: percent})
		passed := 0
		for range 100 {
			if r.account(customerID, token).status == 200 {
				passed++
			}
		}
		if passed != want {
			t.Errorf("%d percent: %d of 100 passed", percent, passed)
		}
	}
}

func TestSharesAreCountedAnew(t *testing.T) {
	t.Parallel()
	half := pcsim.Settings{WithoutMFA: true, MFAPassPercent: 50}
	r := start(t, pcsim.Config{Settings: half})
	const id = "a0000000-0000-4000-8000-000000000001"
	token := r.userToken()
	for name, again := range map[string]func(){"set": func() { r.settings(half) }, "reset": r.Reset} {
		for range 3 {
			again()
			if got := r.account(id, token); got.status != 401 { // the first of two
				t.Errorf("%s: %d", name, got.status)
			}
		}
		if got := r.account(id, token); got.status != 200 {
			t.Errorf("%s, then the second: %d", name, got.status)
		}
	}
}

func TestSkewedClockShowsInDatesAndTokens(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{Settings: pcsim.Settings{ClockSkew: -10 * time.Minute}})
	r.set(pcsim.Customer{ID: customerID, Account: []pcsim.Step{
		{Status: "UnderReview", For: time.Minute}, {Status: "Allowed"},
	}})
	const want = "Sat, 21 Nov 2026 11:50:00 GMT"
	got, err := r.postToken(t.Context(), v1Path, refreshForm("resource", audience))
	if err != nil {
		t.Fatal(err)
	}
	if got.header.Get("Date") != want {
		t.Errorf("token endpoint: Date %s, want %s", got.header.Get("Date"), want)
	}
	granted := decode(t, got.body)
	there := r.clock.Now().Add(-10 * time.Minute).Unix()
	if granted["not_before"] != strconv.FormatInt(there, 10) || granted["expires_on"] != strconv.FormatInt(there+3600, 10) {
		t.Errorf("token from %v to %v", granted["not_before"], granted["expires_on"])
	}
	token := granted["access_token"].(string)
	if got := r.account(customerID, token); got.status != 200 || got.header.Get("Date") != want {
		t.Errorf("resource: %d, Date %s", got.status, got.header.Get("Date"))
	}
	r.settings(pcsim.Settings{ClockSkew: 10 * time.Minute}) // timelines do not follow
	if got := r.account(customerID, token); !strings.Contains(got.body, "UnderReview") {
		t.Errorf("%d %s", got.status, got.body)
	}
	r.settings(pcsim.Settings{ClockSkew: time.Hour})
	if got := r.account(customerID, token); got.status != 401 {
		t.Errorf("the token should have ended: %d", got.status)
	}
}

func TestImpossibleSettingsAreRefused(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{-1, 101} {
		bad := pcsim.Settings{MFAPassPercent: percent}
		if _, err := pcsim.New(pcsim.Config{Settings: bad}); err == nil || !strings.Contains(err.Error(), "mfa_pass_percent") {
			t.Errorf("New: %v", err)
		}
		s := newServer(t)
		if err := s.SetSettings(bad); err == nil || s.Settings() != (pcsim.Settings{}) {
			t.Errorf("SetSettings: %v, %+v", err, s.Settings())
		}
	}
}

func TestControlChangesSettings(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	const zero = `{"without_mfa":false,"mfa_pass_percent":0,"clock_skew":"0s"}` + "\n"
	if got := r.control("GET", "/v1/settings", ""); got.body != zero {
		t.Errorf("at first: %s", got.body)
	}
	const some = `{"without_mfa":true,"mfa_pass_percent":50,"clock_skew":"-10m0s"}` + "\n"
	if got := r.control("PUT", "/v1/settings", some); got.status != 200 || got.body != some {
		t.Errorf("%d %s", got.status, got.body)
	}
	want := pcsim.Settings{WithoutMFA: true, MFAPassPercent: 50, ClockSkew: -10 * time.Minute}
	if diff := cmp.Diff(want, r.Settings()); diff != "" {
		t.Error(diff)
	}
	bad := `{"without_mfa":"perhaps","mfa_pass_percent":101,"clock_skew":10,"mfa":true}`
	got := r.control("PUT", "/v1/settings", bad)
	for _, word := range []string{"not true or false", "from 0 to 100", "such as 1.5s or -2m", "is not known here"} {
		if got.status != 400 || !strings.Contains(got.body, word) {
			t.Errorf("%d lacks %q: %s", got.status, word, got.body)
		}
	}
	if diff := cmp.Diff(want, r.Settings()); diff != "" {
		t.Errorf("a bad request changed something: %s", diff)
	}
	if got := r.control("PUT", "/v1/settings", "{}"); got.body != zero {
		t.Errorf("left out: %s", got.body)
	}
	r.settings(want)
	r.control("POST", "/v1/reset", "")
	if r.Settings() != (pcsim.Settings{}) {
		t.Errorf("after a reset: %+v", r.Settings())
	}
}

func TestControlEndsTokens(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	if got := r.control("POST", "/v1/token/expire", ""); got.status != 204 {
		t.Errorf("expire: %d %s", got.status, got.body)
	}
	if got := r.account(customerID, token); got.status != 401 || got.body != "" {
		t.Errorf("expired: %d %s", got.status, got.body)
	}
	r.userToken()
	if got := r.control("POST", "/v1/token/revoke", ""); got.status != 204 {
		t.Errorf("revoke: %d %s", got.status, got.body)
	}
	got, err := r.postToken(t.Context(), v2Path, refreshForm())
	if err != nil {
		t.Fatal(err)
	}
	checkEntra(t, "revoked", got, 400, "invalid_grant", 50173)
}
