package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// logKey is the key of hashed customer IDs in these tests.
const logKey = "a key of at least thirty-two bytes"

// loggedAt is when the first record of logOf was written; each is a minute later.
var loggedAt = time.Date(2026, 11, 27, 23, 58, 0, 123_456_789, time.UTC)

// logOf is a log of decisions by a word each, as the service writes them.
func logOf(t *testing.T, words ...string) string {
	t.Helper()
	ages := eligibility.DefaultAges()
	policy := decisionlog.NewPolicy(eligibility.Policy{}, ages)
	var b []byte
	for i, word := range words {
		at := loggedAt.Add(time.Duration(i) * time.Minute)
		id, err := eligibility.ParseCustomerID(loggedID(i))
		if err != nil {
			t.Fatal(err)
		}
		record := decisionlog.Record{
			Time: at, DecisionID: fmt.Sprintf("order-%d/%d", i/2, i%2), Caller: "shop", Partner: "default", Via: "grpc", Sampled: 1,
			Question: decisionlog.Question{Customer: decisionlog.PlainCustomer(id)}, Kind: eligibility.KindOverloaded,
		}
		if word != "" {
			account := &eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word, FetchTime: at.Add(-time.Second).Truncate(time.Millisecond)}
			record.Policy = policy
			record.Basis = eligibility.Basis{Time: at, Account: eligibility.Held{
				Evidence: account, Tier: eligibility.TierRedis, Fresh: true,
				Lifetime: ages.LifetimeOf(eligibility.Key{CustomerID: id}, account, policy.Values, eligibility.OperationPurchase, at),
			}}
			answer, err := eligibility.Decide(policy.Values, eligibility.SegmentCommercial, eligibility.OperationPurchase, record.Basis.Account, eligibility.Held{}, at)
			if err != nil {
				t.Fatal(err)
			}
			record.Outcome, record.Reasons = decisionlog.OutcomeBlocked, []eligibility.ReasonCode{answer.Reasons[0].Code}
			if answer.Decision == eligibility.DecisionAllowed {
				record.Outcome = decisionlog.OutcomeAllowed
			}
		}
		if i%3 == 2 {
			record.Question.Customer = decisionlog.HashedCustomer([]byte(logKey), id)
		}
		b = record.AppendJSON(b)
	}
	return string(b)
}

func loggedID(i int) string { return fmt.Sprintf("c0000000-0000-4000-8000-%012x", i) }

func writeLog(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipOf(t *testing.T, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLogFindsRecords(t *testing.T) {
	t.Parallel()
	content := logOf(t, "Allowed", "UnderReview", "NotAllowed", "", "Allowed", "NotReady")
	lines := strings.SplitAfter(content, "\n")
	plain, zipped, key := writeLog(t, "a.jsonl", lines[0]+lines[1]), writeLog(t, "b.jsonl.gz", gzipOf(t, lines[2]+lines[3])), writeLog(t, "key", logKey+"\n")
	torn := writeLog(t, "torn.jsonl", lines[0]+"\x00\x00"+lines[1]+lines[1][:40])
	rest := lines[4] + lines[5]
	for name, row := range map[string]struct {
		args []string
		code int
		want []int // the lines
	}{
		"all":                   {nil, 0, []int{0, 1, 2, 3, 4, 5}},
		"customer":              {[]string{"--customer", "{" + strings.ToUpper(loggedID(1)) + "}", "--hash-key-file", key}, 0, []int{1}},
		"customer, hashed":      {[]string{"--customer", strings.ReplaceAll(loggedID(2), "-", ""), "--hash-key-file", key}, 0, []int{2}},
		"nobody":                {[]string{"--customer", loggedID(77), "--hash-key-file", key}, 1, nil},
		"outcome":               {[]string{"--outcome", "Blocked"}, 0, []int{1, 2, 5}},
		"error":                 {[]string{"--outcome", "error"}, 0, []int{3}},
		"batch":                 {[]string{"--decision", "order-1"}, 0, []int{2, 3}},
		"question of a batch":   {[]string{"--decision", "order-1/1"}, 0, []int{3}},
		"caller":                {[]string{"--caller", "shop"}, 0, []int{0, 1, 2, 3, 4, 5}},
		"another caller":        {[]string{"--caller", "console"}, 1, nil},
		"day":                   {[]string{"--from", "2026-11-27", "--to", "2026-11-27"}, 0, []int{0, 1}},
		"from an instant":       {[]string{"--from", "2026-11-27T23:59:00.123456789Z"}, 0, []int{1, 2, 3, 4, 5}},
		"to an instant":         {[]string{"--to", "2026-11-28T00:59:00.123456789+01:00"}, 0, []int{0, 1}},
		"long ago":              {[]string{"--to", "1000000h"}, 1, nil},
		"since":                 {[]string{"--from", "1000000h", "--outcome", "allowed"}, 0, []int{0, 4}},
		"torn, none found":      {[]string{torn, "--caller", "console"}, 2, nil},
		"torn, outcome allowed": {[]string{torn, "--outcome", "allowed"}, 2, []int{0, 4, 0}},
		"missing file":          {[]string{filepath.Join(t.TempDir(), "none"), "--outcome", "error"}, 2, []int{3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"log", plain, zipped, "-"}, row.args...)
			want := ""
			for _, line := range row.want {
				want += lines[line]
			}
			code, out, errOut := runCommand(t, rest, append(args, "--json")...)
			if code != row.code || out != want || (code == 2) != strings.Contains(errOut, "unreadable: ") {
				t.Errorf("exit code %d, want %d\n%s\nwant\n%s\n%s", code, row.code, out, want, errOut)
			}
			wantRows := 0
			if len(row.want) > 0 {
				wantRows = 1 + len(row.want)
			}
			if code, out, _ = runCommand(t, rest, args...); code != row.code || strings.Count(out, "\n") != wantRows {
				t.Errorf("exit code %d, want %d\n%s", code, row.code, out)
			}
		})
	}
}

