//go:build acceptance

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

const (
	unitFile = "../../deploy/systemd/eligibilityd.service"
	// maxExposure bounds what systemd-analyze security finds, of 10.
	maxExposure = 2.0
)

// unitSettings returns the values of a setting of the unit.
func unitSettings(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(strings.TrimSpace(line), name+"="); found {
			values = append(values, value)
		}
	}
	return values
}

func TestAcceptanceDeployUnitIsValidAndConfined(t *testing.T) {
	root := t.TempDir()
	put := func(path, text string, mode os.FileMode) string {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as on a machine
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil { //nolint:gosec // of this test
			t.Fatal(err)
		}
		return path
	}
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	// verify looks for the program at its place.
	program := put("usr/local/bin/eligibilityd", "#!/bin/sh\n", 0o755)
	here := strings.ReplaceAll(string(text), "/usr/local/bin/eligibilityd", program)
	unit := put("eligibilityd.service", here, 0o644)
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || strings.Contains(string(out), unit) || strings.Contains(string(out), "eligibilityd") { //nolint:gosec // of this test
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	broken := put("broken.service", strings.Replace(here, "ProtectHome=yes", "ProtectHom=yes", 1), 0o644)
	if out, _ := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", broken).CombinedOutput(); !strings.Contains(string(out), "ProtectHom") { //nolint:gosec // of this test
		t.Errorf("systemd-analyze verify misses an unknown setting: %s", out)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", unit).CombinedOutput() //nolint:gosec // of this test
	if err != nil {
		t.Fatalf("systemd-analyze security: %v\n%s", err, out)
	}
	level := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if level == nil {
		t.Fatalf("no level: %s", out)
	}
	if exposure, err := strconv.ParseFloat(string(level[1]), 64); err != nil || exposure > maxExposure {
		t.Errorf("exposure %s, %v\n%s", level[1], err, out)
	}
	t.Logf("%s", level[0])
}

// The unit grants the time that a shutdown takes, and its arguments and variables exist.
func TestAcceptanceDeployUnitFitsTheProgram(t *testing.T) {
	byDefault := config.Default().Server
	want := byDefault.Drain + byDefault.ShutdownTimeout + 5*time.Second
	if got := unitSettings(t, "TimeoutStopSec"); len(got) != 1 || got[0] != want.String() {
		t.Errorf("TimeoutStopSec is %q, not %v", got, want)
	}
	credentials := t.TempDir()
	var environ []string
	for _, variable := range unitSettings(t, "Environment") {
		environ = append(environ, strings.ReplaceAll(variable, "%d", credentials))
	}
	for _, loaded := range unitSettings(t, "LoadCredential") {
		name, _, _ := strings.Cut(loaded, ":")
		if err := os.WriteFile(filepath.Join(credentials, name), []byte("not-a-secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start := unitSettings(t, "ExecStart")
	if len(start) != 1 {
		t.Fatalf("ExecStart is %q", start)
	}
	args := strings.Fields(start[0])
	if args[len(args)-2] != "--config" || args[len(args)-1] != "/etc/eligibilityd/config.yaml" {
		t.Fatalf("ExecStart is %q", args)
	}
	example, err := os.ReadFile("../../deploy/config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	state := "/var/lib/" + unitSettings(t, "StateDirectory")[0] + "/refresh-token"
	if !strings.Contains(string(example), "refresh_token_file: "+state+"\n") {
		t.Errorf("the example does not keep its refresh token at %s", state)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	token := filepath.Join(credentials, "refresh-token")
	if err := os.WriteFile(token, []byte("not-a-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	filled := strings.NewReplacer("00000000-0000-0000-0000-000000000000", "70000000-0000-4000-8000-000000000001", state, token).Replace(string(example))
	if err := os.WriteFile(file, []byte(filled), 0o600); err != nil { //nolint:gosec // of this test
		t.Fatal(err)
	}
	args[len(args)-1] = file
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(args[1:], "--check-config")...) //nolint:gosec // this very program
	environ = append(environ, asProgram+"=1")
	cmd.Env = environ
	if out, err := cmd.Output(); err != nil || string(out) != "configuration ok\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
