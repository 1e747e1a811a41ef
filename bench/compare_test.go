package main

import (
	"os"
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
