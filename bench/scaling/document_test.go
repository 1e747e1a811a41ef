package main

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTheDocumentIsOfThisCode(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := fill(document, tables())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(document)); diff != "" {
		t.Errorf("run make scaling (-of this code, +written):\n%s", diff)
	}
}

func TestFillRefusesADocumentWithoutThePlace(t *testing.T) {
	t.Parallel()
	if _, err := fill([]byte("<!-- begin a -->\n<!-- end a -->\n"), []table{{"a", "x\n"}, {"b", "y\n"}}); err == nil {
		t.Error("no error for a table without a place")
	}
}
