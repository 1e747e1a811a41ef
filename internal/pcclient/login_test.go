package pcclient_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

func appOnly(c *pcclient.Config) { c.Flow, c.RefreshTokenFile = pcclient.FlowAppOnly, "" }

func TestTokenRequests(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		config func(*pcclient.Config)
		want   url.Values
	}{
		"T-03 app+user": {nil, url.Values{
			"grant_type":    {"refresh_token"},
			"client_id":     {"client-id"},
			"client_secret": {"canary-secret"},
			"refresh_token": {"refresh-0"},
			"scope":         {"https://api.partnercenter.microsoft.com/user_impersonation offline_access"},
		}},
		"T-02 app-only": {appOnly, url.Values{
			"grant_type":    {"client_credentials"},
			"client_id":     {"client-id"},
			"client_secret": {"canary-secret"},
			"scope":         {"https://api.partnercenter.microsoft.com/.default"},
		}},
		"another audience": {func(c *pcclient.Config) {
			appOnly(c)
			c.Audience = "https://partner.partnercenterapi.microsoftonline.cn/"
			c.Authority += "/"
		}, url.Values{
			"grant_type":    {"client_credentials"},
			"client_id":     {"client-id"},
			"client_secret": {"canary-secret"},
			"scope":         {"https://partner.partnercenterapi.microsoftonline.cn/.default"},
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{config: test.config})
			if err := r.Token(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.counts(1, 0)
			got := r.login.asked()[0]
			if got.method != http.MethodPost || got.url != "/partner.example/oauth2/v2.0/token" {
				t.Errorf("asked %s %s", got.method, got.url)
			}
			if diff := gocmp.Diff(test.want, got.form); diff != "" {
				t.Errorf("form (-want +got):\n%s", diff)
			}
			for header, want := range map[string]string{
				"Content-Type":  "application/x-www-form-urlencoded",
				"Accept":        "application/json",
				"Authorization": "",
			} {
				if value := got.header.Get(header); value != want {
					t.Errorf("%s is %q, want %q", header, value, want)
				}
			}
		})
	}
}

func TestAppOnlyNeverAsksForTheAccount(t *testing.T) {
	t.Parallel()
	r := start(t, setup{config: appOnly, api: responds(http.StatusOK, `[{"qualification":"Education"}]`)})
	fail := r.askInVain(pcclient.ClassCredentials, pcclient.ReasonAppOnly)
	if fail.Attempts != 0 || fail.RetryAfter != 0 {
		t.Errorf("got %+v", fail)
	}
	r.counts(0, 0)
	if held, _, err := r.Qualifications(t.Context(), customerID); err != nil || len(held) != 1 {
		t.Errorf("Q-30: got %v and %v", held, err)
	}
	r.counts(1, 1)
}

