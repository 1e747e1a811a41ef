package pcsim_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

const (
	usClient = "c0000000-0000-4000-8000-000000000002"
	usTenant = "70000000-0000-4000-8000-000000000002"
	usOnly   = "88888888-8888-4888-8888-888888888888"
	both     = "11111111-1111-4111-8111-111111111111"
	partners = `
customers:
  ` + both + `:
    account:
      - status: Allowed
partners:
  us:
    tenant_id: ` + usTenant + `
    client_id: ` + usClient + `
    client_secret: us-secret
    refresh_token: us-refresh-token
    requests_per_minute: 5
    fixed_windows: true
    customers:
      ` + both + `:
        account:
          - status: NotAllowed
      ` + usOnly + `:
        account:
          - status: UnderReview
`
)

func usForm() []string {
	return []string{"client_id", usClient, "client_secret", "us-secret", "refresh_token", "us-refresh-token"}
}

func TestPartnersAreApart(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	if err := r.Load(strings.NewReader(partners)); err != nil {
		t.Fatal(err)
	}
	us, known := r.Partner("us")
	if !known || us.ClientID() != usClient || us.TenantID() != usTenant {
		t.Fatal("partner us is not there")
	}
	granted := r.grant(usTenant+"/oauth2/v2.0/token", refreshForm(usForm()...))
	usToken, ownToken := granted["access_token"].(string), r.userToken()
	for _, test := range []struct {
		id, token, holds string
		status           int
	}{
		{both, ownToken, `"Allowed"`, 200},
		{both, usToken, `"NotAllowed"`, 200},
		{usOnly, ownToken, "60003", 404},
		{usOnly, usToken, `"UnderReview"`, 200},
	} {
		if got := r.account(test.id, test.token); got.status != test.status || !strings.Contains(got.body, test.holds) {
			t.Errorf("%s: %d %s, want %d with %s", test.id, got.status, got.body, test.status, test.holds)
		}
	}
	if own, of := r.Stats(), us.Stats(); own.Account != 2 || own.Tokens != 1 || of.Account != 2 || of.Tokens != 1 {
		t.Errorf("calls %+v and %+v", own, of)
	}
	if got := r.Requests()[0].CustomerID; len(r.Requests()) != 2 || got != both {
		t.Errorf("requests %+v", r.Requests())
	}

	// Credentials of one are none of the other's.
	for name, form := range map[string][]string{
		"the other's secret":        {"client_id", usClient, "refresh_token", "us-refresh-token"},
		"the other's refresh token": {"client_id", usClient, "client_secret", "us-secret"},
		"another's issued token":    {"refresh_token", granted["refresh_token"].(string)},
	} {
		for _, tenant := range []string{usTenant, pcsim.DefaultTenantID} {
			got, err := r.postToken(t.Context(), tenant+"/oauth2/v2.0/token", refreshForm(form...))
			if err != nil || got.status < 400 {
				t.Errorf("%s: %d %s, %v", name, got.status, got.body, err)
			}
		}
	}

	// Its limit throttles nobody else; the window is a minute of the clock.
	r.clock.Advance(30 * time.Second)
	for range 3 {
		r.account(both, usToken)
	}
	if got := r.account(both, usToken); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != "30" {
		t.Errorf("%d after %s, want 429 after 30", got.status, got.header.Get("Retry-After"))
	}
	if got := r.account(both, ownToken); got.status != 200 {
		t.Errorf("the other partner gets %d", got.status)
	}
	r.clock.Advance(30 * time.Second)
	if got := r.account(both, usToken); got.status != 200 {
		t.Errorf("%d in the next minute", got.status)
	}

	us.ExpireTokens()
	if got := r.account(both, usToken); got.status != 401 {
		t.Errorf("an expired token gets %d", got.status)
	}
	if got := r.account(both, ownToken); got.status != 200 {
		t.Errorf("the other partner gets %d", got.status)
	}
	r.Reset()
	if own, of := r.Stats(), us.Stats(); own != (pcsim.Stats{}) || of != (pcsim.Stats{}) {
		t.Errorf("after a reset %+v and %+v", own, of)
	}
}

func TestTheControlAPISelectsAPartner(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	if err := r.Load(strings.NewReader(partners)); err != nil {
		t.Fatal(err)
	}
	if got := r.control("GET", "/v1/customers/"+usOnly, ""); got.status != 404 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := r.control("GET", "/v1/customers/"+usOnly+"?partner=us", ""); got.status != 200 || !strings.Contains(got.body, "UnderReview") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := r.control("PUT", "/v1/customers/"+usOnly+"?partner=us", `{"account":[{"status":"Allowed"}]}`); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := r.control("GET", "/v1/stats?partner=eu", ""); got.status != 404 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestFaultsOfPartners(t *testing.T) {
	t.Parallel()
	s, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	for script, want := range map[string]string{
		"partners: {us: {client_id: a, customers: {b: {}}}}": `partners.us.customers.b: "b" is not a GUID`,
		"partners: {us: {}}": "partners.us: name and client_id are required",
		"partners: {us: {client_id: a}, eu: {client_id: a}}":                         "has the client_id of another partner",
		"partners: {us: {client_id: " + pcsim.DefaultClientID + "}}":                 "is another partner's",
		"partners: {us: {client_id: a, requests_per_minute: -1}}":                    "is negative",
		"partners: {us: {client_id: a, secret: x}}":                                  "partners.us.secret: is not known here",
		"partners: {us: {client_id: a, tenant_id: a/b}}":                             "cannot be a path element",
		"partners: {us: {client_id: a, customers: {" + both + ": {account: [{}]}}}}": "account[0]: needs status",
	} {
		var faults *pcsim.ScriptError
		if err := s.Load(strings.NewReader(script)); !errors.As(err, &faults) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", script, err, want)
		}
	}
	if len(s.Partners()) != 0 {
		t.Errorf("partners %v", s.Partners())
	}
}
