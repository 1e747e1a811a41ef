package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// H-01.
func TestAnRPCHasOneRecord(t *testing.T) {
	t.Parallel()
	upstream := eligibility.Call{Attempts: 3, Status: 503, CorrelationID: "c1", RequestID: "r1"}
	for name, row := range map[string]struct {
		source apitest.Source
		age    time.Duration // of evidence held; 0 is none
		want   map[string]any
	}{
		"an answer from Partner Center": {
			source: apitest.Approved(),
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "OK", "decision": "DECISION_ALLOWED", "source": "upstream", "customer_id": apitest.CustomerA,
				"reasons": []any{"ACCOUNT_ALLOWED"}, "account_status": "Allowed",
				"upstream_attempts": int64(1), "upstream_status": int64(200), "ms_correlation_id": "correlation", "ms_request_id": "request",
			},
		},
		"an answer from the cache": {
			source: apitest.Silent(), age: time.Minute,
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "OK", "decision": "DECISION_ALLOWED", "source": "fresh", "customer_id": apitest.CustomerA, "reasons": []any{"ACCOUNT_ALLOWED"},
			},
		},
		"a stale answer says what it survived": {
			source: apitest.Fails(eligibility.Error{Kind: eligibility.KindUnavailable, Call: upstream, Err: errors.New("status 503")}), age: 20 * time.Minute,
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "OK", "decision": "DECISION_ALLOWED", "source": "stale", "customer_id": apitest.CustomerA, "reasons": []any{"ACCOUNT_ALLOWED"},
				"upstream_attempts": int64(3), "upstream_status": int64(503), "ms_correlation_id": "c1", "ms_request_id": "r1",
				"error": "eligibility: unavailable: status 503",
			},
		},
		"a failure says its cause": {
			source: apitest.Fails(eligibility.Error{Kind: eligibility.KindUnavailable, Call: upstream, Err: errors.New("status 503")}),
			want: map[string]any{
				"level": zapcore.ErrorLevel, "code": "UNAVAILABLE", "customer_id": apitest.CustomerA,
				"upstream_attempts": int64(3), "upstream_status": int64(503), "ms_correlation_id": "c1", "ms_request_id": "r1",
				"error": "eligibility: unavailable: status 503",
			},
		},
		"throttling is a warning": {
			source: apitest.Fails(eligibility.Error{Kind: eligibility.KindThrottled}),
			want: map[string]any{
				"level": zapcore.WarnLevel, "code": "UNAVAILABLE", "customer_id": apitest.CustomerA, "error": "eligibility: throttled",
			},
		},
		"a wait for the budget names its lane": {
			source: apitest.Fails(eligibility.Error{Kind: eligibility.KindThrottled, Call: eligibility.Call{CorrelationID: "c1", Lane: "batch"}}),
			want: map[string]any{
				"level": zapcore.WarnLevel, "code": "UNAVAILABLE", "customer_id": apitest.CustomerA, "error": "eligibility: throttled", "lane": "batch",
				"upstream_attempts": int64(0), "upstream_status": int64(0), "ms_correlation_id": "c1", "ms_request_id": "",
			},
		},
		"refused credentials are an error": {
			source: apitest.Fails(eligibility.Error{Kind: eligibility.KindCredentials}),
			want: map[string]any{
				"level": zapcore.ErrorLevel, "code": "UNAVAILABLE", "customer_id": apitest.CustomerA, "error": "eligibility: credentials",
			},
		},
		"an absent customer is the caller's": {
			source: apitest.Absent(eligibility.AbsenceNotFound),
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "NOT_FOUND", "customer_id": apitest.CustomerA, "source": "negative",
				"error": "eligibility: not_found",
			},
		},
	} {
		run := servertest.Start(t, servertest.Setup{Source: row.source})
		if row.age > 0 {
			at := time.Now().Add(-row.age)
			run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, at)
			run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
		}
		run.Get(t, apitest.CustomerA, "", "X-Request-Id", "q", "Grpc-Timeout", "5S")
		record := run.Record(t)
		for _, measured := range []string{"duration_ms", "deadline_ms"} {
			if v, ok := record[measured].(float64); !ok || v < 0 || v > 5000 {
				t.Errorf("%s: %s is %v", name, measured, record[measured])
			}
			delete(record, measured)
		}
		row.want["request_id"], row.want["rpc"], row.want["via"], row.want["partner"] = "q", "CheckEligibility", "rest", api.DefaultPartner
		row.want["caller"], row.want["segment"] = "anonymous", "COMMERCIAL"
		_, timed := record["evidence_time"].(time.Time)
		if _, answered := row.want["reasons"]; answered != timed {
			t.Errorf("%s: evidence_time is %v", name, record["evidence_time"])
		}
		delete(record, "evidence_time")
		if diff := cmp.Diff(row.want, record); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The record of a block has what its response has: who was asked about, and why not.
