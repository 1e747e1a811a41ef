package pcsim

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// FuzzLoad is inside the package, so that a run need not load the seeds. Its
// own seeds are short: the fuzzer would spend its time on shrinking a long one.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("customers: {a: {account: [{status: 5, raw: [], latency: {}}]}}"))
	f.Add([]byte("a: &a [*a]\n? [b]\n: |\n  c\n"))
	f.Add([]byte("customers:\n  00000000-0000-4000-8000-000000000001:\n    tenant: unknown\n"))
	f.Add([]byte("customers: {a: {qualifications: [{items: [{qualification: b}], failure: hang_body, for: 1s}]}}"))
	f.Add([]byte("partners: {us: {client_id: a, customers: {00000000-0000-4000-8000-000000000001: {tenant: unknown}}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		customers, _, err := parseScript(text, func(string, string) string { return "" })
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a message")
			}
			return
		}
		// If a script is accepted, it is valid and survives a round trip.
		for _, c := range customers {
			if faults := checkCustomer("", c); len(faults) > 0 {
				t.Errorf("%+v", faults)
			}
			body, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if read := readJSON(t, c.ID, body); !cmp.Equal(c, read, cmpopts.EquateEmpty()) {
				t.Errorf("%+v became %+v", c, read)
			}
		}
	})
}

// FuzzControlBody decodes bodies of a PUT of the control API.
func FuzzControlBody(f *testing.F) {
	f.Add([]byte(`{"account":[{"status":"Allowed","latency":"1s","times":1},{"raw":{"status":200}}]}`))
	f.Add([]byte(`{"a":{"a":[1,1.5e3,null,true,"\ud83d\ude00"]},"a":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		converted, err := yamlOf(text)
		if (err == nil) != (json.Valid(text) && utf8.Valid(text)) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil {
			return
		}
		var c Customer
		if _, err := decode(converted, &c); err != nil && err.Error() == "" {
			t.Error("an error without a message")
		}
	})
}

// FuzzJSONStrings checks that the conversion to YAML keeps every string.
func FuzzJSONStrings(f *testing.F) {
	for _, s := range []string{"", "a: b", "\t\r\n", "\u0085\u2028", "\u0000", "\u007f", "\ufffe", "\ufeff", "😀", "'\"\\/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		body, err := json.Marshal(Customer{Name: s})
		if err != nil {
			t.Fatal(err)
		}
		if got := readJSON(t, "", body).Name; got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func readJSON(t *testing.T, id string, body []byte) Customer {
	t.Helper()
	text, err := yamlOf(body)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	var c Customer
	o, err := decode(text, &c)
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if err := o.report(nil); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	if id != "" && c.ID != id {
		t.Errorf("id %q, want %q", c.ID, id)
	}
	return c
}
