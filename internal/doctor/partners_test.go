package doctor

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// Each partner is examined, all at the same time; a finding names its partner, and
// so do the keys and commands of its remedy.
func TestDoctorExaminesEachPartner(t *testing.T) {
	t.Parallel()
	const onlyInEU = "e0000000-0000-4000-8000-000000000001"
	sim, _ := pcsimtest.Start(t)
	if err := sim.SetCustomer(pcsim.Customer{ID: onlyInEU, Account: []pcsim.Step{{Status: "Allowed"}}, Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}}}}); err != nil {
		t.Fatal(err)
	}
	_, other := pcsimtest.Start(t)
	reached := make(chan struct{})
	// The host of eu does not answer until the one of us was asked.
	eu := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-reached:
			sim.Handler().ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(eu.Close)
	first := make(chan struct{}, 1)
	first <- struct{}{}
	us := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-first:
			close(reached)
		default:
		}
		other.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(us.Close)
	var environ []string
	for name, url := range map[string]string{"EU": eu.URL, "US": us.URL} {
		token := pcsimtest.TokenFile(t)
		if name == "US" {
			token += "-away"
		}
		for _, entry := range []string{
			"BASE_URL=" + url, "AUTHORITY=" + url, "TENANT_ID=" + pcsim.DefaultTenantID, "CLIENT_ID=" + pcsim.DefaultClientID,
			"CLIENT_SECRET=" + pcsim.DefaultClientSecret, "REFRESH_TOKEN_FILE=" + token,
		} {
			environ = append(environ, "ELIGIBILITY_PARTNERS__"+name+"__"+entry)
		}
	}
	findings := Examine(t.Context(), environ, Options{Customer: onlyInEU})
	of := func(check, partner string) Finding {
		t.Helper()
		at := slices.IndexFunc(findings, func(f Finding) bool { return f.Check == check && f.Partner == partner })
		if at < 0 {
			t.Fatalf("no finding %s of %q in %+v", check, partner, findings)
		}
		return findings[at]
	}
	for _, check := range []string{"login host", "partner center host", "clock", checkTokenFile, checkToken, checkMFA, checkAccount, checkQualifications} {
		if f := of(check, "eu"); f.Status != VerdictOK {
			t.Errorf("%+v", f)
		}
	}
	for _, check := range []string{"login host", "partner center host"} {
		if f := of(check, "us"); f.Status != VerdictOK {
			t.Errorf("%+v", f)
		}
	}
	for _, check := range []string{checkTokenFile, checkToken} {
		if f := of(check, "us"); f.Status != VerdictFailure || !strings.Contains(f.Remedy, "eligibilityd login --config FILE --partner us`") {
			t.Errorf("%+v", f)
		}
	}
	of("configuration", "")
	of("listener grpc", "")
	for _, f := range findings {
		if strings.Contains(f.Detail+f.Remedy, "partner_center") {
			t.Errorf("names a key that is not there: %+v", f)
		}
	}
}