func TestTheRecordOfABlockExplainsIt(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Silent()})
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	for word, want := range map[string]string{
		"UnderReview": "UnderReview", "Brand new": "Brand new", "a\nforged line": "unrecognized", strings.Repeat("a", 65): "unrecognized",
	} {
		run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word}, at)
		run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
		run.Get(t, apitest.CustomerA, "?segment=EDUCATION")
		record := run.Record(t)
		if record["account_status"] != want || record["segment"] != "EDUCATION" || record["decision"] != "DECISION_BLOCKED" || !record["evidence_time"].(time.Time).Equal(at) {
			t.Errorf("%q: %v", word, record)
		}
		if got := fmt.Sprint(record["reasons"]); got != "[ACCOUNT_UNDER_REVIEW QUALIFICATION_MISSING]" && got != "[ACCOUNT_STATUS_UNRECOGNIZED QUALIFICATION_MISSING]" {
			t.Errorf("%q: reasons %s", word, got)
		}
	}
}

// The record of a batch names its first ten items that are blocked or have failed.
func TestTheRecordOfABatchNamesItsBlocksAndFailures(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Fails(eligibility.Error{Kind: eligibility.KindUnavailable})})
	var items []string
	var ids []string
	for i := range 16 {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		ids = append(ids, id)
		if i < 12 {
			status := eligibility.AccountStatusNotAllowed
			if i == 0 {
				status = eligibility.AccountStatusAllowed
			}
			run.Store.Hold(id, eligibility.FacetAccount, eligibility.Evidence{Status: status}, time.Now().Add(-time.Second))
			run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now().Add(-time.Second))
		}
		items = append(items, `{"customerId":"`+id+`"}`)
	}
	ask := func(items ...string) map[string]any {
		run.Post(t, `{"requests":[`+strings.Join(items, ",")+`]}`)
		return run.Record(t)
	}
	record := ask(items...)
	if got := fmt.Sprint(record["blocked_ids"]); got != fmt.Sprint(ids[1:11]) || record["failed_ids"] != nil || record["blocked"] != int64(11) || record["failed"] != int64(4) {
		t.Errorf("%v", record)
	}
	record = ask(items[12], items[3], `{"customerId":"canary"}`, `{"customerId":"`+ids[13]+`","operation":77}`, items[0])
	if got := fmt.Sprint(record["failed_ids"]); got != fmt.Sprint([]string{ids[12], "requests[2]", ids[13]}) || fmt.Sprint(record["blocked_ids"]) != fmt.Sprint(ids[3:4]) {
		t.Errorf("%v", record)
	}
}

func TestARecordNeverRepeatsWhatTheCallerSent(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	run.Get(t, "canary-in-path", "?segment=canary&canary=1", "Authorization", "Bearer canary", "Cookie", "canary")
	run.Post(t, `{"requests":[{"customerId":"canary"}],"canary":1}`)
	for _, entry := range run.Logs.All() {
		for key, value := range entry.ContextMap() {
			if text, ok := value.(string); ok && strings.Contains(key+text, "canary") {
				t.Errorf("logged: %s: %s", key, text)
			}
		}
	}
}

