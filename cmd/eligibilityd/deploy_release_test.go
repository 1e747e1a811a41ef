package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// release runs scripts/release.sh with programs that only record how they were called,
// and with a chart that cannot be built. It returns the calls of make and the output.
func release(t *testing.T, version, target string) (calls []string, output string) {
	t.Helper()
	bin := t.TempDir()
	for name, script := range map[string]string{
		"make": `echo "$*" >>"$CALLS"; for argument; do case $argument in PROGRAM=* | IMAGE=*) : >"${argument#*=}" ;; esac; done`,
		"go":   `[ "$1" = tool ]`,
		"zip":  `cat >/dev/null`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "bash", "../../scripts/release.sh", version, target) //nolint:gosec // our own script
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "CALLS="+filepath.Join(bin, "calls"), "SOURCE_DATE_EPOCH=1790000000")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("it succeeds")
	}
	if _, err := os.Stat(filepath.Join(bin, "calls")); err == nil {
		calls = strings.Split(strings.TrimSpace(string(readFile(t, filepath.Join(bin, "calls")))), "\n")
	}
	return calls, string(out)
}

// filesBelow returns the paths below a directory.
func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, strings.TrimPrefix(path, dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A release that fails at its last step leaves an older one as it was, and nothing beside it.
func TestReleaseFailsAsAWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "release")
	if err := os.Mkdir(target, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"SHA256SUMS", "old"} {
		if err := os.WriteFile(filepath.Join(target, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := filesBelow(t, dir)
	calls, out := release(t, "1.2.3", target)
	if after := filesBelow(t, dir); !slices.Equal(after, before) || !strings.HasSuffix(out, "release: chart\n") {
		t.Errorf("%q became %q: %s", before, after, out)
	}
	if len(calls) != 7 {
		t.Fatalf("%q", calls)
	}
	for _, call := range calls {
		if !slices.Contains(strings.Fields(call), "VERSION=1.2.3") {
			t.Errorf("make %s: another version than the release's", call)
		}
	}
}

// A directory that holds something else is not replaced.
func TestReleaseReplacesOnlyReleases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{dir, dir + "/", file} {
		calls, out := release(t, "1.2.3", target)
		if len(calls) > 0 || !strings.Contains(out, "is not a release") {
			t.Errorf("%s: %q, %s", target, calls, out)
		}
	}
	if files := filesBelow(t, dir); !slices.Equal(files, []string{"", "/file"}) {
		t.Errorf("%q", files)
	}
}