// The table has who asked, when, about whom, the answer and its evidence, and nothing
// that a terminal interprets.
func TestLogPrintsATable(t *testing.T) {
	t.Parallel()
	life := eligibility.Lifetime{FreshUntil: loggedAt, UsableUntil: loggedAt}
	record := decisionlog.Record{
		Time: loggedAt, DecisionID: "order\x1b[2J", Caller: "console", Person: "a\u202eb", Partner: "eu", Via: "rest", Sampled: 1,
		Question: decisionlog.Question{Segment: eligibility.SegmentEducation, Operation: eligibility.OperationRenewal}, Outcome: decisionlog.OutcomeAllowed, Stale: true,
		Reasons: []eligibility.ReasonCode{eligibility.ReasonAccountHasNoStatus, eligibility.ReasonQualificationApproved},
		Policy:  decisionlog.NewPolicy(eligibility.Policy{}, eligibility.DefaultAges()),
		Basis: eligibility.Basis{
			Time:    loggedAt,
			Account: eligibility.Held{Lifetime: life, Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusNone, FetchTime: loggedAt}, Err: &eligibility.Error{Kind: eligibility.KindThrottled}},
			Qualifications: eligibility.Held{Lifetime: life, Evidence: &eligibility.Evidence{
				Facet: eligibility.FacetQualifications, FetchTime: loggedAt,
				Qualifications: []eligibility.Qualification{{TypeText: "Education\a", VettingStatusText: "Approved"}},
			}},
		},
	}
	code, out, errOut := runCommand(t, string(record.AppendJSON(nil)), "log", "-")
	want := "TIME                      DECISION       CALLER               PARTNER  CUSTOMER  SEGMENT    OPERATION  OUTCOME                                                     EVIDENCE\n" +
		"2026-11-27T23:58:00.123Z  order\\x1b[2J  console (a\\u202eb)  eu       -         EDUCATION  RENEWAL    allowed ACCOUNT_HAS_NO_STATUS, QUALIFICATION_APPROVED (stale)  " +
		"no status at 2026-11-27T23:58:00Z; throttled; Education\\a Approved at 2026-11-27T23:58:00Z\n"
	if code != 0 || squeeze(out) != squeeze(want) || errOut != "" {
		t.Errorf("exit code %d %s\n%s\nwant\n%s", code, errOut, out, want)
	}
}

// squeeze makes one blank of several.
func squeeze(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' }), " ")
}

