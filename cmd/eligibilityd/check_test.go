package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// runCommand runs a command line as the shell does.
func runCommand(t *testing.T, stdin string, args ...string) (code int, out, errOut string) {
	t.Helper()
	root := newRootCommand()
	var stdout, stderr bytes.Buffer
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	code = run(context.Background(), root)
	return code, stdout.String(), stderr.String()
}

func TestCheckExitsAsItsAnswersSay(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	for _, row := range []struct {
		name  string
		stdin string
		args  []string
		want  int
	}{
		{"all allowed", "", []string{allowedID, allowedID}, 0},
		{"one blocked", "", []string{allowedID, underReviewID}, 3},
		{"one undecided", "", []string{allowedID, underReviewID, nobodyID}, 4},
		{"one malformed", "", []string{allowedID, "nonsense"}, 4},
		{"blocked for the segment only", "", []string{"--segment", "Education", allowedID}, 3},
		{"from standard input", " " + allowedID + "\n\n{" + strings.ToUpper(underReviewID) + "}\r\n", []string{"-"}, 3},
		{"empty standard input", "\n", []string{"-"}, 2},
		{"no argument", "", nil, 2},
		{"unknown segment", "", []string{"--segment", "military", allowedID}, 2},
		{"unknown flag", "", []string{"--fail-open", allowedID}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"check", "--address", p.GRPC}, row.args...)
			if code, out, errOut := runCommand(t, row.stdin, args...); code != row.want {
				t.Errorf("exit code %d, want %d\n%s%s", code, row.want, out, errOut)
			}
		})
	}
}

func TestCheckWithoutAServiceIsUndecided(t *testing.T) {
	t.Parallel()
	code, _, errOut := runCommand(t, "", "check", "--address", "127.0.0.1:1", allowedID)
	if code != exitUndecided || !strings.Contains(errOut, "127.0.0.1:1") {
		t.Errorf("exit code %d, %q", code, errOut)
	}
}

func TestCheckPrintsATableOrJSONLines(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	_, table, _ := runCommand(t, "", "check", "--address", p.GRPC, allowedID, underReviewID, nobodyID, "bad\x1b[2J")
	for _, want := range []string{"CUSTOMER", "allowed", "ACCOUNT_ALLOWED", "blocked", "ACCOUNT_UNDER_REVIEW", "undecided", "CUSTOMER_NOT_FOUND", "INVALID_ARGUMENT"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %s in the table:\n%s", want, table)
		}
	}
	if strings.Contains(table, "\x1b") {
		t.Error("an escape sequence reached the terminal")
	}

	_, lines, _ := runCommand(t, "", "check", "--json", "--address", p.GRPC, allowedID, nobodyID)
	rows := strings.Split(strings.TrimSpace(lines), "\n")
	if len(rows) != 2 {
		t.Fatalf("%d lines, want 2:\n%s", len(rows), lines)
	}
	var first, second struct {
		CustomerID string `json:"customerId"`
		Decision   string `json:"decision"`
		Error      struct{ Reason string }
	}
	for i, into := range []any{&first, &second} {
		if err := json.Unmarshal([]byte(rows[i]), into); err != nil {
			t.Fatalf("%v: %s", err, rows[i])
		}
	}
	if first.CustomerID != allowedID || first.Decision != "DECISION_ALLOWED" {
		t.Errorf("first line %s", rows[0])
	}
	if second.CustomerID != nobodyID || second.Decision != "" || second.Error.Reason != "CUSTOMER_NOT_FOUND" {
		t.Errorf("second line %s", rows[1])
	}
}

func TestCheckAsksAboutThousands(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	code, out, errOut := runCommand(t, strings.Repeat(allowedID+"\n", 2500), "check", "--json", "--address", p.GRPC, "-")
	if n := strings.Count(out, "DECISION_ALLOWED"); code != 0 || n != 2500 {
		t.Errorf("exit code %d, %d of 2500 allowed, %s", code, n, errOut)
	}
}

func TestVersionSaysWhatItIs(t *testing.T) {
	t.Parallel()
	code, out, _ := runCommand(t, "", "version")
	if code != 0 || !strings.Contains(out, "eligibilityd ") || !strings.Contains(out, "commit ") || !strings.Contains(out, "go1.") {
		t.Errorf("exit code %d, %q", code, out)
	}
}
