package server

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestIdentityIsTakenAndReturned(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	for name, row := range map[string]struct{ customer, id, trace, wantID, wantTrace string }{
		"an answer":           {customerA, "order-1", exampleTrace, "order-1", exampleTrace},
		"an error":            {"no-guid", "order-2", exampleTrace, "order-2", exampleTrace},
		"nothing sent":        {customerA, "", "", "new", ""},
		"nothing sane sent":   {customerA, "a b", "00-0", "new", ""},
		"nothing sane, error": {"no-guid", strings.Repeat("x", 200), "x", "new", ""},
	} {
		verify := func(via, id, trace string) {
			if row.wantID == "new" {
				if _, err := uuid.Parse(id); err != nil {
					t.Errorf("%s over %s: request ID %q", name, via, id)
				}
			} else if id != row.wantID {
				t.Errorf("%s over %s: request ID %q, want %q", name, via, id, row.wantID)
			}
			if trace != row.wantTrace {
				t.Errorf("%s over %s: traceparent %q, want %q", name, via, trace, row.wantTrace)
			}
			record := run.record(t)
			if record["request_id"] != id || record["via"] != via {
				t.Errorf("%s over %s: logged as %v", name, via, record)
			}
			if trace != "" && record["trace_id"] != trace[3:35] {
				t.Errorf("%s over %s: trace ID %v of %s", name, via, record["trace_id"], trace)
			}
		}
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", row.id, "traceparent", row.trace)
		_, _ = run.client.CheckEligibility(ctx, ask(row.customer), grpc.Header(&header))
		verify("grpc", strings.Join(header.Get("x-request-id"), ","), strings.Join(header.Get("traceparent"), ","))

		got := run.get(t, row.customer, "", "X-Request-Id", row.id, "Traceparent", row.trace)
		if len(got.Header.Values("X-Request-Id")) != 1 {
			t.Errorf("%s: request IDs %q", name, got.Header.Values("X-Request-Id"))
		}
		verify("rest", got.Header.Get("X-Request-Id"), got.Header.Get("Traceparent"))
	}
}

func TestGRPCRefusesWhatRESTRefuses(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: approved()})
	_, err := run.client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{
		CustomerId: "no-guid", Segment: 9, MaxAge: durationpb.New(-1),
		MinEvidenceTime: timestamppb.New(time.Now().Add(time.Minute)),
	})
	want := []string{"customer_id", "segment", "max_age", "min_evidence_time"}
	if diff := cmp.Diff(want, violatedBy(err)); status.Code(err) != codes.InvalidArgument || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, err = run.client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{
		CustomerId: customerA, MaxAge: &durationpb.Duration{Seconds: 1, Nanos: -1},
		MinEvidenceTime: &timestamppb.Timestamp{Nanos: -1},
	})
	if diff := cmp.Diff([]string{"max_age", "min_evidence_time"}, violatedBy(err)); diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, n := range []int{0, maxBatch + 1} {
		batch := &eligibilityv1.BatchCheckEligibilityRequest{Requests: make([]*eligibilityv1.CheckEligibilityRequest, n)}
		for i := range batch.GetRequests() {
			batch.Requests[i] = ask(customerA)
		}
		_, err = run.client.BatchCheckEligibility(t.Context(), batch)
		if diff := cmp.Diff([]string{"requests"}, violatedBy(err)); diff != "" {
			t.Errorf("a batch of %d: %v (-want +got):\n%s", n, err, diff)
		}
	}
}

func TestABatchAnswersInOrderAndFailsByItem(t *testing.T) {
	t.Parallel()
	run := start(t, setup{source: func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		if id.String() == customerB {
			return fails(eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: 42 * time.Second})(ctx, id, facet)
		}
		return approved()(ctx, id, facet)
	}})
	resp, err := run.client.BatchCheckEligibility(t.Context(), &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{
		ask(customerB), ask("no-guid"), ask(customerA), {CustomerId: customerA, Segment: eligibilityv1.Segment_SEGMENT_NONPROFIT}, ask(customerB), ask(customerA),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, result := range resp.GetResults() {
		if failure := result.GetError(); failure != nil {
			got = append(got, failure.GetReason()+" "+failure.GetRetryAfter().AsDuration().String())
			continue
		}
		got = append(got, result.GetResponse().GetCustomerId()+" "+result.GetResponse().GetDecision().String())
	}
	want := []string{
		"PARTNER_CENTER_THROTTLED 42s", "INVALID_ARGUMENT 0s", customerA + " DECISION_ALLOWED",
		customerA + " DECISION_BLOCKED", "PARTNER_CENTER_THROTTLED 42s", customerA + " DECISION_ALLOWED",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	record := run.record(t)
	if record["allowed"] != int64(2) || record["blocked"] != int64(1) || record["failed"] != int64(3) ||
		record["level"] != zapcore.WarnLevel || record["code"] != "OK" || !strings.Contains(record["error"].(string), "throttled") {
		t.Errorf("logged as %v", record)
	}
}

func TestAPanicIsAnInternalError(t *testing.T) {
	t.Parallel()
	run := start(t, setup{})
	run.store.broken = true
	_, err := run.client.CheckEligibility(t.Context(), ask(customerA))
	if st := status.Convert(err); tellOf(st) != (told{Code: codes.Internal, Reason: "INTERNAL", Details: 1}) || strings.Contains(st.Message(), "broken") {
		t.Errorf("over grpc: %v", err)
	}
	if !logsPanic(run.logs.FilterMessage("rpc panicked").All()) {
		t.Errorf("over grpc: logged as %v", run.logs.All())
	}
	if record := run.record(t); record["code"] != "INTERNAL" || record["level"] != zapcore.ErrorLevel {
		t.Errorf("over grpc: logged as %v", record)
	}
	got := run.get(t, customerA, "")
	if st := got.status(t); got.StatusCode != http.StatusInternalServerError || st.Code != 13 || strings.Contains(string(got.body), "broken") {
		t.Errorf("over rest: %d %s", got.StatusCode, got.body)
	}
	if !logsPanic(run.logs.FilterMessage("rpc panicked").All()) {
		t.Errorf("over rest: logged as %v", run.logs.All())
	}
}

// logsPanic reports whether entries are the one record of the store's panic.
func logsPanic(entries []observer.LoggedEntry) bool {
	if len(entries) != 1 {
		return false
	}
	fields := entries[0].ContextMap()
	return fields["panic"] == "store is broken" && strings.Contains(fields["stack"].(string), "Peek")
}

func TestMoreThanTheLimitIsTurnedAway(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 2)
	run := start(t, setup{source: noticed(started, silent()), api: ChainConfig{MaxConcurrent: 1}})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := run.client.CheckEligibility(ctx, ask(customerA))
		left <- err
	}()
	<-started

	_, err := run.client.CheckEligibility(t.Context(), ask(customerB))
	if diff := cmp.Diff(told{Code: codes.ResourceExhausted, Reason: "OVERLOADED", Retry: time.Second, Details: 2}, tellOf(status.Convert(err))); diff != "" {
		t.Errorf("over grpc (-want +got):\n%s", diff)
	}
	got := run.get(t, customerB, "")
	if got.StatusCode != http.StatusTooManyRequests || got.status(t).reason() != "OVERLOADED" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("over rest: %d %v %s", got.StatusCode, got.Header, got.body)
	}

	leave()
	if err := <-left; status.Code(err) != codes.Canceled {
		t.Errorf("the first: %v", err)
	}
	for entry := range run.logged { // until the first has ended
		if last := run.logs.FilterField(zapcore.Field{Key: "code", Type: zapcore.StringType, String: "CANCELLED"}); entry.Message == "rpc handled" && last.Len() > 0 {
			break
		}
	}
	if _, err := run.client.CheckEligibility(t.Context(), ask("no-guid")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("after the first has left: %v", err)
	}
}