func TestRefusedTokenRequest(t *testing.T) {
	t.Parallel()
	const long = 5 * time.Minute
	tests := map[string]struct {
		status int
		word   string
		number int
		reason pcclient.Reason
		pause  time.Duration // 0: 30 s
		advice string
	}{
		"F-01 expired":           {400, "invalid_grant", 700082, pcclient.ReasonInvalidGrant, 0, "`eligibilityd login`"},
		"F-01 expired, older":    {400, "invalid_grant", 70008, pcclient.ReasonInvalidGrant, 0, "`eligibilityd login`"},
		"F-02 revoked":           {400, "invalid_grant", 50173, pcclient.ReasonInvalidGrant, 0, "`eligibilityd login`"},
		"F-03 sign-in frequency": {400, "invalid_grant", 70043, pcclient.ReasonInvalidGrant, 0, "`eligibilityd login`"},
		"F-04 MFA":               {400, "interaction_required", 50076, pcclient.ReasonInteraction, 0, "Conditional Access"},
		"F-04 MFA expired":       {400, "invalid_grant", 50078, pcclient.ReasonInvalidGrant, 0, "multi-factor"},
		"consent, as a grant":    {400, "invalid_grant", 65001, pcclient.ReasonInvalidGrant, 0, "administrator"},
		"Conditional Access":     {400, "invalid_grant", 53003, pcclient.ReasonInvalidGrant, 0, "Conditional Access"},
		"perhaps passing":        {400, "invalid_grant", 70000, pcclient.ReasonInvalidGrant, 0, "passes by itself"},
		"F-05 wrong secret":      {401, "invalid_client", 7000215, pcclient.ReasonInvalidClient, 0, "secret or certificate"},
		"F-05 wrong secret, 400": {400, "invalid_client", 7000215, pcclient.ReasonInvalidClient, 0, "secret or certificate"},
		"F-06 secret expired":    {401, "invalid_client", 7000222, pcclient.ReasonInvalidClient, 0, "has expired"},
		"F-07 assertion":         {401, "invalid_client", 700027, pcclient.ReasonInvalidClient, 0, "certificate"},
		"F-08 application":       {400, "unauthorized_client", 700016, pcclient.ReasonUnauthorizedClient, 0, "client_id"},
		"F-08 resource":          {400, "invalid_resource", 500011, pcclient.ReasonInvalidResource, 0, "audience"},
		"F-09 tenant":            {400, "invalid_request", 90002, pcclient.ReasonInvalidRequest, 0, "tenant_id"},
		"F-09 cloud":             {400, "invalid_request", 900432, pcclient.ReasonInvalidRequest, 0, "cloud"},
		"F-11 loop":              {400, "invalid_request", 50196, pcclient.ReasonInvalidRequest, long, ""},
		"F-11 loop, other word":  {400, "invalid_grant", 50196, pcclient.ReasonInvalidGrant, long, ""},
		"F-11 tenant, other way": {400, "invalid_request", 90055, pcclient.ReasonInvalidRequest, 0, ""},
		"consent":                {400, "consent_required", 65001, pcclient.ReasonConsent, 0, "administrator"},
		"login":                  {400, "login_required", 50058, pcclient.ReasonInteraction, 0, "Conditional Access"},
		"scope":                  {400, "invalid_scope", 70011, pcclient.ReasonInvalidResource, 0, "audience"},
		"grant type":             {400, "unsupported_grant_type", 70003, pcclient.ReasonInvalidRequest, 0, "understand"},
		"word that nobody lists": {400, "canary-body", 1, pcclient.ReasonRefused, 0, "`eligibilityd doctor`"},
		"number without meaning": {400, "canary-body", 700082, pcclient.ReasonRefused, 0, "`eligibilityd doctor`"},
		"403":                    {403, "access_denied", 1, pcclient.ReasonUnauthorizedClient, 0, "client_id"},
		"404 with a word":        {404, "invalid_request", 1, pcclient.ReasonInvalidRequest, 0, "understand"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: inTurn{entra(test.status, test.word, test.number), grants}.play})
			code, pause := test.word, cmp.Or(test.pause, 30*time.Second)
			if test.reason == pcclient.ReasonRefused {
				code = "unpublished"
			}
			fail := r.askInVain(pcclient.ClassCredentials, test.reason)
			if fail.Op != pcclient.OpToken || fail.Status != test.status || fail.Code != code || fail.RetryAfter != 0 {
				t.Errorf("got %+v", fail)
			}
			if records := r.logs.FilterLevelExact(zapcore.ErrorLevel).All(); len(records) != 1 || !strings.Contains(records[0].Message, test.advice) {
				t.Errorf("the log has %v, want %q", records, test.advice)
			}
			if !r.shows(fmt.Sprintf("token_renewals_total{outcome=%q} 1", test.reason)) || !r.shows(fmt.Sprintf("login_pause_seconds %v", pause.Seconds())) {
				t.Errorf("metrics:\n%s", r.scrape())
			}
			r.clock.advance(pause - 1)
			again := r.askInVain(pcclient.ClassCredentials, test.reason)
			if again.Code != code || again.RetryAfter != 0 {
				t.Errorf("again: got %+v", again)
			}
			r.counts(1, 0)
			r.clock.advance(1)
			r.ask()
			r.counts(2, 1)
			if !r.shows("login_pause_seconds 0") {
				t.Errorf("metrics:\n%s", r.scrape())
			}
		})
	}
}

