package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The days were simulated once; all that follows from them and from the
// constants is reckoned again.
func TestTheDocumentIsOfThisCode(t *testing.T) {
	t.Parallel()
	files := filesIn("../../docs")
	results, err := readResults(files)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range days() {
		if i >= len(results) || results[i].name != d.name {
			t.Fatalf("day %s is missing from %s: run make scaling", d.name, files.days)
		}
	}
	document, err := os.ReadFile(files.document)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fill(document, tablesOf(results))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(document)); diff != "" {
		t.Errorf("run go run ./bench/scaling -tables (-of this code, +written):\n%s", diff)
	}
	plot, err := os.ReadFile(files.plot)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plot, plotCalls(results)) {
		t.Errorf("%s is of other figures: run go run ./bench/scaling -tables", files.plot)
	}
}

func TestFillRefusesADocumentWithoutThePlace(t *testing.T) {
	t.Parallel()
	if _, err := fill([]byte("<!-- begin a -->\n<!-- end a -->\n"), []table{{"a", "x\n"}, {"b", "y\n"}}); err == nil {
		t.Error("a table had no place, and nobody was told")
	}
}
