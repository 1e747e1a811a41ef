package api_test

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

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestIdentityIsTakenAndReturned(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	// wantID is what REST returns. Over gRPC, "none" returns nothing.
	for name, row := range map[string]struct{ customer, id, trace, wantID, wantTrace string }{
		"an answer":           {apitest.CustomerA, "order-1", apitest.ExampleTrace, "order-1", apitest.ExampleTrace},
		"an error":            {"no-guid", "order-2", apitest.ExampleTrace, "order-2", apitest.ExampleTrace},
		"nothing sent":        {apitest.CustomerA, "", "", "none", ""},
		"nothing sent, error": {"no-guid", "", "", "none", ""},
		"nothing sane sent":   {apitest.CustomerA, "a b", "00-0", "new", ""},
		"nothing sane, error": {"no-guid", strings.Repeat("x", 200), "x", "new", ""},
	} {
		verify := func(via, id, trace string) {
			record := run.Record(t)
			if row.wantID == "none" && via == "grpc" {
				if id != "" {
					t.Errorf("%s over gRPC: request ID %q", name, id)
				}
				id, _ = record["request_id"].(string)
			}
			if row.wantID == "new" || row.wantID == "none" {
				if _, err := uuid.Parse(id); err != nil {
					t.Errorf("%s over %s: request ID %q", name, via, id)
				}
			} else if id != row.wantID {
				t.Errorf("%s over %s: request ID %q, want %q", name, via, id, row.wantID)
			}
			if trace != row.wantTrace {
				t.Errorf("%s over %s: traceparent %q, want %q", name, via, trace, row.wantTrace)
			}
			if record["request_id"] != id || record["via"] != via {
				t.Errorf("%s over %s: logged as %v", name, via, record)
			}
			if trace != "" && record["trace_id"] != trace[3:35] {
				t.Errorf("%s over %s: trace ID %v of %s", name, via, record["trace_id"], trace)
			}
		}
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", row.id, "traceparent", row.trace)
		_, _ = run.Client.CheckEligibility(ctx, apitest.Ask(row.customer), grpc.Header(&header))
		verify("grpc", strings.Join(header.Get("x-request-id"), ","), strings.Join(header.Get("traceparent"), ","))

		got := run.Get(t, row.customer, "", "X-Request-Id", row.id, "Traceparent", row.trace)
		if len(got.Header.Values("X-Request-Id")) != 1 {
			t.Errorf("%s: request IDs %q", name, got.Header.Values("X-Request-Id"))
		}
		verify("rest", got.Header.Get("X-Request-Id"), got.Header.Get("Traceparent"))
	}
}

func TestGRPCRefusesWhatRESTRefuses(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	_, err := run.Client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{
		CustomerId: "no-guid", Segment: 9, MaxAge: durationpb.New(-1),
		MinEvidenceTime: timestamppb.New(time.Now().Add(time.Minute)),
	})
	want := []string{"customer_id", "segment", "max_age", "min_evidence_time"}
	if diff := cmp.Diff(want, apitest.ViolatedBy(err)); status.Code(err) != codes.InvalidArgument || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	_, err = run.Client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{
		CustomerId: apitest.CustomerA, MaxAge: &durationpb.Duration{Seconds: 1, Nanos: -1},
		MinEvidenceTime: &timestamppb.Timestamp{Nanos: -1},
	})
	if diff := cmp.Diff([]string{"max_age", "min_evidence_time"}, apitest.ViolatedBy(err)); diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, n := range []int{0, api.MaxBatch + 1} {
		batch := &eligibilityv1.BatchCheckEligibilityRequest{Requests: make([]*eligibilityv1.CheckEligibilityRequest, n)}
		for i := range batch.GetRequests() {
			batch.Requests[i] = apitest.Ask(apitest.CustomerA)
		}
		_, err = run.Client.BatchCheckEligibility(t.Context(), batch)
		if diff := cmp.Diff([]string{"requests"}, apitest.ViolatedBy(err)); diff != "" {
			t.Errorf("a batch of %d: %v (-want +got):\n%s", n, err, diff)
		}
	}
}