func TestTimeIsShared(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		timeout string // Grpc-Timeout
		cfg     ChainConfig
		want    told
		code    int
	}{
		"without a deadline the default ends the wait": {
			"",
			ChainConfig{DefaultTimeout: 80 * time.Millisecond, MaxTimeout: time.Second}, // a batch gets the latter
			told{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", time.Second, 2},
			504,
		},
		"a deadline leaves time to say what timed out": {
			"1200m",
			ChainConfig{Reserve: time.Second},
			told{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", time.Second, 2},
			504,
		},
		"a deadline too long is cut": {
			"10H",
			ChainConfig{MaxTimeout: 80 * time.Millisecond},
			told{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", time.Second, 2},
			504,
		},
		"a deadline too short is the caller's own": {
			"45m",
			ChainConfig{},
			told{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", time.Second, 2},
			504,
		},
		"no time at all is the caller's own": {
			"0m",
			ChainConfig{},
			told{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", time.Second, 2},
			504,
		},
	} {
		run := start(t, setup{api: row.cfg})
		headers := []string{"Grpc-Timeout", row.timeout}
		if row.timeout == "" {
			headers = nil
		}
		begun := time.Now()
		got := run.get(t, customerA, "", headers...)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		st := got.status(t)
		if got.StatusCode != row.code || st.Code != int(row.want.Code) || st.reason() != row.want.Reason {
			t.Errorf("%s: over rest %d %s", name, got.StatusCode, got.body)
		}
		wantRetry := ""
		if row.want.Retry > 0 {
			wantRetry = "1"
		}
		if got.Header.Get("Retry-After") != wantRetry {
			t.Errorf("%s: Retry-After %q, want %q", name, got.Header.Get("Retry-After"), wantRetry)
		}
		got = run.post(t, `{"requests":[{"customerId":"`+customerA+`"}]}`, headers...)
		if !strings.Contains(string(got.body), `"`+row.want.Reason+`"`) {
			t.Errorf("%s: in a batch %d %s", name, got.StatusCode, got.body)
		}
		if row.timeout != "" {
			continue
		}
		_, err := run.client.CheckEligibility(t.Context(), ask(customerA))
		if diff := cmp.Diff(row.want, tellOf(status.Convert(err))); diff != "" {
			t.Errorf("%s: over grpc (-want +got):\n%s", name, diff)
		}
	}
}

func TestAWarmAnswerIsGivenHoweverLittleTimeIsLeft(t *testing.T) {
	t.Parallel()
	run := warm(t, time.Minute)
	for _, timeout := range []string{"0m", "1n", "10m"} {
		if got := run.get(t, customerA, "", "Grpc-Timeout", timeout); got.StatusCode != http.StatusOK {
			t.Errorf("with %s left: %d %s", timeout, got.StatusCode, got.body)
		}
	}
}

func TestACallersMistakeStaysAMistakeHoweverLittleTimeIsLeft(t *testing.T) {
	t.Parallel()
	run := start(t, setup{})
	if got := run.get(t, "no-guid", "", "Grpc-Timeout", "0m"); got.StatusCode != http.StatusBadRequest {
		t.Errorf("%d %s", got.StatusCode, got.body)
	}
}

func TestACallerWhoLeavesIsNotAFailure(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 2)
	run := start(t, setup{source: noticed(started, silent())})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-started
		leave()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, run.rest+"/v1/customers/"+customerA+"/eligibility", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := run.http.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	if record := run.record(t); record["code"] != "CANCELLED" || record["level"] != zapcore.InfoLevel {
		t.Errorf("logged as %v", record)
	}
}
