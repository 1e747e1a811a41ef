package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// makeToken runs the command and returns what it prints and the exit code.
func makeToken(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	root := newRootCommand()
	var stdout, stderr bytes.Buffer
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(append([]string{"token"}, args...))
	code = run(t.Context(), root)
	return stdout.String(), stderr.String(), code
}

func TestTokenPrintsATokenAndItsEntry(t *testing.T) {
	t.Parallel()
	out, entries, code := makeToken(t, "--caller", "pipeline", "--rights", "check,batch", "--days", "2")
	token := strings.TrimSuffix(out, "\n")
	if code != 0 || len(token) < 32 || strings.ContainsAny(token, " \n") {
		t.Fatalf("exit code %d, output %q", code, out)
	}
	if strings.Contains(entries, token) || strings.Count(entries, "\n") != 1 || !strings.Contains(entries, "rights: [check, batch]") {
		t.Errorf("the entry is %q", entries)
	}
	// Entries can be appended to one file.
	other, more, _ := makeToken(t, "--caller", "pipeline", "--rights", "check")
	if other == out {
		t.Error("the same token twice")
	}
	read, err := access.Tokens([]byte(entries+more), nil)
	if err != nil || len(read) != 2 {
		t.Fatalf("the file has %v (%v)", read, err)
	}
	for i, days := range []int{2, 90} {
		left := time.Until(read[i].NotAfter)
		if life := time.Duration(days) * 24 * time.Hour; left > life || left < life-time.Hour {
			t.Errorf("entry %d expires in %v", i+1, left)
		}
	}
}

func TestTokenRefusesWhatTheServiceWould(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"no caller":     {"--rights", "check"},
		"odd caller":    {"--caller", "a b", "--rights", "check"},
		"anonymous":     {"--caller", "anonymous", "--rights", "check"},
		"no rights":     {"--caller", "a"},
		"unknown right": {"--caller", "a", "--rights", "check,all"},
		"no days":       {"--caller", "a", "--rights", "check", "--days", "0"},
		"many days":     {"--caller", "a", "--rights", "check", "--days", "3651"},
		"an argument":   {"--caller", "a", "--rights", "check", "b"},
	} {
		if out, errOut, code := makeToken(t, args...); code != exitUsage || out != "" || !strings.Contains(errOut, "--help") {
			t.Errorf("%s: exit code %d, %q, %q", name, code, out, errOut)
		}
	}
}

// fullDisk is an output that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestATokenThatIsNotPrintedFails(t *testing.T) {
	t.Parallel()
	root := newRootCommand()
	var stderr bytes.Buffer
	root.SetOut(fullDisk{})
	root.SetErr(&stderr)
	root.SetArgs([]string{"token", "--caller", "a", "--rights", "check"})
	if code := run(t.Context(), root); code != exitFailure || strings.Contains(stderr.String(), "sha256") {
		t.Errorf("exit code %d, %q", code, stderr.String())
	}
}

// A file without tokens holds [], which an entry after it makes invalid.
func TestTheHelpOfTokenStatesWhatTheFirstEntryReplaces(t *testing.T) {
	t.Parallel()
	help, _, code := makeToken(t, "--help")
	if code != 0 || !strings.Contains(help, "The first entry replaces the [] of a file without tokens.") {
		t.Errorf("exit code %d, %s", code, help)
	}
	_, entry, _ := makeToken(t, "--caller", "a", "--rights", "check")
	if _, err := access.Tokens([]byte("[]\n"+entry), nil); err == nil {
		t.Error("an entry after [] is read")
	}
	if read, err := access.Tokens([]byte(entry), nil); err != nil || len(read) != 1 {
		t.Errorf("in its place: %v, %v", read, err)
	}
}
