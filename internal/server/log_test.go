package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
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
				"error": "eligibility: unavailable: status 503\neligibility: unavailable: status 503",
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
			run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
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

// Plain successes are written so many a second; whatever else happens is
// written each time, and what was left out is counted.
func TestOnlyPlainSuccessesAreLeftOut(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: silent(), server: Config{PlainRecords: 2}})
	at := time.Now().Add(-time.Second)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed}, at)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	run.store.put(customerB, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusNotAllowed}, at)
	run.store.put(customerB, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	const n = 50
	second := time.Now().Unix()
	for range n {
		run.get(t, customerA, "")
		run.get(t, customerB, "")
		run.get(t, "no-guid", "")
		run.get(t, customerA, "?segment=EDUCATION") // blocked: no qualification
		run.post(t, `{"requests":[{"customerId":"`+customerA+`"},{"customerId":"`+customerB+`"}]}`)
	}
	written := make(map[string]int)
	var leftOut int64
	for _, record := range run.logs.FilterMessage("rpc handled").All() {
		fields := record.ContextMap()
		plain := fields["decision"] == "DECISION_ALLOWED"
		written[fmt.Sprint(fields["rpc"], " ", fields["code"], " ", plain)]++
		if count, ok := fields["left_out"].(int64); ok {
			leftOut += count
		}
	}
	seconds := int(time.Now().Unix()-second) + 1
	if got := written["CheckEligibility OK true"]; got < 2 || got > 2*seconds {
		t.Errorf("%d plain successes written in %d seconds, want 2 a second", got, seconds)
	}
	for what, want := range map[string]int{
		"CheckEligibility OK false": 2 * n, "CheckEligibility INVALID_ARGUMENT false": n, "BatchCheckEligibility OK false": n,
	} {
		if written[what] != want {
			t.Errorf("%s: %d written, want %d", what, written[what], want)
		}
	}
	if waiting := run.server.plain.leftOut.Load(); leftOut+waiting != int64(n-written["CheckEligibility OK true"]) {
		t.Errorf("%d said to be left out and %d to be said, of %d written", leftOut, waiting, written["CheckEligibility OK true"])
	}
}

func TestAQuotaIsForEachSecond(t *testing.T) {
	t.Parallel()
	q := quota{limit: 3}
	at := time.Unix(1000, 0)
	for second, want := range []int64{0, 7, 7} {
		var admitted int
		var leftOut int64
		for i := range 10 {
			if left, ok := q.take(at.Add(time.Duration(second)*time.Second + time.Duration(i)*time.Millisecond)); ok {
				admitted++
				leftOut += left
			}
		}
		if admitted != 3 || leftOut != want {
			t.Errorf("second %d: %d admitted, %d left out before; want 3 and %d", second, admitted, leftOut, want)
		}
	}
}
