package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// fieldsOf returns the fields of a message, of which each is a text.
func fieldsOf(t *testing.T, b []byte) map[protowire.Number]string {
	t.Helper()
	fields := map[protowire.Number]string{}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		value, m := protowire.ConsumeBytes(b[max(n, 0):])
		if n < 0 || m < 0 || kind != protowire.BytesType {
			t.Fatalf("no field of text: %q", b)
		}
		fields[number], b = string(value), b[n+m:]
	}
	return fields
}

func TestPeersAreAskedAboutEachCustomer(t *testing.T) {
	t.Parallel()
	for kind := range peers() {
		cmd := newRootCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"peer", kind, "--name", "a peer", "--address", "127.0.0.1:1", "--pid", "7,8", "--customers", "3", "--store", "a store"})
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
		var got target
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Name != "a peer" || len(got.requests()) != 3 || len(got.Processes) != 2 || got.Budget == 0 || got.Floor == "" {
			t.Errorf("%s: %+v", kind, got)
		}
		for _, request := range got.requests() {
			if got.Method != "" && fieldsOf(t, request) == nil {
				t.Errorf("%s: %q", kind, request)
			}
		}
	}
	fields := fieldsOf(t, openfgaQuestion("c", "s"))
	if tuple := fieldsOf(t, []byte(fields[2])); fields[1] != "s" || tuple[1] != "user:c" || tuple[2] != "buyer" || tuple[3] != "product:education" {
		t.Errorf("%q", fields)
	}
}
