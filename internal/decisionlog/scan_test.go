package decisionlog_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

var errRejected = errors.New("rejected")

// scanned is what a scan has found: the accepted lines, and the faults.
type scanned struct{ lines, faults []string }

// scanAll scans and rejects lines with an x.
func scanAll(t *testing.T, s *decisionlog.Scanner) scanned {
	t.Helper()
	var all scanned
	err := decisionlog.Scan(t.Context(), s, func(lines *[]string, line []byte) error {
		if bytes.IndexByte(line, 'x') >= 0 {
			return errRejected
		}
		*lines = append(*lines, string(line))
		return nil
	}, func(lines *[]string, faults []decisionlog.LineError) error {
		all.lines = append(all.lines, *lines...)
		for _, fault := range faults {
			all.faults = append(all.faults, fault.Error())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestScanReadsWhatFilesHold(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", decisionlog.MaxLine-1)
	archive := gzipped(t, strings.Repeat("line\n", 100)+"end\n")
	var hundred []string
	for range 100 {
		hundred = append(hundred, "line")
	}
	for name, test := range map[string]struct {
		content string
		want    scanned
	}{
		"empty":                    {"", scanned{}},
		"blank lines":              {"a\n\n \r\nb\r\n", scanned{lines: []string{"a", "b"}}},
		"no end":                   {"a\nb", scanned{lines: []string{"a", "b"}}},
		"rejected":                 {"a\nx\nb\n", scanned{[]string{"a", "b"}, []string{"FILE:2: rejected"}}},
		"being written":            {"a\nx", scanned{[]string{"a"}, []string{"FILE:2: the last line is not complete"}}},
		"NUL":                      {"a\n\x00\x00x\nb\n", scanned{[]string{"a", "b"}, []string{"FILE:2: rejected"}}},
		"longest line":             {"a\n" + long + "\nb\n", scanned{lines: []string{"a", long, "b"}}},
		"too long":                 {"a\n" + long + "a\nb\n", scanned{[]string{"a", "b"}, []string{"FILE:2: decision log: the line is too long"}}},
		"far too long":             {"a\n" + strings.Repeat(long, 9) + "\nb\nx\n", scanned{[]string{"a", "b"}, []string{"FILE:2: decision log: the line is too long", "FILE:4: rejected"}}},
		"far too long, no end":     {"a\n" + strings.Repeat(long, 9), scanned{[]string{"a"}, []string{"FILE:2: decision log: the line is too long"}}},
		"gzip":                     {archive, scanned{lines: append(slices.Clone(hundred), "end")}},
		"gzip, concatenated":       {gzipped(t, "a\n") + gzipped(t, "b\n"), scanned{lines: []string{"a", "b"}}},
		"gzip, no end":             {gzipped(t, "a\nx"), scanned{[]string{"a"}, []string{"FILE:2: rejected"}}},
		"gzip, truncated":          {archive[:len(archive)-4], scanned{append(slices.Clone(hundred), "end"), []string{"FILE:102: the rest of the file cannot be read: unexpected EOF"}}},
		"gzip, header only":        {archive[:5], scanned{faults: []string{"FILE: unexpected EOF"}}},
		"gzip, garbage behind":     {gzipped(t, "a\n") + "garbage, longer than a header", scanned{[]string{"a"}, []string{"FILE:2: the rest of the file cannot be read: gzip: invalid header"}}},
		"gzip, damaged in its sum": {archive[:len(archive)-6] + "??" + archive[len(archive)-4:], scanned{append(slices.Clone(hundred), "end"), []string{"FILE:102: the rest of the file cannot be read: gzip: invalid checksum"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "decisions.jsonl")
			if err := os.WriteFile(file, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			for name, s := range map[string]*decisionlog.Scanner{
				file: {Files: []string{file}},
				"-":  {Files: []string{"-"}, Stdin: iotest.HalfReader(strings.NewReader(test.content))},
			} {
				got := scanAll(t, s)
				for i, fault := range got.faults {
					got.faults[i] = strings.Replace(fault, name+":", "FILE:", 1)
				}
				if !slices.Equal(got.lines, test.want.lines) || !slices.Equal(got.faults, test.want.faults) {
					t.Errorf("%s: %d lines, %q; want %d, %q", name, len(got.lines), got.faults, len(test.want.lines), test.want.faults)
				}
				if s.Read() != int64(len(test.content)) {
					t.Errorf("%s: read %d of %d bytes", name, s.Read(), len(test.content))
				}
			}
		})
	}
}

// The files are read in the order given, however many blocks they have; one that
// cannot be read keeps nothing of the others out.
func TestScanKeepsTheOrderOfFilesAndLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files, want []string
	for i := range 5 {
		var b strings.Builder
		for j := range 40_000 {
			line := fmt.Sprintf("%d/%d %s", i, j, strings.Repeat(".", 80))
			b.WriteString(line + "\n")
			want = append(want, line)
		}
		content, name := b.String(), filepath.Join(dir, fmt.Sprint(i))
		if i%2 == 1 {
			content, name = gzipped(t, content), name+".gz"
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, name, filepath.Join(dir, "missing"))
	}
	got := scanAll(t, &decisionlog.Scanner{Files: append(files, dir)})
	if !slices.Equal(got.lines, want) {
		t.Errorf("%d lines, not the %d in their order", len(got.lines), len(want))
	}
	if len(got.faults) != 6 || !strings.Contains(got.faults[0], "no such file") || !strings.Contains(got.faults[5], "is a directory") {
		t.Errorf("faults %q", got.faults)
	}
}

// However long a file is, no more than a few blocks of it are in memory, also if
// nothing takes the results for a time.
func TestScanIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const line = "a line that is repeated very often, to fill many blocks\n"
		const size = 2 << 20 * int64(len(line))
		s := &decisionlog.Scanner{Files: []string{"-"}, Stdin: io.LimitReader(repeated(line), size)}
		blocks, lines := 0, 0
		err := decisionlog.Scan(t.Context(), s, func(lines *int, _ []byte) error { *lines++; return nil }, func(more *int, _ []decisionlog.LineError) error {
			lines += *more
			blocks++
			if blocks%10 == 1 {
				synctest.Wait() // until all is read that will be
				if ahead := s.Read() - int64(lines*len(line)); ahead > 36<<20 {
					t.Errorf("%d bytes were read ahead", ahead)
				}
			}
			return nil
		})
		if err != nil || s.Read() != size || lines != 2<<20 {
			t.Errorf("read %d bytes, %d lines: %v", s.Read(), lines, err)
		}
	})
}

// repeated is a line without end.
type repeated string

func (r repeated) Read(p []byte) (int, error) {
	n := 0
	for len(p)-n >= len(r) {
		n += copy(p[n:], r)
	}
	return n, nil
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// A scan ends when its context does, or done fails, also in the middle of a file.
func TestScanEndsEarly(t *testing.T) {
	t.Parallel()
	each := func(*struct{}, []byte) error { return nil }
	ctx, cancel := context.WithCancelCause(t.Context())
	errOver := errors.New("over")
	for name, done := range map[string]func(*struct{}, []decisionlog.LineError) error{
		"done fails":   func(*struct{}, []decisionlog.LineError) error { return errOver },
		"context ends": func(*struct{}, []decisionlog.LineError) error { cancel(errOver); return nil },
	} {
		ctx := ctx
		if name == "done fails" {
			ctx = t.Context()
		}
		s := &decisionlog.Scanner{Files: []string{"-"}, Stdin: repeated("line\n")}
		if err := decisionlog.Scan(ctx, s, each, done); !errors.Is(err, errOver) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever the contents and the sizes in which they arrive, each line is examined
// once, and a fault has the number of its line.
func FuzzScan(f *testing.F) {
	f.Add([]byte("a\nb\nx\n\n c"), uint16(3))
	f.Add([]byte("x"), uint16(1))
	f.Add([]byte("\x1f\x8b\n"), uint16(1))
	f.Add([]byte(gzippedSeed), uint16(7))
	f.Fuzz(func(t *testing.T, content []byte, chunk uint16) {
		got := scanAll(t, &decisionlog.Scanner{Files: []string{"-"}, Stdin: &chunked{content, int(chunk)%1000 + 1}})
		if bytes.HasPrefix(content, []byte("\x1f\x8b")) {
			return
		}
		var want scanned
		lines := strings.Split(string(content), "\n")
		for i, line := range lines {
			switch line = strings.TrimSpace(line); {
			case line == "":
			case !strings.Contains(line, "x"):
				want.lines = append(want.lines, line)
			case i == len(lines)-1:
				want.faults = append(want.faults, fmt.Sprintf("-:%d: %v", i+1, decisionlog.ErrUnfinished))
			default:
				want.faults = append(want.faults, fmt.Sprintf("-:%d: %v", i+1, errRejected))
			}
		}
		if !slices.Equal(got.lines, want.lines) || !slices.Equal(got.faults, want.faults) {
			t.Errorf("%q: %q; want %q", content, got, want)
		}
	})
}

// gzippedSeed is "a\nx\n".
const gzippedSeed = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xffJ\xe4\xaa\xe0\x02\x04\x00\x00\xff\xff\x9d\xa8\xb4\x1a\x04\x00\x00\x00"

// chunked reads content in chunks of a size.
type chunked struct {
	content []byte
	size    int
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.content) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.content[:min(c.size, len(c.content))])
	c.content = c.content[n:]
	return n, nil
}

// Records that are in two files are read once.
func TestOneOfEach(t *testing.T) {
	t.Parallel()
	kept, leftOut := decisionlog.OneOfEach([]string{"a/x.jsonl", "a/./x.jsonl.gz", "b/x.jsonl", "b/.x.jsonl.gz.tmp", "y.jsonl.gz", "-"})
	if want := []string{"a/./x.jsonl.gz", "b/x.jsonl", "y.jsonl.gz", "-"}; !slices.Equal(kept, want) {
		t.Errorf("kept %q, want %q", kept, want)
	}
	if want := []string{"a/x.jsonl", "b/.x.jsonl.gz.tmp"}; !slices.Equal(leftOut, want) {
		t.Errorf("left out %q, want %q", leftOut, want)
	}
}
