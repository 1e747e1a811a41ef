package pcsim_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

func newServer(t *testing.T) *pcsim.Server {
	t.Helper()
	s, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const everyMember = `
customers:
  12345678-90AB-4cde-8f01-234567890abc:
    id: 12345678-90ab-4cde-8f01-234567890ABC
    name: Name
    shows: A sentence.
    account:
      - {status: UnderReview, latency: 1.5s, times: 2}
      - {status: none, failure: reset_body, for: 1m}
      - raw: {status: 503, headers: {Retry-After: 2, X-A: b}, body: "text"}
    qualifications:
      - raw: {status: 200, body_base64: //4=}
        times: 1
      - items:
          - qualification: Education
            vettingStatus: Denied
            vettingReason: Reason
            vettingCreatedDate: 2020-12-03T10:37:38.885Z
            vettingCreateDate: "2021"
  22222222-2222-4222-8222-222222222222: {tenant: other_partner}
`

func everyMemberRead() pcsim.Customer {
	return pcsim.Customer{
		ID: customerID, Name: "Name", Shows: "A sentence.",
		Account: []pcsim.Step{
			{Status: "UnderReview", Latency: 1500 * time.Millisecond, Times: 2},
			{Status: "none", Failure: "reset_body", For: time.Minute},
			{Raw: &pcsim.Raw{Status: 503, Headers: map[string]string{"Retry-After": "2", "X-A": "b"}, Body: "text"}},
		},
		Qualifications: []pcsim.Step{
			{Raw: &pcsim.Raw{Status: 200, BodyBase64: "//4="}, Times: 1},
			{Items: []pcsim.Qualification{{
				Qualification: "Education", VettingStatus: "Denied", VettingReason: "Reason",
				VettingCreatedDate: "2020-12-03T10:37:38.885Z", VettingCreateDate: "2021",
			}}},
		},
	}
}

func TestLoadReadsEveryMember(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before := len(s.Customers())
	if err := s.Load(strings.NewReader(everyMember)); err != nil {
		t.Fatal(err)
	}
	got := s.Customers()[before:]
	want := []pcsim.Customer{everyMemberRead(), {ID: "22222222-2222-4222-8222-222222222222", Tenant: "other_partner"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEveryMistakeIsNamedByKeyAndLine(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	before := s.Customers()
	err := s.Load(strings.NewReader(`customers:
  ` + customerID + `:
    nmae: typo
    account:
      - {status: Allowed, latency: soon, times: 1}
      - {status: 503}
      - {items: []}
      - {raw: {status: 199, headers: {"a b": x}}, for: -1s}
      - {raw: {status: 204, body: x}, failure: explode, times: 1.5}
      - {status: NONE}
    qualifications:
      - {items: [{vettingStatus: Approved}, 7], times: 0}
      - {raw: {status: 200, body: a, body_base64: b}, failure: hang, times: 1, for: 1s}
      - {failure: reset_body, times: 1}
      - items: ~
  not-a-guid:
    tenant: elsewhere
  22222222-2222-4222-8222-222222222222: {tenant: unknown, account: [{status: Allowed}]}
  33333333-3333-4333-8333-333333333333: {account: [], id: 44444444-4444-4444-8444-444444444444}
  A2345678-90ab-4cde-8f01-234567890abc: {tenant: unknown}
  a2345678-90ab-4cde-8f01-234567890abc: {tenant: unknown}
others: {}
`))
	var script *pcsim.ScriptError
	if !errors.As(err, &script) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for line := range strings.SplitSeq(script.Error(), "\n") {
		got = append(got, strings.ReplaceAll(line, "customers."+customerID, "C"))
	}
	want := []string{
		"line 3: C.nmae: is not known here",
		"line 5: C.account[0]: is `soon`, not a duration such as 1.5s or -2m",
		"line 6: C.account[1].status: is 503, which is not an account status; raw has the HTTP status",
		"line 6: C.account[1]: needs times or for: another step follows",
		"line 7: C.account[2].items: is for qualifications steps only",
		"line 7: C.account[2]: needs times or for: another step follows",
		"line 8: C.account[3].for: -1s is negative",
		"line 8: C.account[3].raw.status: 199 is not a status from 200 to 599",
		"line 8: C.account[3].raw.headers.a b: is not a header name",
		"line 9: C.account[4].times: is 1.5, not a whole number or text",
		`line 9: C.account[4].failure: "explode" is none of reset, reset_body, hang, hang_body`,
		"line 9: C.account[4].raw.body: status 204 has no body",
		"line 10: C.account[5].status: write none in lower case for an account without status",
		"line 12: C.qualifications[0]: is `7`, not an object",
		"line 13: C.qualifications[1].failure: hang sends nothing: remove raw",
		"line 13: C.qualifications[1]: has both times and for: only one is possible",
		"line 13: C.qualifications[1].raw.body_base64: is not base64",
		"line 13: C.qualifications[1].raw: has both body and body_base64: only one is possible",
		"line 14: C.qualifications[2]: needs an answer for reset_body to break",
		"line 15: C.qualifications[3]: needs items, raw or failure",
		`line 16: customers.not-a-guid: "not-a-guid" is not a GUID of the form 8-4-4-4-12`,
		`line 17: customers.not-a-guid.tenant: "elsewhere" is neither unknown nor other_partner`,
		"line 18: customers.22222222-2222-4222-8222-222222222222.tenant: unknown leaves no room for account and qualifications",
		"line 19: customers.33333333-3333-4333-8333-333333333333.account: is missing: it needs at least one step",
		"line 19: customers.33333333-3333-4333-8333-333333333333.id: is \"44444444-4444-4444-8444-444444444444\", " +
			"but the script is for 33333333-3333-4333-8333-333333333333",
		"line 21: customers.a2345678-90ab-4cde-8f01-234567890abc: is defined twice",
		"line 22: others: is not known here",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, s.Customers()); diff != "" {
		t.Errorf("a bad script changed something: %s", diff)
	}
}

func TestWhatIsNoScriptIsRefused(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"":                                  "empty",
		"# nothing":                         "empty",
		"{}":                                "customers: is missing",
		"[]":                                "script: is a list, not an object",
		"customers: 7":                      "customers: is `7`, not an object",
		"customers: {}\n---\ncustomers: {}": "more than one YAML document",
		"customers: [":                      "yaml: ",
		"\xff\xfe\xfd":                      "yaml: ",
		"customers: &a {b: *a}":             "is an alias",
		"customers: {[a]: {}}":              "is a list, not text",
		"customers: {<<: {a: b}}":           "is `b`, not an object",
		"customers: {a: {}, b: {}, a: {}}":  "customers.a: is defined twice",
		"a: {b: {c: {d: {e: {f: {g: {h: {i: {j: {k: {}}}}}}}}}}}": "nested too deeply",
		"a: {" + strings.Repeat("a: {}, ", 101) + "}":             "a: has more than 100 members",
		"a:\n" + strings.Repeat("- b\n", 100_001):                 "which is the limit",
		"customers: {}\n" + strings.Repeat("#", 5<<20):            "larger than",
	}
	s := newServer(t)
	for text, want := range tests {
		err := s.Load(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func TestSetCustomerIsAsStrictAsLoad(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for want, c := range map[string]pcsim.Customer{
		"is not a GUID":                 {ID: "{" + customerID + "}", Tenant: pcsim.TenantUnknown},
		"account: is missing":           {ID: customerID},
		"account[0].items: is for qual": {ID: customerID, Account: []pcsim.Step{{Items: []pcsim.Qualification{}}}},
		"is possible":                   {ID: customerID, Account: []pcsim.Step{{Status: "Allowed", Raw: &pcsim.Raw{Status: 200}}}},
		"is the last step":              {ID: customerID, Account: []pcsim.Step{{Status: "Allowed", Times: 1}}},
		"latency: -1ns is negative":     {ID: customerID, Account: []pcsim.Step{{Status: "Allowed", Latency: -1}}},
		"times: -1 is negative":         {ID: customerID, Account: []pcsim.Step{{Status: "Allowed", Times: -1}, {Status: "Allowed"}}},
		"for: -1ns is negative":         {ID: customerID, Account: []pcsim.Step{{Status: "Allowed", For: -1}, {Status: "Allowed"}}},
		"600 is not a status":           {ID: customerID, Account: []pcsim.Step{{Raw: &pcsim.Raw{Status: 600}}}},
		"control character":             {ID: customerID, Account: []pcsim.Step{{Raw: &pcsim.Raw{Status: 200, Headers: map[string]string{"A": "b\r\nc"}}}}},
		"entra_error: is for token":     {ID: customerID, Account: []pcsim.Step{{Status: "Allowed", EntraError: 70008}}},
	} {
		var script *pcsim.ScriptError
		if err := s.SetCustomer(c); !errors.As(err, &script) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for want, step := range map[string]pcsim.Step{
		"steps[0].status: is for account":    {Status: "Allowed"},
		"steps[0].entra_error: 1 is not":     {EntraError: 1},
		"steps[0].expires_in: -1ns is":       {ExpiresIn: -1},
		"steps[0].failure: reset sends":      {Failure: "reset", ExpiresIn: time.Second},
		"steps[0]: has both entra_error and": {EntraError: 70008, Raw: &pcsim.Raw{Status: 200}},
	} {
		if err := s.ScriptTokens(step); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, ok := s.Customer(customerID); ok {
		t.Error("a bad script was taken")
	}
}

func TestScriptsAreCopiedInAndOut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := everyMemberRead()
	if err := s.SetCustomer(c); err != nil {
		t.Fatal(err)
	}
	spoil := func(c pcsim.Customer) {
		c.Account[0].Status = "Allowed"
		c.Account[2].Raw.Headers["X-A"] = "spoilt"
		c.Account[2].Raw.Status = 200
		c.Qualifications[1].Items[0].VettingStatus = "Approved"
	}
	spoil(c)
	got, _ := s.Customer(strings.ToUpper(customerID))
	spoil(got)
	list := s.Customers()
	spoil(list[len(list)-1])
	got, _ = s.Customer(customerID)
	if diff := cmp.Diff(everyMemberRead(), got); diff != "" {
		t.Error(diff)
	}
}

func TestResetReturnsToSeedsAndFiles(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{RequestsPerMinute: 1})
	if err := r.Load(strings.NewReader(everyMember)); err != nil {
		t.Fatal(err)
	}
	baseline := r.Customers()
	token := r.userToken()
	r.account(customerID, token)
	r.set(accountWithStatus("NotAllowed"))
	r.DeleteCustomer(baseline[0].ID)
	if err := r.ScriptTokens(pcsim.Step{EntraError: 70008}); err != nil {
		t.Fatal(err)
	}
	r.Reset()
	if diff := cmp.Diff(baseline, r.Customers()); diff != "" {
		t.Error(diff)
	}
	if r.Stats() != (pcsim.Stats{}) || len(r.Requests()) != 0 {
		t.Errorf("%+v, %d requests", r.Stats(), len(r.Requests()))
	}
	if got := r.account(customerID, r.userToken()); got.status != 200 {
		t.Errorf("the limit was not reset, or the script not restarted: %d", got.status)
	}
}

func TestThereIsRoomForSoManyCustomers(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	unknown := func(n int) pcsim.Customer { return pcsim.Customer{ID: numbered(n), Tenant: pcsim.TenantUnknown} }
	last := pcsim.MaxCustomers - len(s.Customers())
	for n := range last - 1 {
		if err := s.SetCustomer(unknown(n)); err != nil {
			t.Fatal(err)
		}
	}
	load := func(ids ...int) error {
		text := "customers:\n"
		for _, id := range ids {
			text += "  " + numbered(id) + ": {tenant: unknown}\n"
		}
		return s.Load(strings.NewReader(text))
	}
	if err := load(last-1, last); err == nil {
		t.Error("too many were loaded")
	}
	if err := load(0, last-1); err != nil {
		t.Error(err)
	}
	if err := s.SetCustomer(unknown(last)); err == nil {
		t.Error("one too many was added")
	}
	if err := load(0, last-1); err != nil {
		t.Errorf("replacing: %v", err)
	}
}

func TestLoadFileNamesTheFile(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	path := filepath.Join(t.TempDir(), "script.yaml")
	if err := s.LoadFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("customers: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.LoadFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestExampleScriptPlays(t *testing.T) {
	t.Parallel()
	r := start(t, pcsim.Config{})
	if err := r.LoadFile("../../deploy/simulator.example.yaml"); err != nil {
		t.Fatal(err)
	}
	us, known := r.Partner("fabrikam-us")
	if !known || len(us.Customers()) != 1 {
		t.Error("the partner of the example is not there")
	}
	got := r.account("11111111-1111-4111-8111-111111111111", r.userToken())
	if got.status != 200 || !strings.Contains(got.body, `"Allowed"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	got = r.qualifications("55555555-5555-4555-8555-555555555555", r.userToken())
	if got.status != 200 || got.body != "[]" { // unpacked by net/http
		t.Errorf("%d %q", got.status, got.body)
	}
	got = r.account("77777777-7777-4777-8777-777777777777", r.userToken())
	if got.status != 302 || got.header.Get("Location") != "https://example.com/" {
		t.Errorf("%d to %q", got.status, got.header.Get("Location"))
	}
}
