//go:build acceptance

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// proof is a row of a table of proofs. Its name selects it, such as
// -run AcceptanceChanges/NAME.
type proof struct {
	name string
	does string // the first cell of its row
	run  func(t *testing.T) (measured string)
}

// prove runs proofs, whose figures go into the table of docs/PAGE.md.
func prove(t *testing.T, page string, proofs []proof) {
	t.Helper()
	for _, one := range proofs {
		t.Run(one.name, func(t *testing.T) {
			began := time.Now()
			measured := one.run(t)
			t.Logf("in %v: %s", time.Since(began).Round(time.Second), measured)
			if !t.Failed() {
				document(t, page, proofs, one.does, measured)
			}
		})
	}
}

// document fails if docs/PAGE.md has no row for a proof. If UPDATE_REFERENCE is set, it
// writes the row.
func document(t *testing.T, page string, proofs []proof, does, measured string) {
	t.Helper()
	begin, end := fmt.Sprintf("<!-- %[1]s: make acceptance-%[1]s writes this with UPDATE_REFERENCE=1 -->\n", page), "<!-- /"+page+" -->\n"
	path := filepath.Join("..", "..", "docs", page+".md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, also := strings.Cut(rest, end)
	if !ok || !also {
		t.Fatalf("%s has no place for the table", path)
	}
	former := map[string]string{} // first cell → line
	for line := range strings.Lines(table) {
		if cells := strings.SplitN(line, " | ", 2); len(cells) == 2 {
			former[strings.TrimPrefix(cells[0], "| ")] = line
		}
	}
	if os.Getenv("UPDATE_REFERENCE") == "" {
		if former[does] == "" {
			t.Errorf("%s has no row %q; run make acceptance-%s with UPDATE_REFERENCE=1", path, does, page)
		}
		return
	}
	former[does] = fmt.Sprintf("| %s | %s |\n", does, measured)
	var written strings.Builder
	written.WriteString("| with | measured |\n|---|---|\n")
	for _, one := range proofs {
		written.WriteString(former[one.does])
	}
	if err := os.WriteFile(path, []byte(before+begin+written.String()+end+after), 0o644); err != nil { //nolint:gosec // a document
		t.Fatal(err)
	}
}