func TestLogRefusesWhatItCannotAnswer(t *testing.T) {
	t.Parallel()
	content := logOf(t, "Allowed", "Allowed", "Allowed", "Allowed")
	short := writeLog(t, "key", "short")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--customer", loggedID(0)}, "names customers by a hash, and no key was given; give --hash-key-file"},
		{[]string{"--customer", "shop"}, "--customer: customer ID is not a GUID"},
		{[]string{"--outcome", "denied"}, `--outcome "denied" is none of allowed, blocked, error`},
		{[]string{"--from", "yesterday"}, `--from: "yesterday" is no timestamp (2026-11-28T14:02:00Z), date (2026-11-28) or duration ago (2h)`},
		{[]string{"--to", "-2h"}, `--to: "-2h" is no timestamp`},
		{[]string{"--to", "2026-11-31"}, `--to: "2026-11-31" is no timestamp`},
		{[]string{"--from", "2026-11-28", "--to", "2026-11-27"}, "--to is before --from"},
		{[]string{"--hash-key-file", short, "--customer", loggedID(0)}, "--hash-key-file: "},
		{[]string{"--hash-key-file", short}, "--hash-key-file needs --customer"},
	} {
		code, out, errOut := runCommand(t, content, append([]string{"log", "-", "--json"}, row.args...)...)
		if code != 2 || strings.Contains(out, loggedID(1)) || !strings.Contains(errOut, row.want) {
			t.Errorf("%v: exit code %d, %s%s\nwant %s", row.args, code, out, errOut, row.want)
		}
	}
	if code, _, _ := runCommand(t, "", "log"); code != 2 {
		t.Errorf("without a file: exit code %d", code)
	}
}

