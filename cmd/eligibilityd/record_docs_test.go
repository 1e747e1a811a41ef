package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	page       = "../../docs/record.md"
	notReadyID = "a0000000-0000-4000-8000-000000000005"
)

// recordedDay writes decision logs of a shop's day into dir: one that was rotated, and
// the current one.
func recordedDay(t *testing.T, dir string) {
	t.Helper()
	policy := decisionlog.NewPolicy(eligibility.Policy{}, eligibility.DefaultAges())
	at := time.Date(2026, 11, 27, 14, 0, 0, 123456789, time.UTC)
	line := func(decision, customer, word string, after time.Duration) []byte {
		id, err := eligibility.ParseCustomerID(customer)
		if err != nil {
			t.Fatal(err)
		}
		evidence := &eligibility.Evidence{
			Facet: eligibility.FacetAccount, Status: eligibility.ParseAccountStatus(word), StatusText: word, FetchTime: at.Add(after - 20*time.Second).Truncate(time.Millisecond),
		}
		held := eligibility.Held{
			Evidence: evidence, Tier: eligibility.TierLocal, Fresh: true,
			Lifetime: policy.Ages.LifetimeOf(eligibility.Key{CustomerID: id, Facet: eligibility.FacetAccount}, evidence, policy.Values, eligibility.OperationPurchase, at),
		}
		r := decisionlog.Record{
			Time: at.Add(after), DecisionID: decision, RequestID: decision, Caller: "shop", Partner: "default", Via: "grpc", Policy: policy, Sampled: 1, Version: "v1.2.3",
			Question: decisionlog.Question{Customer: decisionlog.PlainCustomer(id)}, Basis: eligibility.Basis{Account: held, Time: at.Add(after)},
		}
		answer, err := eligibility.Decide(policy.Values, r.Question.Segment, r.Question.Operation, held, eligibility.Held{}, r.Time)
		if err != nil {
			t.Fatal(err)
		}
		r.Outcome = decisionlog.OutcomeAllowed
		if answer.Decision == eligibility.DecisionBlocked {
			r.Outcome = decisionlog.OutcomeBlocked
		}
		for _, reason := range answer.Reasons {
			r.Reasons = append(r.Reasons, reason.Code)
		}
		return r.AppendJSON(nil)
	}
	var rotated bytes.Buffer
	zipped := gzip.NewWriter(&rotated)
	for i := range 3 {
		if _, err := zipped.Write(line(fmt.Sprintf("order-%d", i), allowedID, "Allowed", time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	current := bytes.Join([][]byte{
		line("order-16", allowedID, "Allowed", time.Minute),
		line("order-17", underReviewID, "UnderReview", 2*time.Minute+3*time.Second),
		line("order-18", notReadyID, "Not Ready", 4*time.Minute),
		line("order-19", underReviewID, "Allowed", 3*time.Hour),
	}, nil)
	for name, text := range map[string][]byte{"decisions-2026-11-27T14-00-03.000-size.jsonl.gz": rotated.Bytes(), "decisions.jsonl": current} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The commands of docs/record.md find out why a customer was blocked, and try a rule.
// They run word for word.
func TestTheCommandsForTheRecordWork(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(program, filepath.Join(dir, "eligibilityd")); err != nil {
		t.Fatal(err)
	}
	recordedDay(t, dir)
	run := func(line string) (string, int) {
		cmd := exec.CommandContext(t.Context(), "bash", "-ec", line) //nolint:gosec // of one of our own documents
		cmd.Dir, cmd.Env = dir, append(os.Environ(), asProgram+"=1", "PATH="+dir+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	why := commandsOf(t, page, "Why was a customer blocked?")
	complete, tried := commandsOf(t, page, "Completeness"), commandsOf(t, page, "Try a rule on last month's traffic")
	if len(why) != 3 || len(complete) != 1 || len(tried) != 1 {
		t.Fatalf("%q, %q, %q", why, complete, tried)
	}
	for _, row := range []struct {
		line  string
		code  int
		wants []string
		not   string
	}{
		{why[0][0], 0, []string{"2026-11-27T14:02:03.123Z", "order-17", "shop", underReviewID, "COMMERCIAL", "ACCOUNT_UNDER_REVIEW", "UnderReview at 2026-11-27T14:01:43Z"}, "order-19"},
		{why[1][0], 0, []string{"order-17", "ACCOUNT_UNDER_REVIEW"}, "order-16"},
		{complete[0][0], 0, []string{"7", "records"}, "→"},
		{tried[0][0], exitDifferences, []string{"order-18", notReadyID, "→"}, "order-17"},
	} {
		out, code := run(row.line)
		for _, want := range row.wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %s:\n%s", row.line, want, out)
			}
		}
		if code != row.code || strings.Contains(out, row.not) {
			t.Errorf("%s: exit code %d\n%s", row.line, code, out)
		}
	}
}
