package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/unicode"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// runCommand runs a command line as a shell would.
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

func TestCheckExitCodeFollowsItsAnswers(t *testing.T) {
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
		{"no timeout", "", []string{"--timeout", "0", allowedID}, 2},
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

// If an ID is invalid for any reason, it gets its own line and does not affect
// the others.
func TestCheckReportsEachBadID(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	for name, row := range map[string]struct {
		bad    string
		reason string
	}{
		"no GUID":                {"nonsense", "INVALID_ARGUMENT"},
		"invalid UTF-8":          {"a0000000-\xff\xfe", "INVALID_ARGUMENT"},
		"a control character":    {"a\x00b", "INVALID_ARGUMENT"},
		"longer than any ID":     {strings.Repeat("é", 100_000), "INVALID_ARGUMENT"},
		"just too long":          {strings.Repeat("x", maxIDBytes+1), "INVALID_ARGUMENT"},
		"blanks without an end":  {strings.Repeat(" ", 5000) + "x", "INVALID_ARGUMENT"},
		"nobody":                 {nobodyID, "CUSTOMER_NOT_FOUND"},
		"as long as may be sent": {strings.Repeat("x", maxIDBytes), "INVALID_ARGUMENT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdin := strings.Repeat(allowedID+"\n", 150) + row.bad + "\n" + strings.Repeat(allowedID+"\n", 150)
			code, out, errOut := runCommand(t, stdin, "check", "--json", "--address", p.GRPC, "-")
			if code != exitUndecided || errOut != "" {
				t.Errorf("exit code %d, %s", code, errOut)
			}
			if n := strings.Count(out, "DECISION_ALLOWED"); n != 300 {
				t.Errorf("%d of 300 customers decided", n)
			}
			lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			if len(lines) != 301 || !strings.Contains(lines[150], row.reason) || len(lines[150]) > 3*maxIDBytes {
				t.Errorf("%d lines, line 150: %.200s", len(lines), lines[150])
			}
		})
	}
}

// Lists come from editors and shells of all kinds.
func TestCheckReadsListsOfAllEditors(t *testing.T) {
	t.Parallel()
	utf16 := func(order unicode.Endianness) string {
		text, err := unicode.UTF16(order, unicode.UseBOM).NewEncoder().String(allowedID + "\r\n" + underReviewID + "\r\n")
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, list := range map[string]string{
		"byte order mark":        "\ufeff" + allowedID + "\n" + underReviewID,
		"lists that were joined": allowedID + "\n\ufeff" + underReviewID + "\n",
		"mark and blanks":        " \ufeff " + allowedID + "\u00a0\r\n\t" + underReviewID + "\r\n\r\n",
		"UTF-16, little end":     utf16(unicode.LittleEndian),
		"UTF-16, big end":        utf16(unicode.BigEndian),
	} {
		ids, err := customerIDs([]string{"-"}, strings.NewReader(list))
		if diff := cmp.Diff([]string{allowedID, underReviewID}, ids); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	if _, err := customerIDs([]string{"-"}, strings.NewReader(strings.Repeat("x\n", maxIDs+1))); err == nil {
		t.Error("a list of any length is taken")
	}
}

func FuzzCustomerIDs(f *testing.F) {
	f.Add([]byte(allowedID + "\n"))
	f.Add([]byte("\xff\xfea\x00\n\x00"))
	f.Add(bytes.Repeat([]byte("x"), 3000))
	f.Fuzz(func(t *testing.T, list []byte) {
		ids, err := customerIDs([]string{"-"}, bytes.NewReader(list))
		if err != nil {
			return
		}
		for _, id := range ids {
			if id == "" || len(id) > 2*maxIDBytes || len(shownID(id)) > maxIDBytes || unsendable(id) == "" && !utf8.ValidString(id) {
				t.Errorf("ID %q", id)
			}
		}
	})
}

// If a call fails, only its own customers are affected. If there is no service,
// every customer still gets a line.
func TestCheckContinuesAfterAFailedCall(t *testing.T) {
	t.Parallel()
	calls := 0
	address := serveBatches(t, func() error {
		calls++
		if calls == 1 {
			return status.Error(codes.ResourceExhausted, "too busy")
		}
		return nil
	})
	code, out, errOut := runCommand(t, strings.Repeat(allowedID+"\n", 250), "check", "--json", "--address", address, "-")
	if code != exitUndecided || !strings.Contains(errOut, "100 of 250") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if allowed, all := strings.Count(out, "DECISION_ALLOWED"), strings.Count(out, "\n"); allowed != 150 || all != 250 {
		t.Errorf("%d of %d lines allow, want 150 of 250", allowed, all)
	}
	code, out, errOut = runCommand(t, strings.Repeat(allowedID+"\n", 250), "check", "--json", "--address", "127.0.0.1:1", "-")
	if all := strings.Count(out, "\n"); code != exitUndecided || all != 250 || !strings.Contains(errOut, "250 of 250") {
		t.Errorf("exit code %d, %d lines, %s", code, all, errOut)
	}
}

// batchServer allows every customer of a batch unless fault returns an error.
type batchServer struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	fault  func() error
	answer func(id string) *eligibilityv1.BatchCheckEligibilityResult // nil allows
	asked  func(*eligibilityv1.CheckEligibilityRequest)               // may be nil
}

func dialCheck(t *testing.T, address string) eligibilityv1.EligibilityServiceClient { //nolint:ireturn // generated
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return eligibilityv1.NewEligibilityServiceClient(conn)
}

func serveBatches(t *testing.T, fault func() error) (address string) {
	t.Helper()
	return serveBatchesOf(t, batchServer{fault: fault})
}

func serveBatchesOf(t *testing.T, batches batchServer) (address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	eligibilityv1.RegisterEligibilityServiceServer(server, batches)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func (s batchServer) BatchCheckEligibility(_ context.Context, req *eligibilityv1.BatchCheckEligibilityRequest) (*eligibilityv1.BatchCheckEligibilityResponse, error) {
	if err := s.fault(); err != nil {
		return nil, err
	}
	resp := new(eligibilityv1.BatchCheckEligibilityResponse)
	for _, question := range req.GetRequests() {
		if s.asked != nil {
			s.asked(question)
		}
		if s.answer != nil {
			resp.Results = append(resp.Results, s.answer(question.GetCustomerId()))
			continue
		}
		resp.Results = append(resp.Results, &eligibilityv1.BatchCheckEligibilityResult{Result: &eligibilityv1.BatchCheckEligibilityResult_Response{
			Response: &eligibilityv1.CheckEligibilityResponse{Decision: eligibilityv1.Decision_DECISION_ALLOWED},
		}})
	}
	return resp, nil
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

func TestVersionPrintsVersionAndCommit(t *testing.T) {
	t.Parallel()
	code, out, _ := runCommand(t, "", "version")
	if code != 0 || !strings.Contains(out, "eligibilityd ") || !strings.Contains(out, "commit ") || !strings.Contains(out, "go1.") {
		t.Errorf("exit code %d, %q", code, out)
	}
}
