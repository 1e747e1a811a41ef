package decisionlog_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

// soon bounds what must not wait for a compression, which takes minutes in these tests.
const soon = 15 * time.Second

// names returns the names of the files in a directory, sorted.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// huge creates a rotated file that takes minutes to compress, and no room on the disk.
func huge(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "decisions-2026-01-01T00-00-00.000-size.jsonl")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	return path
}

// While a rotated file is compressed, the file is opened again and closed without
// delay. At the end the compression leaves nothing.
func TestNobodyWaitsForACompression(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rotated, path := huge(t, dir), filepath.Join(dir, "decisions.jsonl")
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1, Block: true})
	begun := time.Now()
	for i := range 3 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is written", func() bool { return l.metric(t, "written_total") == float64(i+1) })
		eventually(t, "a compression is under way", func() bool { return len(names(t, dir)) == 3 })
		l.Reopen()
	}
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > soon {
		t.Errorf("it took %v", took)
	}
	if got, want := names(t, dir), []string{filepath.Base(rotated), "decisions.jsonl"}; !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

// A process that was killed during a compression leaves a temporary file, or both files.
// The next one leaves one.
func TestACompressionThatWasKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	line := string(numbered(1).AppendJSON(nil))
	for name, text := range map[string]string{
		".decisions-2026-01-01T00-00-00.000-size.jsonl.gz.tmp": "\x1f\x8b half",
		"decisions-2026-01-01T00-00-00.000-size.jsonl":         line,
		"decisions-2026-01-02T00-00-00.000-size.jsonl":         line + line,
		"decisions-2026-01-02T00-00-00.000-size.jsonl.gz":      "\x1f\x8b half",
		"decisions-notes.jsonl":                                "an operator's",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := start(t, decisionlog.Config{File: filepath.Join(dir, "decisions.jsonl"), AllowedSample: 1})
	if err := l.Write(t.Context(), numbered(0)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"decisions-2026-01-01T00-00-00.000-size.jsonl.gz", "decisions-2026-01-02T00-00-00.000-size.jsonl.gz",
		"decisions-notes.jsonl", "decisions.jsonl",
	}
	eventually(t, "one of each is left", func() bool { return slices.Equal(names(t, dir), want) })
	l.close(t)
	for i, name := range want[:2] {
		if got := readFile(t, filepath.Join(dir, name)); len(got) != i+1 {
			t.Errorf("%s: %d records", name, len(got))
		}
	}
}

// A compression that fails is counted, and tried again after the next rotation, not
// with each write.
func TestACompressionThatFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := "decisions-2026-01-01T00-00-00.000-size.jsonl"
	if err := os.WriteFile(filepath.Join(dir, name), numbered(0).AppendJSON(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, name+".gz", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := start(t, decisionlog.Config{File: filepath.Join(dir, "decisions.jsonl"), AllowedSample: 1, Block: true, MaxBytes: 1 << 20, MaxFiles: 9})
	written := 0
	write := func() {
		t.Helper()
		if err := l.Write(t.Context(), numbered(written)); err != nil {
			t.Fatal(err)
		}
		written++
		eventually(t, "it is written", func() bool { return l.metric(t, "written_total") == float64(written) })
	}
	write()
	eventually(t, "the failure is counted", func() bool { return l.metric(t, "errors_total") == 1 })
	for range 5 {
		write()
		l.Reopen()
	}
	if got := l.metric(t, "errors_total"); got != 1 {
		t.Errorf("%v failures without a rotation", got)
	}
	for l.metric(t, "errors_total") == 1 && written < 20_000 {
		if err := l.Write(t.Context(), numbered(written)); err != nil {
			t.Fatal(err)
		}
		written++
	}
	eventually(t, "it is tried again", func() bool { return l.metric(t, "errors_total") > 1 })
	l.close(t)
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		t.Error(err)
	}
}

// A link to a file on another volume stays, and rotated files are beside its target.
func TestRotationStaysBesideTheTargetOfALink(t *testing.T) {
	t.Parallel()
	for name, text := range map[string][]byte{"there": numbered(0).AppendJSON(nil), "dangling": nil} {
		links, volume := t.TempDir(), t.TempDir()
		link, target := filepath.Join(links, "decisions.jsonl"), filepath.Join(volume, "real.jsonl")
		if text != nil {
			if err := os.WriteFile(target, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		l := start(t, decisionlog.Config{File: link, AllowedSample: 1, Block: true, MaxBytes: 1 << 20, MaxFiles: 9})
		for i := range 3000 {
			if err := l.Write(t.Context(), numbered(i)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "a file is compressed", func() bool {
			return slices.ContainsFunc(names(t, volume), func(name string) bool { return strings.HasSuffix(name, ".gz") })
		})
		l.close(t)
		if got := names(t, links); len(got) != 1 {
			t.Errorf("%s: files beside the link: %v", name, got)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// If the disk is full, nothing is printed beside the records of the logger.
func TestAFullDiskPrintsNothing(t *testing.T) {
	const child = "ELIGIBILITYD_TEST_FULL_DISK"
	dir := os.Getenv(child)
	if dir == "" {
		t.Parallel()
		dir = t.TempDir()
		random := make([]byte, 900<<10) // which gzip makes no smaller
		_, _ = rand.Read(random)        // never fails
		if err := os.WriteFile(filepath.Join(dir, "decisions-2026-01-01T00-00-00.000-size.jsonl"), random, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$") //nolint:gosec // this test
		cmd.Env = append(os.Environ(), child+"="+dir)
		var printed bytes.Buffer
		cmd.Stderr = &printed
		if out, err := cmd.Output(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if printed.Len() > 0 {
			t.Errorf("printed: %s", printed.Bytes())
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 512 << 10, Max: 512 << 10}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	l := start(t, decisionlog.Config{File: filepath.Join(dir, "decisions.jsonl"), AllowedSample: 1, MaxBytes: 1 << 20, MaxFiles: 9})
	for i := range 2000 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "writing fails again", func() bool { return l.metric(t, "errors_total") > 3 })
	l.abort(t)
	if got := l.metric(t, "written_total"); got == 0 {
		t.Error("nothing was written")
	}
}
