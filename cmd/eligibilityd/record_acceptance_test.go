//go:build acceptance

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func recordProofs() []proof {
	return []proof{
		{"Questions", "questions over gRPC and REST, single and in batches, by several callers, to two replicas, through every failure of the simulator, of Redis and of the login host", recordOfQuestions},
		{"Fifo", "the file is a FIFO without a reader", recordIntoAFifo},
		{"Hashed", "`customer_ids: hashed`", recordOfHashedCustomers},
		{"Explain", "`explain --at` for instants of a customer's day", recordExplained},
		{"Ends", "replicas are killed and stopped under load", recordWhenReplicasEnd},
		{"Rotation", "rotation by size and by logrotate under load", recordRotated},
		{"Speed", "`log` and `replay` over a large log", recordReadFast},
	}
}

// Each row runs the real program, and most of them a real Redis and the simulator. The
// figures go into the table of docs/record.md.
func TestAcceptanceRecord(t *testing.T) { //nolint:paralleltest // it measures
	prove(t, "record", recordProofs())
}

// decided is a line of a decision log, as a program reads it that shares no code with
// the service.
type decided struct {
	Schema     string    `json:"schema"`
	Time       time.Time `json:"time"`
	DecisionID string    `json:"decision_id"`
	Caller     string    `json:"caller"`
	Partner    string    `json:"partner"`
	Via        string    `json:"via"`
	RequestID  string    `json:"request_id"`
	Question   struct {
		CustomerID      string     `json:"customer_id"`
		Segment         string     `json:"segment"`
		Operation       string     `json:"operation"`
		MaxAge          *string    `json:"max_age"`
		MinEvidenceTime *time.Time `json:"min_evidence_time"`
	} `json:"question"`
	Evidence struct {
		Account        *decidedBy `json:"account"`
		Qualifications *decidedBy `json:"qualifications"`
	} `json:"evidence"`
	Outcome string   `json:"outcome"`
	Reasons []string `json:"reasons"`
	Reason  string   `json:"reason"`
	Stale   bool     `json:"stale"`
	Sampled float64  `json:"sampled"`
	Dropped int64    `json:"dropped"`
}

// decidedBy is the evidence of one facet in a record.
type decidedBy struct {
	Word      string    `json:"word"`
	NoStatus  bool      `json:"no_status"`
	Absence   string    `json:"absence"`
	FetchedAt time.Time `json:"fetched_at"`
	Tier      string    `json:"tier"`
}

// logFiles returns the decision log at path and what was rotated from it, gzipped or
// not.
func logFiles(t *testing.T, path string) []string {
	t.Helper()
	stem := strings.TrimSuffix(path, filepath.Ext(path))
	files, err := filepath.Glob(stem + "*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no decision log at %s: %v", path, err)
	}
	slices.Sort(files)
	return files
}

// eachRecord calls see for each record of the files. It fails the test for a line that is
// no record, and for a last line without an end.
func eachRecord(t *testing.T, files []string, see func(record *decided)) {
	t.Helper()
	for _, file := range files {
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		var text io.Reader = in
		if strings.HasSuffix(file, ".gz") {
			if text, err = gzip.NewReader(in); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		readRecords(t, file, text, see)
		_ = in.Close()
	}
}

func readRecords(t *testing.T, name string, from io.Reader, see func(record *decided)) {
	t.Helper()
	if err := decodeRecords(from, see); err != nil {
		t.Fatalf("%s:%v", name, err)
	}
}

// decodeRecords reads lines until the end, and fails at the first that is no record.
func decodeRecords(from io.Reader, see func(record *decided)) error {
	lines := bufio.NewReaderSize(from, 1<<20)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		record := new(decided)
		if err == nil {
			err = json.Unmarshal(line, record)
		}
		if err == nil && record.Schema != "eligibilityd.decision.v1" {
			err = errors.New("another schema")
		}
		if err != nil {
			return fmt.Errorf("%d: %w: %.200q", number, err, line)
		}
		see(record)
	}
}

// runProgram runs a command of the real program to its end.
func runProgram(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the test's own binary
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return out.String(), log.String(), cmd.ProcessState.ExitCode()
}

// loadAverage is the load of the machine in the last minute, for a table.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	average, _, _ := strings.Cut(string(text), " ")
	return fmt.Sprintf("load average %s", average)
}