// Records of plain successes and of each reason of a failure are limited, those
// of blocks are not, and what was left out is counted.
func TestRecordsAreLimitedByReason(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Fails(eligibility.Error{Kind: eligibility.KindCredentials}),
		API:    api.Config{PlainRecords: 2, FailureRecords: 3},
	})
	put := func(id string, status eligibility.AccountStatus, age time.Duration) {
		run.Store.Hold(id, eligibility.FacetAccount, eligibility.Evidence{Status: status}, time.Now().Add(-age))
		run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now().Add(-age))
	}
	const customerC, customerD = "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c", "0d0d0d0d-0d0d-4d0d-8d0d-0d0d0d0d0d0d"
	put(apitest.CustomerA, eligibility.AccountStatusAllowed, time.Second)
	put(apitest.CustomerB, eligibility.AccountStatusNotAllowed, time.Second)
	put(customerC, eligibility.AccountStatusAllowed, 20*time.Minute)
	const n = 40
	kinds := []struct {
		name  string
		limit int64 // a second; 0 is none
		admit *logging.Limiter
		ask   func()
		is    func(fields map[string]any) bool
	}{
		{
			"plain", 2, run.Chain.PlainLimit(),
			func() { run.Get(t, apitest.CustomerA, "") },
			func(f map[string]any) bool { return f["source"] == "fresh" && f["decision"] == "DECISION_ALLOWED" },
		},
		{
			"blocked", 0, nil,
			func() { run.Get(t, apitest.CustomerB, "") },
			func(f map[string]any) bool { return f["source"] == "fresh" && f["decision"] == "DECISION_BLOCKED" },
		},
		{
			"stale", 3, run.Chain.FailureLimit("STALE"),
			func() { run.Get(t, customerC, "") },
			func(f map[string]any) bool { return f["source"] == "stale" },
		},
		{
			"undecided", 3, run.Chain.FailureLimit("PARTNER_CENTER_CREDENTIALS"),
			func() { run.Get(t, customerD, "") },
			func(f map[string]any) bool { return f["code"] == "UNAVAILABLE" },
		},
		{
			"invalid, in a batch or not, traced or not", 3, run.Chain.FailureLimit("INVALID_ARGUMENT"),
			func() {
				run.Get(t, "no-guid", "", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
				run.Post(t, `{"requests":[{"customerId":"no-guid"},{"customerId":"`+apitest.CustomerB+`"}]}`)
			},
			func(f map[string]any) bool { return f["code"] == "INVALID_ARGUMENT" || f["failed"] == int64(1) },
		},
	}
	begun := time.Now().Unix()
	for range n {
		for _, kind := range kinds {
			kind.ask()
		}
	}
	seconds := time.Now().Unix() - begun + 1
	for _, kind := range kinds {
		var written, leftOut int64
		for _, record := range run.Logs.FilterMessage("rpc handled").All() {
			if fields := record.ContextMap(); kind.is(fields) {
				written++
				count, _ := fields["left_out"].(int64)
				leftOut += count
			}
		}
		asked := int64(n)
		if strings.HasPrefix(kind.name, "invalid") {
			asked *= 2
		}
		if kind.limit == 0 {
			if written != asked {
				t.Errorf("%s: %d records written of %d", kind.name, written, asked)
			}
			continue
		}
		if written < kind.limit || written > kind.limit*seconds {
			t.Errorf("%s: %d records in %d seconds, want %d a second", kind.name, written, seconds, kind.limit)
		}
		waiting, _ := kind.admit.Admit(time.Now().Add(time.Hour))
		if written+leftOut+waiting != asked {
			t.Errorf("%s: %d written, %d left out and %d to be counted, of %d", kind.name, written, leftOut, waiting, asked)
		}
	}
}

