package pcsim_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// controlRig is a rig with its control API on a second listener.
type controlRig struct {
	*rig
	controlURL string
}

func startControl(t *testing.T) *controlRig {
	t.Helper()
	r := start(t, pcsim.Config{})
	ts := httptest.NewServer(r.ControlHandler())
	t.Cleanup(ts.Close)
	return &controlRig{rig: r, controlURL: ts.URL}
}

// control sends a request; headers are name, value, ….
func (r *controlRig) control(method, path, body string, headers ...string) reply {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.controlURL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	got, err := r.do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

const customerPath = "/v1/customers/" + customerID

func TestControlListsWhatIsSeeded(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	got := r.control("GET", "/v1/customers", "")
	var list struct{ Customers []pcsim.Summary }
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || got.status != 200 {
		t.Fatalf("%d, %v", got.status, err)
	}
	if n := len(r.Customers()); len(list.Customers) != n || n < 20 {
		t.Errorf("%d listed, %d seeded", len(list.Customers), n)
	}
	want := pcsim.Summary{
		ID: "a0000000-0000-4000-8000-000000000001", Name: "Allowed",
		Shows: "An account that may buy.", Account: "Allowed", Qualifications: "none",
	}
	if diff := cmp.Diff(want, list.Customers[0]); diff != "" {
		t.Error(diff)
	}
}

func TestControlPutsReadsAndRemovesACustomer(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	token := r.userToken()
	if got := r.control("GET", customerPath, ""); got.status != 404 {
		t.Errorf("before: %d", got.status)
	}
	script := `{"name":"\ud83d\ude00","account":[{"status":"UnderReview","times":1},{"status":"Allowed"}],
		"qualifications":[{"items":[]}]}`
	if got := r.control("PUT", "/v1/customers/"+strings.ToUpper(customerID), script); got.status != 201 {
		t.Fatalf("new: %d %s", got.status, got.body)
	}
	if words := []string{r.statusWord(token), r.statusWord(token)}; words[0] != "UnderReview" || words[1] != "Allowed" {
		t.Errorf("status words %v", words)
	}
	if got, _ := r.Customer(customerID); got.Name != "😀" {
		t.Errorf("name %q", got.Name)
	}
	if got := r.control("PUT", customerPath, `{"account":[{"status":"Unknown"}]}`); got.status != 200 {
		t.Errorf("again: %d %s", got.status, got.body)
	}
	if got := r.statusWord(token); got != "Unknown" {
		t.Errorf("replaced: %s", got)
	}
	if got := r.control("DELETE", customerPath, ""); got.status != 204 {
		t.Errorf("delete: %d", got.status)
	}
	if got := r.statusWord(token); got != "404" {
		t.Errorf("deleted: %s", got)
	}
	if got := r.control("DELETE", customerPath, ""); got.status != 404 {
		t.Errorf("delete again: %d", got.status)
	}
}

func TestControlGivesBackWhatItTakes(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	r.set(everyMemberRead())
	read := r.control("GET", customerPath, "")
	r.DeleteCustomer(customerID)
	if got := r.control("PUT", customerPath, read.body); got.status != 201 || got.body != read.body {
		t.Errorf("%d %s\nwant %s", got.status, got.body, read.body)
	}
	got, _ := r.Customer(customerID)
	if diff := cmp.Diff(everyMemberRead(), got); diff != "" {
		t.Error(diff)
	}
	for _, c := range newServer(t).Customers() { // every seed survives the round trip
		body, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.control("PUT", "/v1/customers/"+c.ID, string(body)); got.status != 200 {
			t.Errorf("%s: %d %s", c.Name, got.status, got.body)
		}
		got, _ := r.Customer(c.ID)
		if diff := cmp.Diff(c, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestControlTakesYAML(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	got := r.control("PUT", customerPath, "account:\n- status: Not Ready\n", "Content-Type", "application/yaml")
	if got.status != 201 {
		t.Errorf("%d %s", got.status, got.body)
	}
	got = r.control("PUT", customerPath, "account:\n- staus: Not Ready\n", "Content-Type", "application/yaml")
	if got.status != 400 || !strings.Contains(got.body, `"key":"account[0].staus","line":2`) {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestControlNamesEveryMistake(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	tests := []struct {
		path, body string
		want       []pcsim.Fault
	}{
		{customerPath, `{"account":[{"status":"Allowed","latency":5},{"raw":{"status":0}}],"tennant":null}`, []pcsim.Fault{
			{Key: "account[0].latency", Problem: "is `5`, not a duration such as 1.5s or -2m"},
			{Key: "account[1].raw.status", Problem: "0 is not a status from 200 to 599"},
			{Key: "tennant", Problem: "is not known here"},
		}},
		{customerPath, `{"account":[],"account":[{"status":"Allowed"}]}`, []pcsim.Fault{
			{Key: "account", Problem: "is defined twice"},
		}},
		{customerPath, `[]`, []pcsim.Fault{{Key: "script", Problem: "is a list, not an object"}}},
		{"/v1/customers/x", `{"tenant":"unknown"}`, []pcsim.Fault{
			{Key: "id", Problem: `"x" is not a GUID of the form 8-4-4-4-12`},
		}},
		{"/v1/token", `{"step":[]}`, []pcsim.Fault{{Key: "steps", Problem: "is missing"}, {Key: "step", Problem: "is not known here"}}},
		{"/v1/token", `{}`, []pcsim.Fault{{Key: "steps", Problem: "is missing"}}},
		{"/v1/token", `{"steps":[{"entra_error":1,"expires_in":"1h"}]}`, []pcsim.Fault{
			{Key: "steps[0]", Problem: "has both entra_error and expires_in: only one is possible"},
			{Key: "steps[0].entra_error", Problem: "1 is not a code that the simulator knows"},
		}},
	}
	for _, tc := range tests {
		got := r.control("PUT", tc.path, tc.body)
		var refusal struct{ Faults []pcsim.Fault }
		if err := json.Unmarshal([]byte(got.body), &refusal); err != nil || got.status != 400 {
			t.Errorf("%s: %d %s", tc.body, got.status, got.body)
		}
		if diff := cmp.Diff(tc.want, refusal.Faults); diff != "" {
			t.Errorf("%s: %s", tc.body, diff)
		}
	}
}

func TestControlRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	for body, status := range map[string]int{
		"":                                      400,
		"{":                                     400,
		"{} {}":                                 400,
		"account: []":                           400,
		"{\"account\":[{\"status\":\"\xff\"}]}": 400,
		strings.Repeat("[", 20_000):             400,
		`{"name":"` + strings.Repeat("x", 5<<20) + `"}`: 413,
	} {
		got := r.control("PUT", customerPath, body)
		if got.status != status || !strings.Contains(got.body, `"error":`) {
			t.Errorf("%.30q: %d %s, want %d", body, got.status, got.body, status)
		}
	}
	if got := r.control("POST", "/v1/customers", ""); got.status != 405 {
		t.Errorf("POST: %d", got.status)
	}
	if got := r.control("POST", "/v1/reset", "", "Sec-Fetch-Site", "cross-site"); got.status != 403 {
		t.Errorf("from another site: %d", got.status)
	}
}

func TestControlScriptsTokensAndResets(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	got := r.control("PUT", "/v1/token", `{"steps":[
		{"raw":{"status":500,"body":"x"},"latency":"1ms","times":1},{"expires_in":"5s","for":"1h"},{"entra_error":700082}]}`)
	if got.status != 204 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got, err := r.postToken(t.Context(), v2Path, refreshForm()); err != nil || got.status != 500 || got.body != "x" {
		t.Errorf("first: %d %s %v", got.status, got.body, err)
	}
	if got := r.grant(v2Path, refreshForm())["expires_in"]; got != 5.0 {
		t.Errorf("then: expires_in %v", got)
	}
	r.clock.Advance(time.Hour)
	refused, err := r.postToken(t.Context(), v2Path, refreshForm())
	if err != nil || refused.status != 400 {
		t.Errorf("at last: %d %v", refused.status, err)
	}
	if got := r.control("POST", "/v1/reset", ""); got.status != 204 {
		t.Errorf("reset: %d", got.status)
	}
	r.userToken()
}

func TestControlShowsCallsAndCounts(t *testing.T) {
	t.Parallel()
	r := startControl(t)
	r.set(accountWithStatus("Allowed"))
	if got := r.control("GET", "/v1/requests", ""); got.body != "{\"requests\":[]}\n" {
		t.Errorf("at first: %s", got.body)
	}
	token := r.userToken()
	r.account(customerID, token)
	want := `{"requests":[{"number":1,"time":"2026-11-21T12:00:00Z","method":"GET",` +
		`"path":"/v1/customers/` + customerID + `/validationStatus","query":"type=account",` +
		`"resource":"account","customer_id":"` + customerID + `","status":200}]}` + "\n"
	if diff := cmp.Diff(want, r.control("GET", "/v1/requests", "").body); diff != "" {
		t.Error(diff)
	}
	want = `{"account":1,"qualifications":0,"other":0,"tokens":1,"throttled":0}` + "\n"
	if diff := cmp.Diff(want, r.control("GET", "/v1/stats", "").body); diff != "" {
		t.Error(diff)
	}
}

func TestControlStaysOffThePartnerCenterListener(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	if got := r.get("/v1/customers", r.userToken()); got.status != 404 {
		t.Errorf("%d %s", got.status, got.body)
	}
}
