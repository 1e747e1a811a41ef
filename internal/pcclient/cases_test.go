package pcclient_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// The names of the subtests begin with the ids of the published wire cases.
// What a 200 may hold is a matter of the decoders' tests; here each case goes
// over a socket once.

// simulated is a client of the Partner Center simulator, which is both hosts.
type simulated struct {
	*pcclient.Client

	sim      *pcsim.Server
	registry *prometheus.Registry
}

func simulate(t *testing.T, attemptTimeout time.Duration) *simulated {
	t.Helper()
	sim, server := pcsimtest.Start(t)
	registry := prometheus.NewRegistry()
	client, err := pcclient.New(pcclient.Config{
		BaseURL:          server.URL,
		Authority:        server.URL,
		TenantID:         pcsim.DefaultTenantID,
		ClientID:         pcsim.DefaultClientID,
		ClientSecret:     pcsim.DefaultClientSecret,
		Audience:         "https://api.partnercenter.microsoft.com",
		RefreshTokenFile: pcsimtest.TokenFile(t),
		AttemptTimeout:   attemptTimeout,
		Registerer:       registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &simulated{Client: client, sim: sim, registry: registry}
}

// plays scripts what is answered to either question about customerID: the
// steps in order, the last one for ever.
func (s *simulated) plays(t *testing.T, op pcclient.Op, steps ...pcsim.Step) {
	t.Helper()
	steps = slices.Clone(steps)
	steps[len(steps)-1].Times = 0
	customer := pcsim.Customer{ID: customerID, Account: steps}
	if op == pcclient.OpQualifications {
		customer.Account, customer.Qualifications = []pcsim.Step{{Status: "Allowed"}}, steps
	}
	if err := s.sim.SetCustomer(customer); err != nil {
		t.Fatal(err)
	}
}

// asks puts either question.
func (s *simulated) asks(t *testing.T, op pcclient.Op) (call pcclient.Call, err error) {
	t.Helper()
	if op == pcclient.OpQualifications {
		_, call, err = s.Qualifications(t.Context(), customerID)
	} else {
		_, call, err = s.ValidationStatus(t.Context(), customerID)
	}
	return call, err
}

// raw is an answer spelt out, given once; header lines are "Name: value".
func raw(status int, body string, header ...string) pcsim.Step {
	headers := map[string]string{}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		headers[name] = value
	}
	return pcsim.Step{Raw: &pcsim.Raw{Status: status, Body: body, Headers: headers}, Times: 1}
}

func TestAccountAnswersOfTheSimulator(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		step pcsim.Step
		want pcclient.ValidationStatus
	}{
		"VS-01 allowed":           {pcsim.Step{Status: "Allowed"}, pcclient.ValidationStatus{Status: "Allowed"}},
		"VS-02 under review":      {pcsim.Step{Status: "UnderReview"}, pcclient.ValidationStatus{Status: "UnderReview"}},
		"VS-03 not allowed":       {pcsim.Step{Status: "NotAllowed"}, pcclient.ValidationStatus{Status: "NotAllowed"}},
		"VS-04 unknown":           {pcsim.Step{Status: "Unknown"}, pcclient.ValidationStatus{Status: "Unknown"}},
		"VS-05 not ready":         {pcsim.Step{Status: "Not Ready"}, pcclient.ValidationStatus{Status: "Not Ready"}},
		"VS-06 old contract":      {raw(200, `{"type":"account","status":"Allowed","lastUpdateDateTime":"2021-07-14T18:02:00"}`), pcclient.ValidationStatus{Status: "Allowed"}},
		"VS-12 new word":          {pcsim.Step{Status: "Suspended"}, pcclient.ValidationStatus{Status: "Suspended"}},
		"VS-20 no account status": {pcsim.Step{Status: pcsim.StatusNone}, pcclient.ValidationStatus{None: true}},
		"VS-20 code is a string":  {raw(404, `{"code":"600074"}`), pcclient.ValidationStatus{None: true}},
		"VS-20 with a mark":       {raw(404, "\xef\xbb\xbf"+`{"code":600074.0}`), pcclient.ValidationStatus{None: true}},
		"no JSON media type":      {raw(200, `{"status":"Allowed"}`, "Content-Type: text/html"), pcclient.ValidationStatus{Status: "Allowed"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := simulate(t, patience)
			s.plays(t, pcclient.OpValidationStatus, test.step)
			got, call, err := s.ValidationStatus(t.Context(), customerID)
			if err != nil || got != test.want {
				t.Fatalf("got %+v, %v, want %+v", got, err, test.want)
			}
			if call.Attempts != 1 || call.Status == 0 || call.CorrelationID == "" || call.RequestID == "" {
				t.Errorf("call is %+v", call)
			}
		})
	}
}