// Unreadable lines are named up to a bound; a last line that is being written is no
// fault.
func TestLogNamesUnreadableLines(t *testing.T) {
	t.Parallel()
	line := logOf(t, "Allowed")
	code, _, errOut := runCommand(t, line+strings.Repeat("\x1bnonsense\n", 30)+line[:50], "log", "-")
	if code != 2 || strings.Count(errOut, "unreadable: -:") != maxFaultsShown || !strings.Contains(errOut, "unreadable: 10 more\n") ||
		!strings.Contains(errOut, "-:32: the last line is not complete; left out\n") || strings.ContainsRune(errOut, 0x1b) {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if code, out, errOut := runCommand(t, line+line[:50], "log", "-", "--json"); code != 0 || out != line {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
}

// A file is read once if it is there plain and compressed.
func TestLogReadsNoRecordTwice(t *testing.T) {
	t.Parallel()
	line := logOf(t, "Allowed")
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	_, _ = zip.Write([]byte(line)) // to memory
	_ = zip.Close()
	for name, text := range map[string]string{path: line, path + ".gz": zipped.String()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, errOut := runCommand(t, "", "log", path, path+".gz", "--json"); code != 0 || out != line || !strings.Contains(errOut, path+": left out") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
	// It was compressed after the shell had listed it.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if code, out, errOut := runCommand(t, "", "log", path, "--json"); code != 0 || out != line {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
}

func TestReplayComparesPolicies(t *testing.T) {
	t.Parallel()
	content := logOf(t, "Allowed", "NotReady", "UnderReview", "", "NotReady", "NotReady")
	path := writeLog(t, "decisions.jsonl", content)
	if code, out, errOut := runCommand(t, "", "replay", path); code != 0 || errOut != "" ||
		out != "6  records\n5  unchanged\n0  different\n1  not derivable: the question never reached the rule\n" {
		t.Errorf("under the same policy: exit code %d, %s%s", code, out, errOut)
	}
	code, out, errOut := runCommand(t, "", "replay", path, "--policy", "not_ready=allow")
	want := `TIME DECISION CUSTOMER WAS → WOULD BE
2026-11-27T23:59:00.123Z order-0/1 ` + loggedID(1) + ` blocked ACCOUNT_NOT_READY → allowed ACCOUNT_NOT_READY
2026-11-28T00:02:00.123Z order-2/0 ` + loggedID(4) + ` blocked ACCOUNT_NOT_READY → allowed ACCOUNT_NOT_READY
`
	if code != 1 || !strings.HasPrefix(squeeze(out), want) || strings.Count(out, "blocked ACCOUNT_NOT_READY → allowed ACCOUNT_NOT_READY") != 4 ||
		!strings.Contains(out, "\nCOUNT  WAS → WOULD BE\n3      blocked ACCOUNT_NOT_READY → allowed ACCOUNT_NOT_READY\n\n6  records\n2  unchanged\n3  different\n1  not derivable") || errOut != "" {
		t.Errorf("with Not Ready allowed: exit code %d\n%s%s\nwant\n%s", code, out, errOut, want)
	}
	code, out, errOut = runCommand(t, "", "replay", path, "--policy", "policy.not_ready=allow", "--policy", "policy.when_undecidable=block", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var last struct {
		Summary struct {
			Records, Unchanged, Different, Unreadable int
			NotDerivable                              int `json:"not_derivable"`
			Changes                                   []map[string]any
		}
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if s := last.Summary; code != 1 || len(lines) != 4 || s.Records != 6 || s.Different != 3 || s.NotDerivable != 1 || len(s.Changes) != 1 || s.Changes[0]["count"] != 3.0 || errOut != "" ||
		!strings.Contains(lines[0], `"decision_id":"order-0/1","caller":"shop","partner":"default","customer_id":"`+loggedID(1)+`","was":"blocked ACCOUNT_NOT_READY","would_be":"allowed ACCOUNT_NOT_READY"`) {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
	if code, out, _ := runCommand(t, content+"nonsense\n"+content, "replay", "-"); code != 2 || !strings.HasPrefix(out, "12  records\n") || !strings.Contains(out, "1   unreadable lines\n") {
		t.Errorf("with an unreadable line: exit code %d, %s", code, out)
	}
	// A record that was changed afterwards, or written by a program with another rule.
	forged := strings.Replace(content, `"outcome":"blocked","reasons":["ACCOUNT_UNDER_REVIEW"]`, `"outcome":"allowed","reasons":["ACCOUNT_ALLOWED"]`, 1)
	if code, out, _ := runCommand(t, forged, "replay", "-"); code != 1 || !strings.Contains(out, "allowed ACCOUNT_ALLOWED → blocked ACCOUNT_UNDER_REVIEW") {
		t.Errorf("forged: exit code %d, %s", code, out)
	}
	if code, _, errOut := runCommand(t, "", "replay", path, "--policy", "cache.ages.allowed.fresh=1m"); code != 2 || !strings.Contains(errOut, "cannot be replayed: with other ages") {
		t.Errorf("another key: exit code %d, %s", code, errOut)
	}
}

// A terminal gets one line that changes, which goes before anything else is printed;
// anything else gets no progress.
func TestLogShowsProgressOnATerminal(t *testing.T) {
	t.Parallel()
	path := writeLog(t, "decisions.jsonl", strings.Repeat("x", 5_000_000))
	for _, row := range []struct {
		terminal bool
		files    []string
		want     string
	}{
		{true, []string{path}, "\r0 of 5 MB, 0 MB a second\x1b[K\r\x1b[K"},
		{true, []string{path, "-"}, "\r0 MB, 0 MB a second\x1b[K\r\x1b[K"},
		{false, []string{path}, ""},
	} {
		var out bytes.Buffer
		p := newScanProgress(&decisionlog.Scanner{Files: row.files}, &out)
		now := time.Now()
		p.terminal, p.now = row.terminal, func() time.Time { return now }
		p.show() // too early
		now = now.Add(progressLines)
		p.show()
		p.hide()
		p.end()
		if out.String() != row.want {
			t.Errorf("%v, terminal: %v: %q, want %q", row.files, row.terminal, out.String(), row.want)
		}
	}
	p := newScanProgress(&decisionlog.Scanner{Files: []string{path}}, new(bytes.Buffer))
	if text := p.text(2_000_000, p.shown.Add(time.Second)); text != "2 of 5 MB, 2 MB a second, 2s left" {
		t.Error(text)
	}
}

// What the program has recorded of questions over both transports remains readable,
// with the same answers. v1.jsonl was written by eligibilityd dev; a later schema gets
// files of its own.
func TestRecordsOfTheProgramRemainReadable(t *testing.T) {
	t.Parallel()
	const file = "testdata/decisions/v1.jsonl"
	want, err := os.ReadFile("testdata/decisions/v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	for _, row := range []struct {
		code int
		args []string
	}{
		{0, []string{"log", file}},
		{0, []string{"replay", file}},
		{1, []string{"replay", file, "--policy", "not_ready=allow", "--policy", "under_review=allow_reducing"}},
		{0, []string{"log", "--outcome", "error", "--json", file}},
	} {
		code, out, errOut := runCommand(t, "", row.args...)
		if code != row.code || errOut != "" {
			t.Errorf("%v: exit code %d, %s", row.args, code, errOut)
		}
		printed.WriteString(out)
	}
	if printed.String() != string(want) {
		t.Errorf("printed\n%s", printed.String())
	}
}
