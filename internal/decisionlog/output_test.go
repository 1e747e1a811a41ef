package decisionlog_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

// A disk that is full affects nobody, and what is lost at the end is counted.
func TestAFullDiskAffectsNobody(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has /dev/full")
	}
	l := start(t, decisionlog.Config{File: "/dev/full", AllowedSample: 1})
	for i := range 100 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a write fails", func() bool { return l.metric(t, "errors_total") > 0 })
	l.abort(t)
	eventually(t, "all are counted", func() bool { return l.metric(t, "dropped_total") == 100 })
}

// A directory that is missing, or vanishes, is no error of callers. Once it is there,
// what was kept is written.
func TestADirectoryThatVanishes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mount")
	path := filepath.Join(dir, "decisions.jsonl")
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
	write := func(n int) {
		t.Helper()
		if err := l.Write(t.Context(), numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
	for round := range 2 {
		failures := l.metric(t, "errors_total")
		write(2 * round)
		eventually(t, "opening fails", func() bool { return l.metric(t, "errors_total") > failures })
		if _, err := os.Stat(dir); err == nil {
			t.Fatal("the directory was created")
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		write(2*round + 1)
		eventually(t, "all is written", func() bool { return l.metric(t, "written_total") == float64(2*round+2) })
		if got := readFile(t, path); len(got) != 2 {
			t.Errorf("round %d: %d records", round, len(got))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	l.Reopen() // without a file
	l.close(t)
}

// Files that are full are rotated and gzipped, and the oldest are removed.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const records = 5000
	for name, c := range map[string]struct{ keep, files int }{"all": {30, 0}, "few": {2, 3}} {
		sub := filepath.Join(dir, name)
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(sub, "decisions.jsonl")
		l := start(t, decisionlog.Config{File: path, AllowedSample: 1, Block: true, MaxBytes: 1 << 20, MaxFiles: c.keep})
		for i := range records {
			if err := l.Write(t.Context(), numbered(i)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "all are compressed", func() bool {
			isWritten := l.metric(t, "written_total") == records
			plain, err := filepath.Glob(filepath.Join(sub, "decisions-*.jsonl"))
			return isWritten && err == nil && len(plain) == 0
		})
		l.close(t)
		files, err := filepath.Glob(filepath.Join(sub, "*"))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files) // the current one is the last
		var all []decisionlog.Record
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil || info.Mode() != 0o600 || info.Size() > 1<<20 {
				t.Errorf("%s: %v", file, info)
			}
			if file != path && !strings.HasSuffix(file, ".jsonl.gz") {
				t.Errorf("%s is not gzipped", file)
			}
			all = append(all, readFile(t, file)...)
		}
		if c.files > 0 && len(files) != c.files || c.files == 0 && len(all) != records {
			t.Errorf("%s: %d files with %d records: %v", name, len(files), len(all), files)
		}
		for i, r := range all {
			if want := strconv.Itoa(records - len(all) + i); r.DecisionID != want {
				t.Fatalf("%s: record %s, want %s", name, r.DecisionID, want)
			}
		}
	}
}

// logrotate renames the file and sends a signal.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
	for i := range 3 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is written", func() bool { return l.metric(t, "written_total") == float64(i+1) })
		if err := os.Rename(path, path+strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil { // as logrotate's create does
			t.Fatal(err)
		}
		l.Reopen()
		eventually(t, "the signal was taken", func() bool { return l.Reopened() })
	}
	l.close(t)
	for i := range 3 {
		if got := readFile(t, path+strconv.Itoa(i)); len(got) != 1 || got[0].DecisionID != strconv.Itoa(i) {
			t.Errorf("file %d: %+v", i, got)
		}
	}
}

// A process that is killed while it writes leaves a line without an end, which the
// next one cuts off. It touches nothing that is none of its lines.
func TestALineWithoutAnEndIsCutOff(t *testing.T) {
	t.Parallel()
	whole := numbered(1).AppendJSON(nil)
	for name, c := range map[string]struct {
		tail    string
		foreign bool
	}{
		"none":         {},
		"half":         {tail: string(whole[:len(whole)/2])},
		"all but one":  {tail: string(whole[:len(whole)-1])},
		"one byte":     {tail: "{"},
		"zeros":        {tail: strings.Repeat("\x00", 4096)},
		"half, zeros":  {tail: string(whole[:300]) + strings.Repeat("\x00", 4096)},
		"foreign":      {tail: "secret: value", foreign: true},
		"foreign JSON": {tail: `{"schema":"eligibilityd.decision.v2"`, foreign: true},
		"many zeros":   {tail: strings.Repeat("\x00", 3*decisionlog.MaxLine)},
	} {
		for _, before := range []string{"", string(whole)} {
			path := filepath.Join(t.TempDir(), "decisions.jsonl")
			if err := os.WriteFile(path, []byte(before+c.tail), 0o600); err != nil {
				t.Fatal(err)
			}
			l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
			if err := l.Write(t.Context(), numbered(2)); err != nil {
				t.Fatal(err)
			}
			if c.foreign {
				eventually(t, "it is refused", func() bool { return l.metric(t, "errors_total") > 0 })
				l.abort(t)
				if text, err := os.ReadFile(path); err != nil || string(text) != before+c.tail {
					t.Errorf("%s: a foreign file was changed", name)
				}
				continue
			}
			l.close(t)
			got := readFile(t, path)
			if want := 1 + strings.Count(before, "\n"); len(got) != want || got[want-1].DecisionID != "2" {
				t.Errorf("%s: %+v", name, got)
			}
		}
	}
}

// A line that is longer than any of ours is kept and gets an end, if the file is ours.
func TestALongLineWithoutAnEnd(t *testing.T) {
	t.Parallel()
	whole := string(numbered(1).AppendJSON(nil))
	for name, c := range map[string]struct {
		text    string
		foreign bool
	}{
		"ours":              {text: whole + strings.Repeat("x", 3*decisionlog.MaxLine)},
		"foreign":           {text: "notes\n" + strings.Repeat("x", 3*decisionlog.MaxLine), foreign: true},
		"foreign before":    {text: "notes\n" + whole[:200], foreign: true},
		"foreign, one byte": {text: "[\n{", foreign: true},
	} {
		path := filepath.Join(t.TempDir(), "decisions.jsonl")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
		if err := l.Write(t.Context(), numbered(2)); err != nil {
			t.Fatal(err)
		}
		want := c.text + "\n" + string(numbered(2).AppendJSON(nil))
		if c.foreign {
			want = c.text
			eventually(t, "it is refused", func() bool { return l.metric(t, "errors_total") > 0 })
			l.abort(t)
		} else {
			l.close(t)
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), want[:len(c.text)]) || (string(text) == c.text) != c.foreign || !c.foreign && strings.Count(string(text), "\n") != 3 {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
}

// A record that comes when the log is closed is counted as lost.
func TestARecordAfterTheEndIsCounted(t *testing.T) {
	t.Parallel()
	for _, block := range []bool{false, true} {
		l := start(t, decisionlog.Config{File: filepath.Join(t.TempDir(), "decisions.jsonl"), AllowedSample: 1, Block: block})
		l.close(t)
		if err := l.Write(t.Context(), numbered(1)); (err != nil) != block {
			t.Errorf("block %v: %v", block, err)
		}
		if got := l.metric(t, "dropped_total"); got != 1 || l.metric(t, "queue_records") != 0 {
			t.Errorf("block %v: %v dropped", block, got)
		}
	}
}