func TestQualificationAnswersOfTheSimulator(t *testing.T) {
	t.Parallel()
	approved := pcclient.Qualification{Type: "Education", VettingStatus: "Approved"}
	soe := pcclient.Qualification{Type: "StateOwnedEntity"}
	tests := map[string]struct {
		step pcsim.Step
		want []pcclient.Qualification
	}{
		"Q-01 none held":        {pcsim.Step{Items: []pcsim.Qualification{}}, nil},
		"Q-02 approved":         {pcsim.Step{Items: []pcsim.Qualification{{Qualification: "Education", VettingStatus: "Approved"}}}, []pcclient.Qualification{approved}},
		"Q-08 two entries":      {pcsim.Step{Items: []pcsim.Qualification{{Qualification: "Education", VettingStatus: "Approved"}, {Qualification: "StateOwnedEntity"}}}, []pcclient.Qualification{approved, soe}},
		"Q-10 wrapped":          {raw(200, `{"qualifications":[{"qualification":"StateOwnedEntity"}]}`), []pcclient.Qualification{soe}},
		"change log one object": {raw(200, `{"Qualification":"StateOwnedEntity"}`), []pcclient.Qualification{soe}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := simulate(t, patience)
			s.plays(t, pcclient.OpQualifications, test.step)
			got, _, err := s.Qualifications(t.Context(), customerID)
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestFailuresOfTheSimulator asks for both resources, unless a row names one.
func TestFailuresOfTheSimulator(t *testing.T) {
	t.Parallel()
	const (
		account        = pcclient.OpValidationStatus
		qualifications = pcclient.OpQualifications
	)
	cutOff := &pcsim.Raw{Status: http.StatusOK, Body: `{"status":"Allowed","qualification":"Education"}`}
	html := "<!DOCTYPE html><html><body>Sorry</body></html>"
	tests := map[string]struct {
		only     pcclient.Op // empty: both
		step     pcsim.Step
		class    pcclient.Class
		reason   pcclient.Reason
		code     string
		attempts int
	}{
		"VS-13 status null":               {account, raw(200, `{"type":"account","status":null}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"VS-15 another type":              {account, raw(200, `{"type":"tax","status":"Allowed"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"VS-23 another 404":               {"", raw(404, `{"code":1000,"description":"x"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "1000", 1},
		"VS-24 tenant not found":          {"", raw(404, `{"code":60003,"description":"x"}`), pcclient.ClassNotFound, pcclient.ReasonNotFound, "60003", 1},
		"VS-26 404 with a page":           {"", raw(404, html), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"VS-26 404 without a body":        {"", raw(404, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"VS-29 wrong type asked":          {"", raw(400, `{"code":2000,"description":"x"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "2000", 1},
		"VS-31 invalid customer":          {"", raw(400, `{"code":900118}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "900118", 1},
		"VS-33 app-only refused":          {"", raw(403, `{"code":900329}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "900329", 1},
		"no status by name only":          {account, raw(404, `{"errorName":"AccountStatusNotFound"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"no status with a 400":            {account, raw(400, `{"code":600074}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "600074", 1},
		"no status with a 403":            {account, raw(403, `{"code":600074}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "600074", 1},
		"no status with a 410":            {account, raw(410, `{"code":600074}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "600074", 1},
		"no status with a 200":            {account, raw(200, `{"code":600074}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"no status with a 500":            {account, raw(500, `{"code":600074,"isRetryable":false}`), pcclient.ClassUnavailable, pcclient.ReasonServerError, "600074", 1},
		"no status, body repeats":         {account, raw(404, `{"code":600074,"Code":600074}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"no status, body cut off":         {account, raw(404, `{"code":600074,"errorName":"AccountStatusNotFound"`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"no status, neighbour":            {account, raw(404, `{"code":600074.0000000000000001}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"not found with a 400":            {"", raw(400, `{"code":60003}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "60003", 1},
		"not found with a 403":            {"", raw(403, `{"code":60003}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "60003", 1},
		"not served with a 404":           {"", raw(404, `{"code":20002}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "20002", 1},
		"Q-11 null":                       {qualifications, raw(200, `{"qualifications":null}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"Q-26 XML":                        {"", raw(200, "<x/>", "Content-Type: application/xml"), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"Q-28 trailing comma":             {qualifications, raw(200, `[{"qualification":"Education",}]`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"Q-29 404 never means none":       {qualifications, raw(404, `{"code":600074}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "600074", 1},
		"A-01 401 empty":                  {"", raw(401, ""), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "", 2},
		"A-02 MFA claim missing":          {"", raw(401, `{"code":900421}`), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "900421", 2},
		"A-03 MFA required, plain":        {"", raw(401, "Authentication failed. MFA required"), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "", 2},
		"A-04 audience retired":           {"", raw(401, `{"code":900420}`), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "900420", 2},
		"A-05 partner token missing":      {"", raw(401, `{"code":800001}`), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "800001", 2},
		"A-06 access denied":              {"", raw(401, `{"code":400}`), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "400", 2},
		"A-07 challenge":                  {"", raw(401, "", "WWW-Authenticate: OAuth realm=urn:cpsvc:cpid:x"), pcclient.ClassCredentials, pcclient.ReasonUnauthorized, "", 2},
		"A-08 role":                       {"", raw(403, `{"code":900308}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "900308", 1},
		"A-09 Conditional Access":         {"", raw(403, `{"code":900309}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "900309", 1},
		"A-11 not served":                 {"", raw(403, `{"code":20002}`), pcclient.ClassNotServed, pcclient.ReasonNotServed, "20002", 1},
		"A-11 not served, string":         {"", raw(403, `{"code":"20002"}`), pcclient.ClassNotServed, pcclient.ReasonNotServed, "20002", 1},
		"A-12 partner programme":          {"", raw(403, `{"code":900149}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "900149", 1},
		"B-01 403 code is a string":       {"", raw(403, `{"code":"2032","description":"x"}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "2032", 1},
		"B-05 403 from the gateway":       {"", raw(403, `{"statusCode":403,"message":"x"}`), pcclient.ClassCredentials, pcclient.ReasonForbidden, "", 1},
		"B-07 403 plain":                  {"", raw(403, "Forbidden"), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"B-07 403 empty":                  {"", raw(403, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"B-07 403 without a code":         {"", raw(403, `{"message":"x"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"R-01 throttled":                  {"", raw(429, `{"statusCode":429,"message":"x"}`, "Retry-After: 57"), pcclient.ClassThrottled, pcclient.ReasonThrottled, "", 1},
		"R-03 no Retry-After":             {"", raw(429, ""), pcclient.ClassThrottled, pcclient.ReasonThrottled, "", 1},
		"S-01 500":                        {"", raw(500, `{"code":800003,"description":"x"}`), pcclient.ClassUnavailable, pcclient.ReasonServerError, "800003", 3},
		"S-02 500 empty":                  {"", raw(500, ""), pcclient.ClassUnavailable, pcclient.ReasonServerError, "", 3},
		"S-03 502 with a page":            {"", raw(502, html), pcclient.ClassUnavailable, pcclient.ReasonServerError, "", 3},
		"S-03 503":                        {"", raw(503, ""), pcclient.ClassUnavailable, pcclient.ReasonServerError, "", 3},
		"S-03 504":                        {"", raw(504, ""), pcclient.ClassUnavailable, pcclient.ReasonServerError, "", 3},
		"S-04 408":                        {"", raw(408, ""), pcclient.ClassUnavailable, pcclient.ReasonServerError, "", 3},
		"S-05 400 retryable":              {"", raw(400, `{"code":1,"isRetryable":true}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "1", 1},
		"500 not retryable":               {"", raw(500, `{"code":1,"isRetryable":false}`), pcclient.ClassUnavailable, pcclient.ReasonServerError, "1", 1},
		"S-07 501":                        {"", raw(501, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"S-07 405":                        {"", raw(405, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"S-07 406":                        {"", raw(406, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"S-07 412":                        {"", raw(412, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"S-07 417":                        {"", raw(417, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"599":                             {"", raw(599, ""), pcclient.ClassUnavailable, pcclient.ReasonServerError, "", 3},
		"S-10 truncated":                  {"", raw(200, `{"status":"Allowed"`), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"S-10 login page":                 {"", raw(200, html), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
		"S-11 reset before headers":       {"", pcsim.Step{Failure: pcsim.FailureReset}, pcclient.ClassUnavailable, pcclient.ReasonConnection, "", 3},
		"S-11 reset mid-body":             {"", pcsim.Step{Raw: cutOff, Failure: pcsim.FailureResetBody}, pcclient.ClassUnavailable, pcclient.ReasonConnection, "", 3},
		"stalled before headers":          {"", pcsim.Step{Failure: pcsim.FailureHang}, pcclient.ClassUnavailable, pcclient.ReasonTimeout, "", 3},
		"stalled mid-body":                {"", pcsim.Step{Raw: cutOff, Failure: pcsim.FailureHangBody}, pcclient.ClassUnavailable, pcclient.ReasonTimeout, "", 3},
		"201 is no success":               {"", raw(201, `{"status":"Allowed","qualification":"Education"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"202 is no success":               {"", raw(202, `{"status":"Allowed","qualification":"Education"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"203 is no success":               {"", raw(203, `{"status":"Allowed","qualification":"Education"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"204 is no success":               {"", raw(204, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"206 is no success":               {"", raw(206, `{"status":"Allowed","qualification":"Education"}`), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"304 is no success":               {"", raw(304, ""), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"redirect that cannot be read":    {"", raw(302, "", "Location: http://[::1"), pcclient.ClassInvalidResponse, pcclient.ReasonUnexpected, "", 1},
		"a body of more than the maximum": {"", raw(200, `{"status":"Allowed","qualification":"Education"}`+strings.Repeat(" ", 1<<20)), pcclient.ClassInvalidResponse, pcclient.ReasonUnreadable, "", 1},
	}
	for name, test := range tests {
		for _, op := range []pcclient.Op{account, qualifications} {
			if test.only != "" && test.only != op {
				continue
			}
			t.Run(name+"/"+string(op), func(t *testing.T) {
				t.Parallel()
				timeout := patience // a slow machine is no failure
				if test.reason == pcclient.ReasonTimeout {
					timeout = 300 * time.Millisecond
				}
				s := simulate(t, timeout)
				s.plays(t, op, test.step)
				call, err := s.asks(t, op)
				fail := failure(t, err, test.class, test.reason)
				if fail.Op != op || fail.Code != test.code || fail.Status != call.Status {
					t.Errorf("got %+v", fail)
				}
				if call.Attempts != test.attempts || fail.Attempts != test.attempts || len(s.sim.Requests()) != test.attempts {
					t.Errorf("%d attempts of which %d were seen, want %d", call.Attempts, len(s.sim.Requests()), test.attempts)
				}
				if alert := s.alert(t, op); alert != (test.class == pcclient.ClassCredentials) {
					t.Errorf("the alert is %v", alert)
				}
			})
		}
	}
}

// alert reports whether the alert about an operation is up.
func (s *simulated) alert(t *testing.T, op pcclient.Op) bool {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "eligibility_partner_center_credentials_alert" {
			continue
		}
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == string(op) {
				return metric.GetGauge().GetValue() == 1
			}
		}
	}
	t.Fatalf("no alert about %s", op)
	return false
}

func TestReplaysCureWhatPassesInTheSimulator(t *testing.T) {
	t.Parallel()
	tests := map[string][]pcsim.Step{
		"S-01 500 once":       {raw(500, `{"code":800003}`)},
		"S-03 503 twice":      {raw(503, ""), raw(503, "")},
		"S-04 408, then 502":  {raw(408, ""), raw(502, "")},
		"S-11 reset once":     {{Failure: pcsim.FailureReset, Times: 1}},
		"S-11 reset mid-body": {{Status: "Allowed", Failure: pcsim.FailureResetBody, Times: 1}, raw(500, "")},
		"A-01 401 once":       {raw(401, "")},
		"401 after a 500":     {raw(500, ""), raw(401, "")},
		"401 after two 500":   {raw(500, ""), raw(500, ""), raw(401, "")},
	}
	for name, failures := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := simulate(t, patience)
			s.plays(t, pcclient.OpValidationStatus, append(slices.Clone(failures), pcsim.Step{Status: "Allowed"})...)
			got, call, err := s.ValidationStatus(t.Context(), customerID)
			if err != nil || got.Status != "Allowed" {
				t.Fatalf("got %+v, %v", got, err)
			}
			if call.Attempts != len(failures)+1 || call.Status != http.StatusOK {
				t.Errorf("call is %+v", call)
			}
		})
	}
}
