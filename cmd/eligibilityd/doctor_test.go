package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/doctor"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// examined is what doctor said, by check.
type examined struct {
	t       *testing.T
	checks  map[string]doctor.Finding
	printed string
	failed  bool // by exit code
}

// consult runs doctor as JSON and checks what holds for every report.
func consult(t *testing.T, environ []string) examined {
	t.Helper()
	var out bytes.Buffer
	err := runDoctor(t.Context(), environ, doctorFlags{json: true}, &out)
	exit, isExit := errors.AsType[*exitError](err)
	if err != nil && (!isExit || exit.code != exitFailure || exit.err != nil) {
		t.Fatal(err)
	}
	var findings []doctor.Finding
	if err := json.Unmarshal(out.Bytes(), &findings); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	e := examined{t: t, checks: map[string]doctor.Finding{}, printed: out.String(), failed: err != nil}
	failures := false
	for _, f := range findings {
		if _, again := e.checks[f.Check]; !again {
			e.checks[f.Check] = f
		}
		failures = failures || f.Status == doctor.VerdictFailure
		if hasRemedy := f.Remedy != ""; hasRemedy != (f.Status == doctor.VerdictFailure || f.Status == doctor.VerdictWarning) || f.Detail == "" {
			t.Errorf("%+v", f)
		}
	}
	if failures != e.failed {
		t.Errorf("failures %v, exit code 1 %v", failures, e.failed)
	}
	if strings.Contains(e.printed, pcsim.DefaultClientSecret) || strings.Contains(e.printed, pcsim.DefaultRefreshToken) {
		t.Errorf("a secret is printed: %s", e.printed)
	}
	return e
}

// says fails the test unless a check came to that doctor.Verdict, in such words.
func (e examined) says(check string, status doctor.Verdict, words ...string) {
	e.t.Helper()
	got := e.checks[check]
	if got.Status != status {
		e.t.Errorf("%s: %+v, want %s", check, got, status)
	}
	for _, word := range words {
		if !strings.Contains(got.Detail+"; "+got.Remedy, word) {
			e.t.Errorf("%s: %+v, want %q in it; all: %s", check, got, word, e.printed)
		}
	}
}

// connection are the variables of a connection to a simulator.
func connection(simulator, tokenFile string, more ...string) []string {
	environ := more
	for _, entry := range anyPort() {
		name, value, _ := strings.Cut(entry, "=")
		environ = withDefault(environ, name, value)
	}
	for name, value := range map[string]string{
		"BASE_URL": simulator, "AUTHORITY": simulator, "TENANT_ID": pcsim.DefaultTenantID, "CLIENT_ID": pcsim.DefaultClientID,
		"CLIENT_SECRET": pcsim.DefaultClientSecret, "REFRESH_TOKEN_FILE": tokenFile,
	} {
		environ = withDefault(environ, "ELIGIBILITY_PARTNER_CENTER__"+name, value)
	}
	return environ
}

// tokenFile holds the simulator's refresh token.
func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "refresh-token")
	if err := os.WriteFile(path, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDoctorPrintsALineForEachCheck(t *testing.T) {
	t.Parallel()
	_, partnerCenter := simulator(t)
	var out bytes.Buffer
	if err := runDoctor(t.Context(), connection(partnerCenter.URL, tokenFile(t)), doctorFlags{}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 13 || !strings.HasPrefix(lines[5], "ok       token ") {
		t.Errorf("%d lines:\n%s", len(lines), out.String())
	}
}

func TestDoctorTakesACustomerThatIsAGUID(t *testing.T) {
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
