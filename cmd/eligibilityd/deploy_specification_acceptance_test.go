//go:build acceptance

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// deployTool builds a program of tools/deploy and returns a function that runs it.
func deployTool(t *testing.T, name string) func(args ...string) (string, error) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), name)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".") //nolint:gosec // our own arguments
	build.Dir = "../../tools/deploy/" + name
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return func(args ...string) (string, error) {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), binary, args...) //nolint:gosec // our own program
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		return string(out) + stderr.String(), err
	}
}

// Compose's own library reads compose.yaml as the tests do, and finds no fault with it.
func TestAcceptanceDeployComposeFollowsTheSpecification(t *testing.T) {
	t.Parallel()
	compose := deployTool(t, "compose")
	out, err := compose(composeDir + "compose.yaml")
	if err != nil {
		t.Fatal(out)
	}
	var project struct {
		Services map[string]struct {
			Command []string
			Image   string
		}
		Networks map[string]any
	}
	if err := json.Unmarshal([]byte(out), &project); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := readCompose(t)
	for name, service := range file.Services {
		if got := project.Services[name]; strings.Join(got.Command, "\x00") != strings.Join(service.Command, "\x00") || got.Image != service.Image {
			t.Errorf("%s: Compose reads %q of %s, the tests read %q of %s", name, got.Command, got.Image, service.Command, service.Image)
		}
	}
	if len(project.Services) != len(file.Services) || len(project.Networks) != len(file.Networks) {
		t.Errorf("%d services and %d networks", len(project.Services), len(project.Networks))
	}
	// The library is worth something.
	text := string(readFile(t, composeDir+"compose.yaml"))
	for _, broken := range [][2]string{
		{"read_only: true", "read_olny: true"},
		{"networks: [callers, cache, metrics]", "networks: [callers, cash, metrics]"},
		{"secrets: [redis-password, integrity-key]", "secrets: [redis-password, integrity]"},
		{"source: rules", "source: rule"},
		{"pids: 200", "pids: many"},
	} {
		path := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(path, []byte(strings.Replace(text, broken[0], broken[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := compose(path); err == nil {
			t.Errorf("%s is accepted:\n%s", broken[1], out)
		}
	}
}
