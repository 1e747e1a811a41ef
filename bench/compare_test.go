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
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

// TestMain lets the test binary serve floors, as the program does.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "floor" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// The figures mean nothing here; the test checks that everything starts, that
// the intended tier answers, and that the report is complete.
func TestCompareMeasuresEveryScenario(t *testing.T) {
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

func TestConclusionsGoRoundByRound(t *testing.T) {
	t.Parallel()
	got := spread("a / b", "×", []float64{1.2, 0.8, 1.0, 1.4}, 1.1)
	if got.Median != 1.1 || got.Min != 0.8 || got.Max != 1.4 || !strings.HasSuffix(got.verdict(), "ok") {
		t.Errorf("%+v: %s", got, got.verdict())
	}
	if got := spread("", "×", []float64{1.2}, 1.1).verdict(); !strings.HasSuffix(got, "OVER") {
		t.Error(got)
	}
	if got := spread("", "×", nil, 1.1).verdict(); !strings.Contains(got, "--duration") {
		t.Error(got)
	}
}

// If a floor used less CPU time than the kernel's resolution, there is no
// ratio.
func TestARoundWithoutCPUTimeIsLeftOut(t *testing.T) {
	t.Parallel()
	turns := func(cpu ...time.Duration) (results []load.Result) {
		for _, c := range cpu {
			results = append(results, load.Result{Requests: 1000, CPU: c})
		}
		return results
	}
	r := report{Targets: []*measured{
		{Name: "a", Rounds: turns(40*time.Millisecond, 40*time.Millisecond)},
		{Name: "b", Rounds: turns(0, 20*time.Millisecond)},
	}}
	r.conclude([]comparison{{of: "a", to: "b", unit: unitRatio, budget: 1}})
	if len(r.Conclusions) != 1 || r.Conclusions[0].Rounds != 1 || r.Conclusions[0].Max != 2 {
		t.Errorf("%+v", r.Conclusions)
	}
}

func TestUnknownScenariosAreRefused(t *testing.T) {
	t.Parallel()
	cmd := newRootCommand()
	cmd.SetArgs([]string{"compare", "--scenarios", "grpc,rset"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "rset") {
		t.Error(err)
	}
}
