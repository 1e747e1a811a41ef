package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/doctor"
	"github.com/eligibilityd/eligibilityd/internal/doctor/doctortest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// consult runs doctor --json and checks its exit code.
func consult(t *testing.T, environ []string) doctortest.Report {
	t.Helper()
	var out bytes.Buffer
	err := runDoctor(t.Context(), environ, doctorFlags{json: true}, &out)
	exit, isExit := errors.AsType[*exitError](err)
	if err != nil && (!isExit || exit.code != exitFailure || exit.err != nil) {
		t.Fatal(err)
	}
	report := doctortest.Read(t, out.Bytes())
	if report.Failed != (err != nil) {
		t.Errorf("failures %v, exit code 1 %v", report.Failed, err != nil)
	}
	return report
}

func TestDoctorPrintsALineForEachCheck(t *testing.T) {
	t.Parallel()
	_, partnerCenter := pcsimtest.Start(t)
	var out bytes.Buffer
	if err := runDoctor(t.Context(), pcsimtest.Environ(partnerCenter.URL, pcsimtest.TokenFile(t)), doctorFlags{}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 15 || !strings.HasPrefix(lines[5], "ok       token ") {
		t.Errorf("%d lines:\n%s", len(lines), out.String())
	}
}

func TestDoctorRejectsACustomerThatIsNoGUID(t *testing.T) {
	t.Parallel()
	root := newRootCommand()
	root.SetArgs([]string{"doctor", "--customer", "nobody"})
	root.SetErr(new(output))
	if code := run(t.Context(), root); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}

func TestDoctorPrintsJSON(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := report([]doctor.Finding{
		{Check: "a", Status: doctor.VerdictFailure, Detail: "d", Remedy: "b > c"},
		{Check: "e", Status: doctor.VerdictOK, Detail: "f"},
	}, true, &out); err != nil {
		t.Fatal(err)
	}
	const want = `[
  {
    "check": "a",
    "status": "failure",
    "detail": "d",
    "remedy": "b > c"
  },
  {
    "check": "e",
    "status": "ok",
    "detail": "f"
  }
]
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
