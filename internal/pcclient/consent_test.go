package pcclient_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

const (
	ourTenant   = "70000000-0000-4000-8000-000000000001"
	otherTenant = "70000000-0000-4000-8000-000000000002"
	redirect    = "http://localhost:4711/"
)

// idToken carries these claims; nobody checks its signature.
func idToken(claims string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func aboutUs() string { return idToken(`{"aud":"client-id","tid":"` + ourTenant + `"}`) }

// consents gives tokens and that id_token.
func consents(idToken string, more ...string) answerer {
	return responds(http.StatusOK, `{"token_type":"Bearer","access_token":"canary-access","expires_in":3600,`+
		strings.Join(append(more, fmt.Sprintf(`"id_token":%q}`, idToken)), ","))
}

const freshToken = `"refresh_token":"canary-refresh"`

// consent is a Consent at a login host of its own.
type consent struct {
	*pcclient.Consent

	login *host
	file  string
}

func startConsent(t *testing.T, answer answerer, change ...func(*pcclient.Config)) consent {
	t.Helper()
	c := consent{login: listen(t, answer), file: filepath.Join(t.TempDir(), "refresh-token")}
	cfg := pcclient.Config{
		BaseURL:          c.login.URL,
		Authority:        c.login.URL,
		TenantID:         ourTenant,
		ClientID:         "client-id",
		ClientSecret:     "canary-secret",
		Audience:         "https://api.partnercenter.microsoft.com",
		RefreshTokenFile: c.file,
	}
	for _, change := range change {
		change(&cfg)
	}
	var err error
	if c.Consent, err = pcclient.NewConsent(cfg, redirect); err != nil {
		t.Fatal(err)
	}
	return c
}

// stored is what the file holds; "" if there is none.
func (c consent) stored() string {
	content, err := os.ReadFile(c.file)
	if err != nil {
		return ""
	}
	return string(content)
}

func (c consent) query(t *testing.T) url.Values {
	t.Helper()
	u, err := url.Parse(c.URL())
	if err != nil || !strings.HasPrefix(c.URL(), c.login.URL+"/"+ourTenant+"/oauth2/v2.0/authorize?") {
		t.Fatalf("URL %s, %v", c.URL(), err)
	}
	return u.Query()
}

// T-06: the code and the verifier of the challenge bring both tokens.
func TestConsentRedeemsACodeForARefreshToken(t *testing.T) {
	t.Parallel()
	c := startConsent(t, consents(aboutUs(), freshToken))
	query := c.query(t)
	state, challenge := query.Get("state"), query.Get("code_challenge")
	query.Del("state")
	query.Del("code_challenge")
	if diff := cmp.Diff(url.Values{
		"client_id":             {"client-id"},
		"response_type":         {"code"},
		"response_mode":         {"query"},
		"redirect_uri":          {redirect},
		"scope":                 {"https://api.partnercenter.microsoft.com/user_impersonation offline_access openid"},
		"prompt":                {"select_account"},
		"code_challenge_method": {"S256"},
	}, query); diff != "" {
		t.Errorf("page asked with (-want +got):\n%s", diff)
	}
	tenant, err := c.Redeem(t.Context(), "the-code")
	if err != nil || tenant != ourTenant {
		t.Fatalf("tenant %q, %v", tenant, err)
	}
	if len(state) < 20 {
		t.Errorf("state %q can be guessed", state)
	}
	form := c.login.asked()[0].form
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	if len(form.Get("code_verifier")) < 43 || base64.RawURLEncoding.EncodeToString(sum[:]) != challenge {
		t.Errorf("verifier %q does not belong to challenge %q", form.Get("code_verifier"), challenge)
	}
	form.Del("code_verifier")
	if diff := cmp.Diff(url.Values{
		"grant_type":    {"authorization_code"},
		"client_id":     {"client-id"},
		"client_secret": {"canary-secret"},
		"code":          {"the-code"},
		"redirect_uri":  {redirect},
		"scope":         {"https://api.partnercenter.microsoft.com/user_impersonation offline_access openid"},
	}, form); diff != "" {
		t.Errorf("code redeemed with (-want +got):\n%s", diff)
	}
	info, err := os.Stat(c.file)
	if err != nil || info.Mode().Perm() != 0o600 || c.stored() != "canary-refresh" {
		t.Errorf("stored %q as %v, %v", c.stored(), info, err)
	}
}

func TestEachConsentHasItsOwnStateAndVerifier(t *testing.T) {
	t.Parallel()
	one, two := startConsent(t, consents(aboutUs())), startConsent(t, consents(aboutUs()))
	a, b := one.query(t), two.query(t)
	if a.Get("state") == b.Get("state") || a.Get("code_challenge") == b.Get("code_challenge") {
		t.Error("two consents share their secrets")
	}
	if !one.Expects(a.Get("state")) || one.Expects(b.Get("state")) || one.Expects("") {
		t.Error("a consent expects another one's state, or not its own")
	}
}

func TestConsentStoresNothingThatItCannotTrust(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer answerer
		want   error
	}{
		"another tenant":            {consents(idToken(`{"aud":"client-id","tid":"`+otherTenant+`"}`), freshToken), pcclient.ErrConsentTenant},
		"no id_token":               {consents("", freshToken), pcclient.ErrConsentIdentity},
		"no tenant":                 {consents(idToken(`{"aud":"client-id"}`), freshToken), pcclient.ErrConsentIdentity},
		"a tenant that is no GUID":  {consents(idToken(`{"aud":"client-id","tid":"partner.example"}`), freshToken), pcclient.ErrConsentIdentity},
		"two tenants":               {consents(idToken(`{"aud":"client-id","tid":"`+ourTenant+`","TID":"`+otherTenant+`"}`), freshToken), pcclient.ErrConsentIdentity},
		"another application":       {consents(idToken(`{"aud":"other","tid":"`+ourTenant+`"}`), freshToken), pcclient.ErrConsentIdentity},
		"an id_token of two parts":  {consents("e30.e30", freshToken), pcclient.ErrConsentIdentity},
		"an id_token of no base64":  {consents("e30.#.e30", freshToken), pcclient.ErrConsentIdentity},
		"an id_token of no JSON":    {consents("e30.e30x.e30", freshToken), pcclient.ErrConsentIdentity},
		"no refresh token":          {consents(aboutUs()), pcclient.ErrConsentRefreshToken},
		"an unusable refresh token": {consents(aboutUs(), `"refresh_token":"two words"`), pcclient.ErrConsentRefreshToken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consent := startConsent(t, c.answer)
			if _, err := consent.Redeem(t.Context(), "code"); !errors.Is(err, c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if consent.stored() != "" {
				t.Errorf("stored %q", consent.stored())
			}
		})
	}
}

