package decisionlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

var hashKey = []byte("a key of at least thirty-two bytes")

// drawName draws an ID or a name that may need escapes in JSON.
func drawName(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"order-17", "order-17/0", "order-18", "order", "größe \"x\"", "/", "", "a\\u0062c", "blocked"}).Draw(t, label)
}

// drawEntry draws a record in one of the forms that a line may have.
func drawEntry(t *rapid.T, id eligibility.CustomerID, start time.Time) (record decisionlog.Record, line []byte) {
	record = decisionlog.Record{
		Time:       start.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "time"))),
		DecisionID: drawName(t, "decision"), Caller: drawName(t, "caller"), Sampled: 1,
		Outcome: decisionlog.Outcome(rapid.Uint8Range(0, 2).Draw(t, "outcome")),
	}
	switch rapid.IntRange(0, 3).Draw(t, "customer") {
	case 0:
		id[0]++
		fallthrough
	case 1:
		record.Question.Customer = decisionlog.PlainCustomer(id)
	case 2:
		record.Question.Customer = decisionlog.HashedCustomer(hashKey, id)
	}
	line = record.AppendJSON(nil)
	switch rapid.IntRange(0, 2).Draw(t, "form") {
	case 0: // as Python and jq -S write it
		var members map[string]any
		if err := json.Unmarshal(line, &members); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		line = bytes.ReplaceAll(sorted, []byte(`":`), []byte(`": `))
	case 1: // as PHP writes it
		line = bytes.ReplaceAll(line, []byte(`/`), []byte(`\/`))
	}
	return record, bytes.TrimSpace(line)
}

// A search selects exactly the records that its filter describes, in whatever form
// of JSON their lines are.
func TestSearchSelectsWhatItsFilterDescribes(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 28, 14, 2, 3, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		id := eligibility.CustomerID{1, 2, 3}
		record, line := drawEntry(t, id, start)
		filter := &decisionlog.Filter{DecisionID: drawName(t, "decision"), Caller: drawName(t, "caller")}
		if rapid.Bool().Draw(t, "by time") {
			filter.From, filter.Until = start.Add(-1), start.Add(2)
		}
		if rapid.Bool().Draw(t, "by outcome") {
			outcome := decisionlog.OutcomeBlocked
			filter.Outcome = &outcome
		}
		if rapid.Bool().Draw(t, "by customer") {
			filter.Customer = &id
		}
		if rapid.Bool().Draw(t, "key") {
			filter.HashKey = hashKey
		}
		want := (filter.DecisionID == "" || record.DecisionID == filter.DecisionID || strings.HasPrefix(record.DecisionID, filter.DecisionID+"/")) &&
			(filter.Caller == "" || record.Caller == filter.Caller) &&
			(filter.From.IsZero() || !record.Time.Before(filter.From) && record.Time.Before(filter.Until)) &&
			(filter.Outcome == nil || record.Outcome == *filter.Outcome)
		hashed := strings.HasPrefix(record.Question.Customer.String(), "hmac-")
		needsKey := want && filter.Customer != nil && hashed && filter.HashKey == nil
		if filter.Customer != nil {
			want = want && (record.Question.Customer == decisionlog.PlainCustomer(id) || hashed && filter.HashKey != nil)
		}
		read, got, err := decisionlog.NewSearch(filter).Select(line)
		if needsKey != errors.Is(err, decisionlog.ErrHashed) || err != nil && !needsKey || got != want {
			t.Fatalf("%s: selected %v, %v; want %v, key missing: %v", line, got, err, want, needsKey)
		}
		if got && (read.DecisionID != record.DecisionID || !read.Time.Equal(record.Time)) {
			t.Fatalf("%s: read %+v", line, read)
		}
	})
}

// Lines that are no records are reported, also if nothing in them is looked for.
func TestSearchReportsWhatIsNoRecord(t *testing.T) {
	t.Parallel()
	record := decisionlog.Record{Time: time.Now(), DecisionID: "order-17", Sampled: 1}
	line := string(bytes.TrimSpace(record.AppendJSON(nil)))
	search := decisionlog.NewSearch(&decisionlog.Filter{DecisionID: "another"})
	if _, selected, err := search.Select([]byte(line)); selected || err != nil {
		t.Fatalf("a record: %v, %v", selected, err)
	}
	for name, bad := range map[string]string{
		"garbage":        "garbage",
		"cut":            line[:len(line)-9],
		"cut at the end": line[:len(line)-1],
		"torn":           line[:len(line)/2] + line,
		"holes":          strings.Repeat("\x00", 8) + line,
		"hole inside":    line[:len(line)-9] + "\x00" + line[len(line)-8:],
		"other schema":   strings.Replace(line, ".v1", ".v2", 1),
		"no schema":      "{}",
		"two":            line + line,
		"binary":         "\xff\xfe\x00",
	} {
		if _, selected, err := search.Select([]byte(bad)); selected || err == nil {
			t.Errorf("%s: selected %v, no error", name, selected)
		}
	}
}

