package pcsim

import (
	"bytes"
	"encoding/json"
	"testing"

	"go.yaml.in/yaml/v3"
)

// FuzzLoad is inside the package to be spared the seeds on every run. Its own
// are short: the fuzzer would spend its time on shrinking a long one.
func FuzzLoad(f *testing.F) {
	f.Add([]byte("customers: {a: {account: [{status: 5, raw: [], latency: {}}]}}"))
	f.Add([]byte("a: &a [*a]\n? [b]\n: |\n  c\n"))
	f.Add([]byte("customers:\n  00000000-0000-4000-8000-000000000001:\n    tenant: unknown\n"))
	f.Add([]byte("customers: {a: {qualifications: [{items: [{qualification: b}], failure: hang_body, for: 1s}]}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		customers, err := parseScript(bytes.NewReader(text))
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a word")
			}
			return
		}
		// What is taken is valid, and can be given back.
		for _, c := range customers {
			if found := checkCustomer("", c); len(found) > 0 {
				t.Errorf("%+v", found)
			}
			body, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			readJSON(t, body)
		}
	})
}

// FuzzControlBody reads what a PUT of the control API may send.
func FuzzControlBody(f *testing.F) {
	f.Add([]byte(`{"account":[{"status":"Allowed","latency":"1s","times":1},{"raw":{"status":200}}]}`))
	f.Add([]byte(`{"a":{"a":[1,1.5e3,null,true,"\ud83d\ude00"]},"a":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		root, err := jsonTree(text)
		if (err == nil) && !json.Valid(text) {
			t.Errorf("taken, but no JSON: %q", text)
		}
		if err != nil {
			return
		}
		d := newReader()
		c := d.customer("", "00000000-0000-4000-8000-000000000001", root)
		d.check(checkCustomer("", c))
	})
}

func readJSON(t *testing.T, body []byte) {
	t.Helper()
	root, err := jsonTree(body)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if root.Kind != yaml.MappingNode {
		t.Fatalf("no object: %s", body)
	}
	d := newReader()
	d.customer("", "", root)
	for _, f := range d.faults {
		if f.Key != "id" { // it stands outside, where there is none here
			t.Errorf("%+v: %s", f, body)
		}
	}
}