// A code is good once: whatever happens, it is sent once.
func TestConsentAsksOnceAndFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer answerer
		class  pcclient.Class
		reason pcclient.Reason
	}{
		"refused":         {entra(http.StatusBadRequest, "invalid_grant", 54005), pcclient.ClassCredentials, pcclient.ReasonInvalidGrant},
		"wrong secret":    {entra(http.StatusUnauthorized, "invalid_client", 7000215), pcclient.ClassCredentials, pcclient.ReasonInvalidClient},
		"busy":            {responds(http.StatusServiceUnavailable, ""), pcclient.ClassUnavailable, pcclient.ReasonServerError},
		"redirected":      {responds(http.StatusTemporaryRedirect, "", "Location: /elsewhere"), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected},
		"repeated member": {consents(aboutUs(), freshToken, freshToken), pcclient.ClassUnavailable, pcclient.ReasonUnreadable},
		"broken off":      {reset, pcclient.ClassUnavailable, pcclient.ReasonConnection},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consent := startConsent(t, c.answer)
			_, err := consent.Redeem(t.Context(), "code")
			failure(t, err, c.class, c.reason)
			if consent.login.count() != 1 || consent.stored() != "" {
				t.Errorf("%d requests, stored %q", consent.login.count(), consent.stored())
			}
		})
	}
}

// A domain name cannot be compared: the tenant's own endpoint was asked.
func TestConsentForATenantByName(t *testing.T) {
	t.Parallel()
	c := startConsent(t, consents(aboutUs(), freshToken), func(cfg *pcclient.Config) { cfg.TenantID = "partner.example" })
	if tenant, err := c.Redeem(t.Context(), "code"); err != nil || tenant != ourTenant || c.stored() == "" {
		t.Errorf("tenant %q, stored %q, %v", tenant, c.stored(), err)
	}
}

func TestConsentLooksBeforeItAsks(t *testing.T) {
	t.Parallel()
	c := startConsent(t, grants)
	if err := c.CanStore(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Dir(c.file)); err != nil || len(left) > 0 {
		t.Errorf("left behind %v, %v", left, err)
	}
	inFile := func(cfg *pcclient.Config) { cfg.RefreshTokenFile = filepath.Join(cfg.RefreshTokenFile, "below") }
	if err := startConsent(t, grants, inFile).CanStore(t.Context()); err == nil {
		t.Error("a directory that does not exist can be written to")
	}
	isDir := func(cfg *pcclient.Config) { cfg.RefreshTokenFile = filepath.Dir(cfg.RefreshTokenFile) }
	if err := startConsent(t, grants, isDir).CanStore(t.Context()); err == nil {
		t.Error("a directory can be replaced by a file")
	}
}

func TestConsentIsForTheFlowThatNeedsOne(t *testing.T) {
	t.Parallel()
	if _, err := pcclient.NewConsent(pcclient.Config{
		BaseURL: "https://a.example", Authority: "https://b.example", TenantID: ourTenant, ClientID: "c",
		ClientSecret: "s", Audience: "https://a.example", Flow: pcclient.FlowAppOnly,
	}, redirect); err == nil {
		t.Error("flow app_only consents")
	}
	if _, err := pcclient.NewConsent(pcclient.Config{}, redirect); err == nil {
		t.Error("an empty configuration consents")
	}
}

func TestReadOnlyLeavesTheRefreshTokenAlone(t *testing.T) {
	t.Parallel()
	r := start(t, setup{config: func(cfg *pcclient.Config) { cfg.ReadOnly = true }})
	r.ask()
	r.clock.advance(2 * time.Hour)
	r.ask()
	r.counts(2, 2)
	if content, err := os.ReadFile(r.file); err != nil || string(content) != "refresh-0\n" {
		t.Errorf("the file holds %q, %v", content, err)
	}
	if got := r.login.asked()[1].form.Get("refresh_token"); got != "refresh-0" {
		t.Errorf("renewed with %q", got)
	}
}