// An undecided question is one in the log and in the metrics, whatever the
// policy makes of it.
func TestAnUndecidedQuestionIsCountedUnderBothPolicies(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		kind   eligibility.Kind
		reason string
		level  zapcore.Level
	}{
		{eligibility.KindUnavailable, "PARTNER_CENTER_UNAVAILABLE", zapcore.ErrorLevel},
		{eligibility.KindThrottled, "PARTNER_CENTER_THROTTLED", zapcore.WarnLevel},
		{eligibility.KindCredentials, "PARTNER_CENTER_CREDENTIALS", zapcore.ErrorLevel},
		{eligibility.KindInvalidResponse, "PARTNER_CENTER_INVALID_RESPONSE", zapcore.ErrorLevel},
	} {
		for _, block := range []bool{false, true} {
			name := fmt.Sprintf("%s, block %v", kind.reason, block)
			run := servertest.Start(t, servertest.Setup{
				Source:  apitest.Fails(eligibility.Error{Kind: kind.kind, RetryAfter: time.Hour, Err: errors.New("the cause")}),
				Service: evidence.Config{Policy: eligibility.Policy{BlockUndecidable: block}},
			})
			run.Store.Hold(apitest.CustomerB, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed}, time.Now())
			run.Store.Hold(apitest.CustomerB, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
			single := run.Get(t, apitest.CustomerA, "")
			if want := map[bool]int{false: http.StatusServiceUnavailable, true: http.StatusOK}[block]; single.StatusCode != want {
				t.Errorf("%s: status %d, want %d", name, single.StatusCode, want)
			}
			run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"},{"customerId":"`+apitest.CustomerB+`"},{"customerId":"`+apitest.CustomerA+`","segment":"EDUCATION"}]}`)
			for _, want := range []string{
				`eligibility_errors_total{reason="` + kind.reason + `"} 3`,
				`eligibility_questions_total{outcome="undecided"} 3`,
				`eligibility_questions_total{outcome="decided"} 1`,
			} {
				metric, _, _ := strings.Cut(want, "{")
				if len(run.Scrape(t, want)) != 1 {
					t.Errorf("%s: no %s among %q", name, want, run.Scrape(t, metric))
				}
			}
			records := run.Logs.FilterMessage("rpc handled").All()
			if len(records) != 2 {
				t.Fatalf("%s: %d records, want 2", name, len(records))
			}
			for _, record := range records {
				cause, _ := record.ContextMap()["error"].(string)
				if record.Level != kind.level || !strings.Contains(cause, "the cause") {
					t.Errorf("%s: level %v, error %q", name, record.Level, cause)
				}
			}
			if fields := records[1].ContextMap(); block && (fields["undecided"] != int64(2) || fields["blocked"] != int64(1)) {
				t.Errorf("%s: batch record %v", name, fields)
			}
		}
	}
}

// Questions are counted, not calls, and a caller's own faults are no outage.
func TestEveryQuestionHasAnOutcome(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Absent(eligibility.AbsenceNotFound), API: api.Config{MaxConcurrent: 1}})
	run.Get(t, apitest.CustomerA, "")
	run.Get(t, "no-guid", "")
	run.Post(t, `{"requests":[]}`)
	run.Chain.SetInFlight(7) // one more is too many
	run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"},{"customerId":"`+apitest.CustomerB+`"},{}]}`)
	run.Chain.SetInFlight(0)
	for _, impatient := range []bool{true, false, false} {
		run.Chain.CountFailure(&eligibility.Error{Kind: eligibility.KindCanceled}, impatient)
		run.Chain.CountFailure(&eligibility.Error{Kind: eligibility.KindDeadlineExceeded}, impatient)
	}
	want := []string{
		`eligibility_questions_total{outcome="abandoned"} 2`,
		`eligibility_questions_total{outcome="decided"} 0`,
		`eligibility_questions_total{outcome="failed"} 3`,
		`eligibility_questions_total{outcome="rejected"} 3`,
		`eligibility_questions_total{outcome="timed_out"} 4`,
		`eligibility_questions_total{outcome="undecided"} 0`,
	}
	if diff := cmp.Diff(want, run.Scrape(t, "eligibility_questions_total{")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
