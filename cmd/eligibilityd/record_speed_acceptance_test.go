//go:build acceptance

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// recordReadFast measures how long the program takes for 1 GB of decision log.
func recordReadFast(t *testing.T) string { //nolint:thelper // a test of its own
	const size, bound = 1_000_000_000, 10 * time.Second
	far, dir := simulateApart(t), t.TempDir()
	path := filepath.Join(dir, "decisions.jsonl")
	p := logged(t, far, path)
	ids := changingIDs('1', 90)
	c := newAskers(t, nil, p)
	for i, id := range ids {
		far.put(t, flipping(id, accountWords[i%len(accountWords)], 0))
		req := about(id)
		req.Segment = eligibilityv1.Segment(i % 5)
		c.ask(t.Context(), 0, "anonymous", "grpc", false, req)
	}
	eventually(t, "the records", func() bool { return len(recordedIn(t, path)) == len(ids) })
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "month.jsonl")
	file, err := os.Create(large)
	if err != nil {
		t.Fatal(err)
	}
	out, written, records := bufio.NewWriterSize(file, 1<<20), 0, 0
	sought := coldID('6', 77)
	for n := 0; written < size; n++ {
		block := bytes.ReplaceAll(text, []byte("10000000-0000-4000-9000"), fmt.Appendf(nil, "1000%04x-0000-4000-9000", n%65536))
		if n == 5000 {
			block = bytes.ReplaceAll(block, []byte(fmt.Sprintf("1000%04x-0000-4000-9000-%012x", n, 17)), []byte(sought))
		}
		wrote, err := out.Write(block)
		if err != nil {
			t.Fatal(err)
		}
		written, records = written+wrote, records+len(ids)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	took := func(want, code int, args ...string) time.Duration {
		best := time.Duration(0)
		for range 3 { // other work on the machine
			began := time.Now()
			printed, log, exit := runProgram(t, args...)
			if lines := strings.Count(printed, "\n"); exit != code || want >= 0 && lines != want {
				t.Fatalf("%v: exit code %d, %d lines, want %d\n%.1000s", args, exit, lines, want, log)
			}
			if d := time.Since(began); best == 0 || d < best {
				best = d
			}
		}
		return best
	}
	one := took(1, 0, "log", large, "--customer", sought, "--json")
	none := took(0, exitNotFound, "log", large, "--outcome", "error", "--json")
	replayed := took(-1, 0, "replay", large)
	if one > bound {
		t.Errorf("log takes %v", one)
	}
	return fmt.Sprintf("%.2f GB, %d records, %d cores: `log --customer` %.1f s, `log --outcome` %.1f s, `replay` %.1f s (best of three, %s)",
		float64(written)/1e9, records, runtime.NumCPU(), one.Seconds(), none.Seconds(), replayed.Seconds(), loadAverage())
}
