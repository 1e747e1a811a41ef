package server

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// H-01.
func TestOneRecordTellsAnRPC(t *testing.T) {
	t.Parallel()
	upstream := eligibility.Call{Attempts: 3, Status: 503, CorrelationID: "c1", RequestID: "r1"}
	for name, row := range map[string]struct {
		source source
		age    time.Duration // of evidence held; 0 is none
		want   map[string]any
	}{
		"an answer from Partner Center": {
			source: approved(),
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "OK", "decision": "DECISION_ALLOWED", "source": "upstream", "customer_id": customerA,
				"upstream_attempts": int64(1), "upstream_status": int64(200), "ms_correlation_id": "correlation", "ms_request_id": "request",
			},
		},
		"an answer from the cache": {
			source: silent(), age: time.Minute,
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "OK", "decision": "DECISION_ALLOWED", "source": "fresh", "customer_id": customerA,
			},
		},
		"a stale answer says what it survived": {
			source: fails(eligibility.Error{Kind: eligibility.KindUnavailable, Call: upstream, Err: errors.New("status 503")}), age: 20 * time.Minute,
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "OK", "decision": "DECISION_ALLOWED", "source": "stale", "customer_id": customerA,
				"upstream_attempts": int64(3), "upstream_status": int64(503), "ms_correlation_id": "c1", "ms_request_id": "r1",
				"error": "eligibility: unavailable: status 503",
			},
		},
		"a failure says its cause": {
			source: fails(eligibility.Error{Kind: eligibility.KindUnavailable, Call: upstream, Err: errors.New("status 503")}),
			want: map[string]any{
				"level": zapcore.ErrorLevel, "code": "UNAVAILABLE", "customer_id": customerA,
				"upstream_attempts": int64(3), "upstream_status": int64(503), "ms_correlation_id": "c1", "ms_request_id": "r1",
				"error": "eligibility: unavailable: status 503",
			},
		},
		"throttling is a warning": {
			source: fails(eligibility.Error{Kind: eligibility.KindThrottled}),
			want: map[string]any{
				"level": zapcore.WarnLevel, "code": "UNAVAILABLE", "customer_id": customerA, "error": "eligibility: throttled",
			},
		},
		"refused credentials are an error": {
			source: fails(eligibility.Error{Kind: eligibility.KindCredentials}),
			want: map[string]any{
				"level": zapcore.ErrorLevel, "code": "UNAVAILABLE", "customer_id": customerA, "error": "eligibility: credentials",
			},
		},
		"an absent customer is the caller's": {
			source: absent(eligibility.AbsenceNotFound),
			want: map[string]any{
				"level": zapcore.InfoLevel, "code": "NOT_FOUND", "customer_id": customerA, "source": "negative",
				"error": "eligibility: not_found",
			},
		},
	} {
		run := start(t, setup{source: row.source})
		if row.age > 0 {
			at := time.Now().Add(-row.age)
			run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, at)
			run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
		}
		run.get(t, customerA, "", "X-Request-Id", "q", "Grpc-Timeout", "5S")
		record := run.record(t)
		for _, measured := range []string{"duration_ms", "deadline_ms"} {
			if v, ok := record[measured].(float64); !ok || v < 0 || v > 5000 {
				t.Errorf("%s: %s is %v", name, measured, record[measured])
			}
			delete(record, measured)
		}
		row.want["request_id"], row.want["rpc"], row.want["via"] = "q", "CheckEligibility", "rest"
		if diff := cmp.Diff(row.want, record); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestARecordNeverRepeatsWhatTheCallerSent(t *testing.T) {
	t.Parallel()
	run := start(t, setup{})
	run.get(t, "canary-in-path", "?segment=canary&canary=1", "Authorization", "Bearer canary", "Cookie", "canary")
	run.post(t, `{"requests":[{"customerId":"canary"}],"canary":1}`)
	for _, entry := range run.logs.All() {
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
	run := start(t, setup{
		source: fails(eligibility.Error{Kind: eligibility.KindCredentials}),
		api:    ChainConfig{PlainRecords: 2, FailureRecords: 3},
	})
	put := func(id string, status eligibility.AccountStatus, age time.Duration) {
		run.store.put(id, eligibility.FacetAccount, eligibility.Evidence{Status: status}, time.Now().Add(-age))
		run.store.put(id, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now().Add(-age))
	}
	const customerC, customerD = "0c0c0c0c-0c0c-4c0c-8c0c-0c0c0c0c0c0c", "0d0d0d0d-0d0d-4d0d-8d0d-0d0d0d0d0d0d"
	put(customerA, eligibility.AccountStatusAllowed, time.Second)
	put(customerB, eligibility.AccountStatusNotAllowed, time.Second)
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
			"plain", 2, run.chain.PlainLimit(),
			func() { run.get(t, customerA, "") },
			func(f map[string]any) bool { return f["source"] == "fresh" && f["decision"] == "DECISION_ALLOWED" },
		},
		{
			"blocked", 0, nil,
			func() { run.get(t, customerB, "") },
			func(f map[string]any) bool { return f["source"] == "fresh" && f["decision"] == "DECISION_BLOCKED" },
		},
		{
			"stale", 3, run.chain.FailureLimit("STALE"),
			func() { run.get(t, customerC, "") },
			func(f map[string]any) bool { return f["source"] == "stale" },
		},
		{
			"undecided", 3, run.chain.FailureLimit("PARTNER_CENTER_CREDENTIALS"),
			func() { run.get(t, customerD, "") },
			func(f map[string]any) bool { return f["code"] == "UNAVAILABLE" },
		},
		{
			"invalid, in a batch or not, traced or not", 3, run.chain.FailureLimit("INVALID_ARGUMENT"),
			func() {
				run.get(t, "no-guid", "", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
				run.post(t, `{"requests":[{"customerId":"no-guid"},{"customerId":"`+customerB+`"}]}`)
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
		for _, record := range run.logs.FilterMessage("rpc handled").All() {
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
			run := start(t, setup{
				source:  fails(eligibility.Error{Kind: kind.kind, RetryAfter: time.Hour, Err: errors.New("the cause")}),
				service: evidence.Config{Policy: eligibility.Policy{BlockUndecidable: block}},
			})
			run.store.put(customerB, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed}, time.Now())
			run.store.put(customerB, eligibility.FacetQualifications, eligibility.Evidence{}, time.Now())
			single := run.get(t, customerA, "")
			if want := map[bool]int{false: http.StatusServiceUnavailable, true: http.StatusOK}[block]; single.StatusCode != want {
				t.Errorf("%s: status %d, want %d", name, single.StatusCode, want)
			}
			run.post(t, `{"requests":[{"customerId":"`+customerA+`"},{"customerId":"`+customerB+`"},{"customerId":"`+customerA+`","segment":"EDUCATION"}]}`)
			for _, want := range []string{
				`eligibility_errors_total{reason="` + kind.reason + `"} 3`,
				`eligibility_questions_total{outcome="undecided"} 3`,
				`eligibility_questions_total{outcome="decided"} 1`,
			} {
				metric, _, _ := strings.Cut(want, "{")
				if len(run.scrape(t, want)) != 1 {
					t.Errorf("%s: no %s among %q", name, want, run.scrape(t, metric))
				}
			}
			records := run.logs.FilterMessage("rpc handled").All()
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
	run := start(t, setup{source: absent(eligibility.AbsenceNotFound), api: ChainConfig{MaxConcurrent: 1}})
	run.get(t, customerA, "")
	run.get(t, "no-guid", "")
	run.post(t, `{"requests":[]}`)
	run.chain.SetInFlight(7) // one more is too many
	run.post(t, `{"requests":[{"customerId":"`+customerA+`"},{"customerId":"`+customerB+`"},{}]}`)
	run.chain.SetInFlight(0)
	run.chain.CountFailure(&eligibility.Error{Kind: eligibility.KindCanceled})
	run.chain.CountFailure(&eligibility.Error{Kind: eligibility.KindDeadlineExceeded})
	want := []string{
		`eligibility_questions_total{outcome="abandoned"} 2`,
		`eligibility_questions_total{outcome="decided"} 0`,
		`eligibility_questions_total{outcome="failed"} 3`,
		`eligibility_questions_total{outcome="rejected"} 3`,
		`eligibility_questions_total{outcome="undecided"} 0`,
	}
	if diff := cmp.Diff(want, run.scrape(t, "eligibility_questions_total{")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
