//go:build acceptance

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The figures mean nothing here; the test checks that everything starts, that
// the intended tier answers, and that the report is complete.
func TestAcceptanceCompareMeasuresEveryScenario(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	service := filepath.Join(dir, "eligibilityd")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", service, "../cmd/eligibilityd").CombinedOutput(); err != nil { //nolint:gosec // our own paths
		t.Fatalf("%v\n%s", err, out)
	}
	var out, progress bytes.Buffer
	cmd := newRootCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&progress)
	file := filepath.Join(dir, "report.json")
	cmd.SetArgs([]string{
		"compare", "--service", service, "--json", file,
		"--rounds", "1", "--duration", "50ms", "--warmup", "100ms", "--callers", "4", "--customers", "1000", "--baseline", service,
	})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Conclusions) != 2*len(comparisons()) || len(got.Resident) != 8 || len(got.Dev) != 3 {
		t.Errorf("%d conclusions, %d of memory and %d of dev", len(got.Conclusions), len(got.Resident), len(got.Dev))
	}
	for _, m := range got.Targets {
		if len(m.Rounds) != 1 || len(m.Open) != 1 || m.Rounds[0].Requests == 0 || m.Open[0].Requests == 0 {
			t.Errorf("%s: %+v", m.Name, m)
		}
	}
	for _, c := range slices.Concat(got.Conclusions, got.Resident, got.Dev) {
		if !strings.Contains(out.String(), c.Name) {
			t.Errorf("%q is not printed", c.Name)
		}
	}
}