func TestABatchAnswersInOrderAndFailsByItem(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		if id.String() == apitest.CustomerB {
			return apitest.Fails(eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: 42 * time.Second})(ctx, id, facet)
		}
		return apitest.Approved()(ctx, id, facet)
	}})
	resp, err := run.Client.BatchCheckEligibility(t.Context(), &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{
		apitest.Ask(apitest.CustomerB), apitest.Ask("no-guid"), apitest.Ask(apitest.CustomerA), {CustomerId: apitest.CustomerA, Segment: eligibilityv1.Segment_SEGMENT_NONPROFIT}, apitest.Ask(apitest.CustomerB), apitest.Ask(apitest.CustomerA),
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
		"PARTNER_CENTER_THROTTLED 42s", "INVALID_ARGUMENT 0s", apitest.CustomerA + " DECISION_ALLOWED",
		apitest.CustomerA + " DECISION_BLOCKED", "PARTNER_CENTER_THROTTLED 42s", apitest.CustomerA + " DECISION_ALLOWED",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	record := run.Record(t)
	if record["allowed"] != int64(2) || record["blocked"] != int64(1) || record["failed"] != int64(3) ||
		record["level"] != zapcore.WarnLevel || record["code"] != "OK" || !strings.Contains(record["error"].(string), "throttled") {
		t.Errorf("logged as %v", record)
	}
}

func TestAPanicIsAnInternalError(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	run.Store.Broken = true
	_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA))
	if st := status.Convert(err); apitest.OutcomeOf(st) != (apitest.Outcome{Code: codes.Internal, Reason: "INTERNAL", Details: 1}) || strings.Contains(st.Message(), "broken") {
		t.Errorf("over grpc: %v", err)
	}
	if !logsPanic(run.Logs.FilterMessage("rpc panicked").All()) {
		t.Errorf("over grpc: logged as %v", run.Logs.All())
	}
	if record := run.Record(t); record["code"] != "INTERNAL" || record["level"] != zapcore.ErrorLevel {
		t.Errorf("over grpc: logged as %v", record)
	}
	got := run.Get(t, apitest.CustomerA, "")
	if st := got.Failure(t); got.StatusCode != http.StatusInternalServerError || st.Code != 13 || strings.Contains(string(got.Body), "broken") {
		t.Errorf("over rest: %d %s", got.StatusCode, got.Body)
	}
	if !logsPanic(run.Logs.FilterMessage("rpc panicked").All()) {
		t.Errorf("over rest: logged as %v", run.Logs.All())
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

func TestMoreThanTheLimitIsRefused(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 2)
	run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, apitest.Silent()), API: api.Config{MaxConcurrent: 1}})
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := run.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA))
		left <- err
	}()
	<-started

	_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerB))
	if diff := cmp.Diff(apitest.Outcome{Code: codes.ResourceExhausted, Reason: "OVERLOADED", Retry: time.Second, Details: 2}, apitest.OutcomeOf(status.Convert(err))); diff != "" {
		t.Errorf("over grpc (-want +got):\n%s", diff)
	}
	got := run.Get(t, apitest.CustomerB, "")
	if got.StatusCode != http.StatusTooManyRequests || got.Failure(t).Reason() != "OVERLOADED" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("over rest: %d %v %s", got.StatusCode, got.Header, got.Body)
	}

	leave()
	if err := <-left; status.Code(err) != codes.Canceled {
		t.Errorf("the first: %v", err)
	}
	for entry := range run.Logged { // until the first has ended
		if last := run.Logs.FilterField(zapcore.Field{Key: "code", Type: zapcore.StringType, String: "CANCELLED"}); entry.Message == "rpc handled" && last.Len() > 0 {
			break
		}
	}
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask("no-guid")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("after the first has left: %v", err)
	}
}

func TestTimeIsShared(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		timeout string // Grpc-Timeout
		cfg     api.Config
		want    apitest.Outcome
		code    int
	}{
		"without a deadline the default ends the wait": {
			"",
			api.Config{DefaultTimeout: 80 * time.Millisecond, MaxTimeout: time.Second}, // a batch gets the latter
			apitest.Outcome{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: time.Second, Details: 2},
			504,
		},
		"a deadline leaves time to say what timed out": {
			"1200m",
			api.Config{Reserve: time.Second},
			apitest.Outcome{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: time.Second, Details: 2},
			504,
		},
		"a deadline too long is cut": {
			"10H",
			api.Config{MaxTimeout: 80 * time.Millisecond},
			apitest.Outcome{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: time.Second, Details: 2},
			504,
		},
		"a deadline too short is the caller's own": {
			"45m",
			api.Config{},
			apitest.Outcome{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: time.Second, Details: 2},
			504,
		},
		"no time at all is the caller's own": {
			"0m",
			api.Config{},
			apitest.Outcome{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: time.Second, Details: 2},
			504,
		},
	} {
		run := servertest.Start(t, servertest.Setup{API: row.cfg})
		headers := []string{"Grpc-Timeout", row.timeout}
		if row.timeout == "" {
			headers = nil
		}
		begun := time.Now()
		got := run.Get(t, apitest.CustomerA, "", headers...)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: it took %v", name, took)
		}
		st := got.Failure(t)
		if got.StatusCode != row.code || st.Code != int(row.want.Code) || st.Reason() != row.want.Reason {
			t.Errorf("%s: over rest %d %s", name, got.StatusCode, got.Body)
		}
		wantRetry := ""
		if row.want.Retry > 0 {
			wantRetry = "1"
		}
		if got.Header.Get("Retry-After") != wantRetry {
			t.Errorf("%s: Retry-After %q, want %q", name, got.Header.Get("Retry-After"), wantRetry)
		}
		got = run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"}]}`, headers...)
		if !strings.Contains(string(got.Body), `"`+row.want.Reason+`"`) {
			t.Errorf("%s: in a batch %d %s", name, got.StatusCode, got.Body)
		}
		if row.timeout != "" {
			continue
		}
		_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA))
		if diff := cmp.Diff(row.want, apitest.OutcomeOf(status.Convert(err))); diff != "" {
			t.Errorf("%s: over grpc (-want +got):\n%s", name, diff)
		}
	}
}

func TestAWarmAnswerIsGivenHoweverLittleTimeIsLeft(t *testing.T) {
	t.Parallel()
	run := servertest.StartAged(t, time.Minute)
	for _, timeout := range []string{"0m", "1n", "10m"} {
		if got := run.Get(t, apitest.CustomerA, "", "Grpc-Timeout", timeout); got.StatusCode != http.StatusOK {
			t.Errorf("with %s left: %d %s", timeout, got.StatusCode, got.Body)
		}
	}
}

func TestACallersMistakeStaysAMistakeHoweverLittleTimeIsLeft(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	if got := run.Get(t, "no-guid", "", "Grpc-Timeout", "0m"); got.StatusCode != http.StatusBadRequest {
		t.Errorf("%d %s", got.StatusCode, got.Body)
	}
}

func TestACallerWhoLeavesIsNotAFailure(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 2)
	run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, apitest.Silent())})
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-started
		leave()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, run.REST+"/v1/customers/"+apitest.CustomerA+"/eligibility", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := run.HTTP.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	if record := run.Record(t); record["code"] != "CANCELLED" || record["level"] != zapcore.InfoLevel {
		t.Errorf("logged as %v", record)
	}
}
