package pcsim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func TestAccountStatusesStandOnTheWireAsDocumented(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	token := r.userToken()
	for _, status := range []string{"Allowed", "UnderReview", "NotAllowed", "Unknown", "Not Ready", "Suspended"} {
		r.set(accountWithStatus(status))
		got := r.account(customerID, token)
		want := `{"type":"account","status":"` + status + `","lastUpdateDateTime":""}`
		if got.status != 200 || got.body != want {
			t.Errorf("%s: %d %s, want 200 %s", status, got.status, got.body, want)
		}
	}
}

func TestAccountWithoutStatusIs404WithCode600074(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus(pcsim.StatusNone))
	got := r.account(customerID, r.userToken())
	text := "Account Status for the customer, " + customerID + " was not found."
	want := `{"code":600074,"message":"` + text + `","description":"` + text + `",` +
		`"errorName":"AccountStatusNotFound","isRetryable":false,"errorMessageExtended":"InternalErrorCode=600074"}`
	if got.status != 404 || got.body != want {
		t.Errorf("got %d %s, want 404 %s", got.status, got.body, want)
	}
}

func TestQualificationsStandOnTheWireAsDocumented(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	token := r.userToken()
	tests := map[string][]pcsim.Qualification{
		`[]`: {},
		`[{"qualification":"Education","vettingStatus":"Approved"}]`: {
			{Qualification: "Education", VettingStatus: "Approved"},
		},
		`[{"qualification":"Education","vettingStatus":"Denied","vettingReason":"Not an Education Customer",` +
			`"vettingCreatedDate":"2020-12-03T10:37:38.885Z"}]`: {{
			Qualification: "Education", VettingStatus: "Denied", VettingReason: "Not an Education Customer",
			VettingCreatedDate: "2020-12-03T10:37:38.885Z",
		}},
		`[{"qualification":"GovernmentCommunityCloud","vettingStatus":"Approved",` +
			`"vettingCreateDate":"2021-05-06T19:59:56.6832021+00:00"},{"qualification":"StateOwnedEntity"}]`: {
			{Qualification: "GovernmentCommunityCloud", VettingStatus: "Approved", VettingCreateDate: "2021-05-06T19:59:56.6832021+00:00"},
			{Qualification: "StateOwnedEntity"},
		},
	}
	for want, items := range tests {
		c := accountWithStatus("Allowed")
		c.Qualifications = []pcsim.Step{{Items: items}}
		r.set(c)
		if got := r.qualifications(customerID, token); got.status != 200 || got.body != want {
			t.Errorf("got %d %s, want 200 %s", got.status, got.body, want)
		}
	}
	r.set(accountWithStatus("Allowed"))
	if got := r.qualifications(customerID, token); got.body != "[]" {
		t.Errorf("no script: %s, want []", got.body)
	}
}

func TestRefusalsCarryTheDocumentedStatusAndCode(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	other := "22222222-2222-4222-8222-222222222222"
	r.set(pcsim.Customer{ID: other, Tenant: pcsim.TenantOtherPartner})
	user := r.userToken()
	appOnly := r.grant(v2Path, appOnlyForm())["access_token"].(string)
	retired := r.grant(v1Path, refreshForm("resource", "https://graph.windows.net"))["access_token"].(string)

	const account, quals = "/validationStatus?type=account", "/qualifications"
	tests := []struct {
		name, path, token string
		status, code      int
	}{
		{"no token", customerID + account, "", 401, 800001},
		{"foreign token", customerID + quals, "made-up", 401, 400},
		{"refresh token as access token", customerID + quals, r.IssueRefreshToken(), 401, 400},
		{"retired audience", customerID + account, retired, 401, 900420},
		{"app-only on account", customerID + account, appOnly, 403, 900329},
		{"app-only on qualifications", customerID + quals, appOnly, 200, 0},
		{"no type", customerID + "/validationStatus", user, 400, 3000},
		{"other type", customerID + "/validationStatus?type=foo", user, 400, 3000},
		{"type in capitals", customerID + "/validationStatus?type=Account", user, 200, 0},
		{"id in capitals", strings.ToUpper(customerID) + account, user, 200, 0},
		{"id no GUID", "contoso" + quals, user, 400, 900118},
		{"id in braces", "%7B" + customerID + "%7D" + account, user, 400, 900118},
		{"unknown tenant, account", "33333333-3333-4333-8333-333333333333" + account, user, 404, 60003},
		{"unknown tenant, qualifications", "33333333-3333-4333-8333-333333333333" + quals, user, 404, 60003},
		{"other partner, account", other + account, user, 403, 20002},
		{"other partner, qualifications", other + quals, user, 403, 20002},
		{"retired singular resource", customerID + "/qualification", user, 404, 1000},
	}
	for _, tc := range tests {
		got := r.get("/v1/customers/"+tc.path, tc.token)
		if got.status != tc.status || code(got.body) != tc.code {
			t.Errorf("%s: %d %s, want %d code %d", tc.name, got.status, got.body, tc.status, tc.code)
		}
		if challenge := got.header.Get("WWW-Authenticate"); (challenge != "") != (tc.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", tc.name, challenge)
		}
	}
}