func TestLoginHostThatIsDown(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		login  answerer
		reason pcclient.Reason
	}{
		"F-10 temporarily_unavailable": {entra(400, "temporarily_unavailable", 90033), pcclient.ReasonServerError},
		"F-10 with 503":                {entra(503, "temporarily_unavailable", 90012), pcclient.ReasonServerError},
		"F-13 500":                     {responds(500, ""), pcclient.ReasonServerError},
		"F-13 500 with a word":         {entra(500, "invalid_grant", 700082), pcclient.ReasonServerError},
		"F-13 502 HTML":                {responds(502, "<html>"), pcclient.ReasonServerError},
		"F-13 400 HTML":                {responds(400, "<html>"), pcclient.ReasonUnreadable},
		"F-13 400 empty":               {responds(400, ""), pcclient.ReasonUnreadable},
		"F-13 400 without a word":      {responds(400, `{"error":""}`), pcclient.ReasonUnreadable},
		"F-13 400, word is an object":  {responds(400, `{"error":{"code":"x"}}`), pcclient.ReasonUnreadable},
		"F-13 200 HTML":                {responds(200, "<html>"), pcclient.ReasonUnreadable},
		"F-13 200 empty":               {responds(200, ""), pcclient.ReasonUnreadable},
		"F-13 200 truncated":           {responds(200, `{"token_type":"Bearer","access_token":"x"`), pcclient.ReasonUnreadable},
		"F-13 hang":                    {hang, pcclient.ReasonTimeout},
		"F-13 hang amid the body":      {hangBody, pcclient.ReasonTimeout},
		"F-13 reset":                   {reset, pcclient.ReasonConnection},
		"F-13 reset amid the body":     {resetBody, pcclient.ReasonConnection},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{
				login:  inTurn{test.login, test.login, test.login, grants}.play,
				config: func(c *pcclient.Config) { c.AttemptTimeout = 200 * time.Millisecond },
			})
			fail := r.askInVain(pcclient.ClassUnavailable, test.reason)
			if fail.Op != pcclient.OpToken || fail.Attempts != 0 {
				t.Errorf("got %+v", fail)
			}
			if got := r.login.count(); got > 3 || test.reason == pcclient.ReasonTimeout && got != 1 {
				t.Errorf("%d token requests", got)
			}
			eventually(t, "a probe finds the end of the outage", func() bool {
				r.clock.advance(5 * time.Second)
				_, _, err := r.ValidationStatus(t.Context(), customerID)
				return err == nil
			})
		})
	}
}

func TestLoginHostThatThrottles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		login answerer
		want  time.Duration
	}{
		"F-12 Retry-After":    {responds(429, "", "Retry-After: 57"), 57 * time.Second},
		"F-11 tenant":         {entra(429, "temporarily_unavailable", 90055), time.Minute},
		"F-11 tenant, stated": {entra(429, "temporarily_unavailable", 90055, "Retry-After: 3"), 3 * time.Second},
		"F-11 loop":           {entra(503, "temporarily_unavailable", 50196), 5 * time.Minute},
		"F-11 loop, 429":      {entra(429, "invalid_grant", 50196), 5 * time.Minute},
		"F-11 loop, stated":   {entra(429, "invalid_grant", 50196, "Retry-After: 2"), 2 * time.Second},
		"F-12 too short":      {responds(429, "", "Retry-After: 0"), time.Second},
		"F-12 too long":       {entra(429, "x", 90055, "Retry-After: 6000"), 10 * time.Minute},
		"F-11 longer":         {entra(429, "temporarily_unavailable", 90055, "Retry-After: 400"), 400 * time.Second},
		"no verdict by words": {entra(429, "invalid_grant", 1), time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: inTurn{test.login, grants}.play})
			class, reason := pcclient.ClassThrottled, pcclient.ReasonThrottled
			if name == "F-11 loop" {
				class, reason = pcclient.ClassUnavailable, pcclient.ReasonServerError
			}
			longest := test.want
			if strings.Contains(name, "stated") || strings.HasPrefix(name, "F-12") || name == "F-11 longer" {
				longest += longest / 10 // jitter
			}
			pause := r.askInVain(class, reason).RetryAfter
			if pause < test.want || pause > longest {
				t.Errorf("retry after %v, want %v to %v", pause, test.want, longest)
			}
			r.clock.advance(pause - time.Second)
			if fail := r.askInVain(class, reason); fail.RetryAfter != time.Second {
				t.Errorf("retry after %v, want 1s", fail.RetryAfter)
			}
			r.counts(1, 0)
			r.clock.advance(time.Second)
			if class == pcclient.ClassUnavailable {
				r.atOnce() // it starts the probe
				eventually(t, "the probe has brought a token", func() bool { return r.Token(t.Context()) == nil })
			}
			r.ask()
			r.counts(2, 1)
		})
	}
}