// benchmarkLog returns so many records as the service writes them.
func benchmarkLog(records int) []byte {
	ages := eligibility.DefaultAges()
	policy := decisionlog.NewPolicy(eligibility.Policy{}, ages)
	var b []byte
	now := time.Date(2026, 11, 28, 14, 2, 3, 123_456_789, time.UTC)
	for i := range records {
		at := now.Add(time.Duration(i) * 1_234_567)
		id := eligibility.CustomerID{0xa0, 15: byte(i), 14: byte(i >> 8), 13: byte(i >> 16)}
		account := &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: at.Add(-20 * time.Second).Truncate(time.Millisecond), CorrelationID: "7d0c1a52-6c0f-4f6c-9a5e-6a1f8f2b4c3d"}
		word := decisionlog.OutcomeAllowed
		reasons := []eligibility.ReasonCode{eligibility.ReasonAccountAllowed}
		if i%50 == 0 {
			account.Status, account.StatusText, word = eligibility.AccountStatusNotReady, "NotReady", decisionlog.OutcomeBlocked
			reasons[0] = eligibility.ReasonAccountNotReady
		}
		record := decisionlog.Record{
			Time: at, DecisionID: fmt.Sprintf("order-%d", i), Caller: "shop", Partner: "default", Via: "grpc", RequestID: fmt.Sprintf("order-%d", i),
			TraceID: fmt.Sprintf("4bf92f3577b34da6a3ce929d%08x", i), Question: decisionlog.Question{Customer: decisionlog.PlainCustomer(id)},
			Basis: eligibility.Basis{Time: at, Account: eligibility.Held{
				Evidence: account, Tier: eligibility.TierLocal, Fresh: true,
				Lifetime: ages.LifetimeOf(eligibility.Key{CustomerID: id}, account, eligibility.Policy{}, eligibility.OperationPurchase, at),
			}},
			Policy: policy, Outcome: word, Reasons: reasons, Sampled: 1, Version: "v1.4.0",
		}
		b = record.AppendJSON(b)
	}
	return b
}

// benchmarkScan measures what each does with every line of a plain log.
func benchmarkScan(b *testing.B, each func(selected *int, line []byte) error) {
	b.Helper()
	content := benchmarkLog(40_000)
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		s := &decisionlog.Scanner{Files: []string{"-"}, Stdin: bytes.NewReader(content)}
		err := decisionlog.Scan(b.Context(), s, each, func(_ *int, faults []decisionlog.LineError) error {
			if len(faults) > 0 {
				return &faults[0]
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLogSearch(b *testing.B) {
	id, failed := eligibility.CustomerID{0xa0, 15: 7}, decisionlog.OutcomeError
	for name, filter := range map[string]*decisionlog.Filter{
		"customer": {Customer: &id}, "outcome": {Outcome: &failed}, "period": {From: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}, "all": {},
	} {
		search := decisionlog.NewSearch(filter)
		b.Run(name, func(b *testing.B) {
			benchmarkScan(b, func(selected *int, line []byte) error {
				_, is, err := search.Select(line)
				if is {
					*selected++
				}
				return err
			})
		})
	}
}

func BenchmarkReplay(b *testing.B) {
	override, err := decisionlog.ParseOverride("not_ready=allow")
	if err != nil {
		b.Fatal(err)
	}
	benchmarkScan(b, func(different *int, line []byte) error {
		record, err := decisionlog.Parse(line)
		if err != nil {
			return err
		}
		answer, err := record.Replay(override)
		if err == nil && !answer.Equal(record.Answer()) {
			*different++
		}
		return err
	})
}

// Whatever a line holds, it is a record or it is not: no search and no policy makes
// more of it, and none panics.
func FuzzLine(f *testing.F) {
	for line := range bytes.Lines(benchmarkLog(2)) {
		f.Add(line)
	}
	var overrides []decisionlog.Override
	for _, text := range []string{"not_ready=allow", "under_review=allow_reducing", "when_undecidable=block"} {
		override, err := decisionlog.ParseOverride(text)
		if err != nil {
			f.Fatal(err)
		}
		overrides = append(overrides, override)
	}
	all, none := decisionlog.NewSearch(&decisionlog.Filter{}), decisionlog.NewSearch(&decisionlog.Filter{DecisionID: "another"})
	f.Fuzz(func(t *testing.T, line []byte) {
		record, err := decisionlog.Parse(line)
		if _, selected, failed := all.Select(line); (failed == nil) != (err == nil) || selected != (err == nil) {
			t.Fatalf("%q: selected %v, %v; parsed: %v", line, selected, failed, err)
		}
		if _, _, failed := none.Select(line); failed != nil && err == nil {
			t.Fatalf("%q: %v; parsed", line, failed)
		}
		if err != nil {
			return
		}
		for i := range len(overrides) + 1 {
			if answer, err := record.Replay(overrides[:i]...); err == nil {
				_ = answer.String()
			}
		}
	})
}