func TestOtherMethodsAreRefused(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	got, err := r.do(r.request(http.MethodPost, "/v1/customers/"+customerID+"/qualifications", r.userToken()))
	if err != nil {
		t.Fatal(err)
	}
	if got.status != 405 || got.header.Get("Allow") != "GET" {
		t.Errorf("got %d, Allow %q", got.status, got.header.Get("Allow"))
	}
}

func TestHeadersAreThoseOfPublishedTraces(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	ids := map[string]string{
		"MS-RequestId":     "037db222-6d8e-4d7f-ba78-df3dca33fb68",
		"MS-CorrelationId": "AAAA0000-BB11-2222-33CC-444444DDDDDD",
	}
	req := r.request(http.MethodGet, "/v1/customers/"+customerID+"/qualifications", token)
	for name, id := range ids {
		req.Header.Set(name, id)
	}
	got, err := r.do(req)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"MS-RequestId": ids["MS-RequestId"], "MS-CorrelationId": ids["MS-CorrelationId"],
		"Content-Type": "application/json; charset=utf-8",
		"Date":         "Sat, 21 Nov 2026 12:00:00 GMT",
	}
	for name, value := range want {
		if got.header.Get(name) != value {
			t.Errorf("%s: %q, want %q", name, got.header.Get(name), value)
		}
	}
	for _, name := range []string{"MS-CV", "MS-ServerId"} {
		if got.header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
}

func TestIDsAreGeneratedIfTheCallerSendsNone(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	first, second := r.account(customerID, token), r.account(customerID, token)
	for _, name := range []string{"MS-RequestId", "MS-CorrelationId"} {
		if err := uuid.Validate(first.header.Get(name)); err != nil {
			t.Errorf("%s %q: %v", name, first.header.Get(name), err)
		}
		if first.header.Get(name) == second.header.Get(name) {
			t.Errorf("%s is the same twice", name)
		}
	}
}

func TestRawAnswerIsSentByteForByte(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	body := "\xff\xfe<html>" + strings.Repeat("x", 2<<20)
	c := accountWithStatus("Allowed")
	c.Account = []pcsim.Step{{Raw: &pcsim.Raw{
		Status: 503, Headers: map[string]string{"Content-Type": "text/html", "Retry-After": "7"}, Body: body,
	}}}
	r.set(c)
	got := r.account(customerID, r.userToken())
	if got.status != 503 || got.body != body {
		t.Errorf("status %d, %d bytes, want 503, %d bytes", got.status, len(got.body), len(body))
	}
	headers := []string{got.header.Get("Content-Type"), got.header.Get("Retry-After")}
	if diff := cmp.Diff([]string{"text/html", "7"}, headers); diff != "" {
		t.Error(diff)
	}
}

func TestExpiredTokenIs401WithoutBody(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{TokenLifetime: 10 * time.Minute})
	r.set(accountWithStatus("Allowed"))
	token := r.userToken()
	r.clock.Advance(10*time.Minute - 1)
	if got := r.account(customerID, token); got.status != 200 {
		t.Errorf("just before its end: %d", got.status)
	}
	r.clock.Advance(1)
	if got := r.account(customerID, token); got.status != 401 || got.body != "" {
		t.Errorf("at its end: %d %q", got.status, got.body)
	}
	token = r.userToken()
	r.ExpireTokens()
	if got := r.account(customerID, token); got.status != 401 || got.body != "" {
		t.Errorf("after ExpireTokens: %d %q", got.status, got.body)
	}
	if got := r.account(customerID, r.userToken()); got.status != 200 {
		t.Errorf("new token: %d", got.status)
	}
}