// F-14: an answer that is no token is a verdict, whatever its status.
func TestGrantThatIsNone(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"no access_token":        `{"token_type":"Bearer","expires_in":3600}`,
		"empty access_token":     `{"token_type":"Bearer","access_token":"","expires_in":3600}`,
		"access_token no string": `{"token_type":"Bearer","access_token":7,"expires_in":3600}`,
		"line feed in it":        `{"token_type":"Bearer","access_token":"a\nX-Evil: 1","expires_in":3600}`,
		"NUL in it":              `{"token_type":"Bearer","access_token":"a\u0000","expires_in":3600}`,
		"DEL in it":              `{"token_type":"Bearer","access_token":"a\u007f","expires_in":3600}`,
		"blank in it":            `{"token_type":"Bearer","access_token":"a b","expires_in":3600}`,
		"not ASCII":              `{"token_type":"Bearer","access_token":"ä","expires_in":3600}`,
		"another token_type":     `{"token_type":"pop","access_token":"a","expires_in":3600}`,
		"no token_type":          `{"access_token":"a","expires_in":3600}`,
		"no expires_in":          `{"token_type":"Bearer","access_token":"a"}`,
		"expires_in zero":        `{"token_type":"Bearer","access_token":"a","expires_in":0}`,
		"expires_in negative":    `{"token_type":"Bearer","access_token":"a","expires_in":-1}`,
		"expires_in a word":      `{"token_type":"Bearer","access_token":"a","expires_in":"soon"}`,
		"expires_in a fraction":  `{"token_type":"Bearer","access_token":"a","expires_in":1.5}`,
		"expires_in absurd":      `{"token_type":"Bearer","access_token":"a","expires_in":1e30}`,
		"expires_in an array":    `{"token_type":"Bearer","access_token":"a","expires_in":[3600]}`,
		"an error with 200":      `{"error":"canary-body"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: responds(http.StatusOK, body)})
			r.askInVain(pcclient.ClassCredentials, pcclient.ReasonRefused)
			r.askInVain(pcclient.ClassCredentials, pcclient.ReasonRefused)
			r.counts(1, 0)
		})
	}
}

func TestGrantsThatAreGood(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"T-01 of v1":          `{"token_type":"Bearer","access_token":"a","expires_in":"3600","ext_expires_in":"3600","expires_on":"1","not_before":"1","resource":"x"}`,
		"T-02 of v2":          `{"token_type":"Bearer","access_token":"a","expires_in":3600,"ext_expires_in":3600}`,
		"type in lower case":  `{"token_type":"bearer","access_token":"a","expires_in":3600}`,
		"refresh_token null":  `{"token_type":"Bearer","access_token":"a","expires_in":3600,"refresh_token":null}`,
		"every kind of token": `{"token_type":"Bearer","access_token":"a","expires_in":3600,"id_token":"x"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: responds(http.StatusOK, body)})
			r.ask()
			if r.bearer() != "a" {
				t.Errorf("used %q", r.bearer())
			}
			r.clock.advance(time.Hour - 1)
			r.ask()
			r.clock.advance(1)
			r.ask()
		})
	}
}

// The numbers go before the suberror, and the most specific number before others.
func TestGrantCause(t *testing.T) {
	t.Parallel()
	for details, want := range map[string]pcclient.GrantCause{
		``:                        pcclient.GrantEnded,
		`,"error_codes":[700082]`: pcclient.GrantEnded,
		`,"error_codes":[50173],"suberror":"message_only"`: pcclient.GrantEnded,
		`,"error_codes":[65001]`:                           pcclient.GrantConsentMissing,
		`,"suberror":"consent_required"`:                   pcclient.GrantConsentMissing,
		`,"error_codes":[53003],"suberror":"message_only"`: pcclient.GrantConditionalAccess,
		`,"suberror":"basic_action"`:                       pcclient.GrantConditionalAccess,
		`,"error_codes":[70000]`:                           pcclient.GrantUnclear,
		`,"error_codes":[70000,65001]`:                     pcclient.GrantConsentMissing,
		`,"error_codes":[70000],"suberror":"bad_token"`:    pcclient.GrantEnded,
		`,"error_codes":["65001"],"suberror":7`:            pcclient.GrantEnded,
		`,"suberror":"canary-body"`:                        pcclient.GrantEnded,
	} {
		r := start(t, setup{login: responds(http.StatusBadRequest, `{"error":"invalid_grant"`+details+`}`)})
		fail := r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
		if got := fail.GrantCause(); got != want {
			t.Errorf("%s: %d, want %d", details, got, want)
		}
	}
}

func TestAnotherCauseOfARefusedGrantIsLoggedAtOnce(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: inTurn{entra(400, "invalid_grant", 700082), entra(400, "invalid_grant", 53003)}.play})
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	r.clock.advance(30 * time.Second)
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	r.logged(zapcore.ErrorLevel, "expired or was revoked", 1)
	r.logged(zapcore.ErrorLevel, "Conditional Access", 1)
}
