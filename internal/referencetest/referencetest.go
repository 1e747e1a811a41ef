// Package referencetest compares the generated pages of docs/reference with the
// code that they describe.
package referencetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// update is the variable that makes Compare write the page: make generate sets it.
const update = "UPDATE_REFERENCE"

// Compare fails the test unless docs/reference has the page name with this
// content. root is the module's directory.
func Compare(tb testing.TB, root, name, content string) {
	tb.Helper()
	path := filepath.Join(root, "docs", "reference", name)
	if os.Getenv(update) != "" {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil { //nolint:gosec // a document
			tb.Fatal(err)
		}
		return
	}
	page, err := os.ReadFile(path) //nolint:gosec // one of our own documents
	if err != nil {
		tb.Fatal(err)
	}
	if string(page) == content {
		return
	}
	got, want := strings.Split(string(page), "\n"), strings.Split(content, "\n")
	for i := range max(len(got), len(want)) {
		if at(got, i) != at(want, i) {
			tb.Fatalf("docs/reference/%s is out of date, run make generate; line %d is\n%s\nand the code has\n%s", name, i+1, at(got, i), at(want, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
