//go:build acceptance

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// changesRow is one proof of the feed of changes. Its name selects it:
// -run AcceptanceChanges/NAME.
type changesRow struct {
	name string
	does string // the first cell of its row in docs/changes.md
	run  func(t *testing.T) (measured string)
}

func changesRows() []changesRow {
	return []changesRow{
		{"Flips", "1,000 customers flip while three replicas are killed in turn and 50 watchers reconnect by token", changesOfFlips},
		{"Failover", "Sentinel replaces a primary whose last writes no replica has", changesAfterFailover},
		{"Watchers", "10,000 watchers at one replica", changesToManyWatchers},
		{"Retention", "a watcher of silent customers, with a retention of 60 s", changesOfSilentCustomers},
		{"Browser", "`EventSource` in Chromium on a page of another origin, behind nginx with an idle timeout of 60 s", changesInABrowser},
		{"Shutdown", "SIGTERM with 1,000 streams", changesAtShutdown},
		{"Reviews", "500 customers under review that no caller checks, of whom 50 flip; one of three replicas is killed", changesByReviews},
		{"Share", "20,000 tracked reviews and a budget of 600 a minute", changesWithASmallBudget},
		{"Pipeline", "`examples/pipeline` with the orders of 200 customers under review", changesForAPipeline},
	}
}

// Each row runs the real program, a real Redis and the simulator. The figures go into
// the table of docs/changes.md.
func TestAcceptanceChanges(t *testing.T) { //nolint:paralleltest // it measures
	for _, row := range changesRows() {
		t.Run(row.name, func(t *testing.T) {
			began := time.Now()
			measured := row.run(t)
			t.Logf("in %v: %s", time.Since(began).Round(time.Second), measured)
			if !t.Failed() {
				documentChanges(t, row.does, measured)
			}
		})
	}
}

// The rows are between these lines of docs/changes.md.
const changesBegin, changesEnd = "<!-- changes: make acceptance-changes writes this with UPDATE_REFERENCE=1 -->\n", "<!-- /changes -->\n"

// documentChanges fails if docs/changes.md has no row for a proof. If
// UPDATE_REFERENCE is set, it writes the row.
func documentChanges(t *testing.T, does, measured string) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "changes.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), changesBegin)
	table, after, also := strings.Cut(rest, changesEnd)
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
			t.Errorf("%s has no row %q; run make acceptance-changes with UPDATE_REFERENCE=1", path, does)
		}
		return
	}
	former[does] = fmt.Sprintf("| %s | %s |\n", does, measured)
	var written strings.Builder
	written.WriteString("| with | measured |\n|---|---|\n")
	for _, row := range changesRows() {
		written.WriteString(former[row.does])
	}
	if err := os.WriteFile(path, []byte(before+changesBegin+written.String()+changesEnd+after), 0o644); err != nil { //nolint:gosec // a document
		t.Fatal(err)
	}
}

// flipping is a customer with that status and without qualifications.
func flipping(id, status string, latency time.Duration) pcsim.Customer {
	return pcsim.Customer{
		ID:             id,
		Account:        []pcsim.Step{{Status: status, Latency: latency}},
		Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}, Latency: latency}},
	}
}

func changingIDs(family byte, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = coldID(family, i)
	}
	return ids
}
