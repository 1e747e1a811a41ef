package server

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The span of a request says what its record in the log says, over either
// transport, for answers and errors.
func TestTheSpanOfARequest(t *testing.T) {
	t.Parallel()
	spans, recorder := recorded()
	failing := fails(eligibility.Error{Kind: eligibility.KindThrottled, Err: fmt.Errorf("a cause that stays inside")})
	allowing := start(t, setup{source: approved(), api: ChainConfig{Tracer: spans}})
	broken := start(t, setup{source: failing, api: ChainConfig{Tracer: spans}})
	ctx := metadata.AppendToOutgoingContext(t.Context(), headerTraceparent, exampleTrace, headerTracestate, "vendor=1")
	headers := []string{"Traceparent", exampleTrace, "Tracestate", "vendor=1", "X-Request-Id", "order-1"}

	const grpcName, restName = "eligibility.v1.EligibilityService/CheckEligibility", "GET /v1/customers/{customer_id}/eligibility"
	type seen struct {
		Name, Code, Decision, Status string
		HTTP                         int64
	}
	for _, row := range []struct {
		ask  func()
		want seen
	}{
		{func() { _, _ = allowing.client.CheckEligibility(ctx, ask(customerA)) }, seen{Name: grpcName, Code: "OK", Decision: "DECISION_ALLOWED"}},
		{func() { _, _ = broken.client.CheckEligibility(ctx, ask(customerA)) }, seen{Name: grpcName, Code: "UNAVAILABLE", Status: "PARTNER_CENTER_THROTTLED"}},
		{func() { _, _ = broken.client.CheckEligibility(ctx, ask("no-guid")) }, seen{Name: grpcName, Code: "INVALID_ARGUMENT"}},
		{func() { allowing.get(t, customerA, "", headers...) }, seen{Name: restName, Code: "OK", Decision: "DECISION_ALLOWED", HTTP: http.StatusOK}},
		{func() { broken.get(t, customerA, "", headers...) }, seen{Name: restName, Code: "UNAVAILABLE", Status: "PARTNER_CENTER_THROTTLED", HTTP: http.StatusServiceUnavailable}},
		{func() {
			tag := allowing.get(t, customerA, "").Header.Get("Etag")
			allowing.get(t, customerA, "", append(headers, "If-None-Match", tag)...)
		}, seen{Name: restName, Code: "OK", Decision: "DECISION_ALLOWED", HTTP: http.StatusNotModified}},
		{
			func() { broken.post(t, `{"requests":[{"customerId":"`+customerA+`"}]}`, headers...) },
			seen{Name: "POST /v1/customers:batchCheckEligibility", Code: "OK", HTTP: http.StatusOK},
		},
	} {
		recorder.Reset()
		row.ask()
		var roots []sdktrace.ReadOnlySpan
		for _, span := range recorder.Ended() {
			if span.Parent().IsRemote() {
				roots = append(roots, span)
			}
		}
		if len(roots) != 1 {
			t.Errorf("%+v: %d spans of requests", row.want, len(roots))
			continue
		}
		span := roots[0]
		said := attribute.NewSet(span.Attributes()...)
		text := func(key attribute.Key) string { value, _ := said.Value(key); return value.AsString() }
		httpStatus, _ := said.Value("http.response.status_code")
		got := seen{span.Name(), text("rpc.response.status_code"), text("eligibility.decision"), span.Status().Description, httpStatus.AsInt64()}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if (span.Status().Code == otelcodes.Error) != (row.want.Status != "") {
			t.Errorf("%+v: status %v", row.want, span.Status())
		}
		if parent := span.Parent(); parent.TraceID().String() != exampleTrace[3:35] || parent.SpanID().String() != exampleTrace[36:52] ||
			span.SpanContext().TraceState().Get("vendor") != "1" {
			t.Errorf("%+v: below %v", row.want, parent)
		}
		if span.SpanKind() != trace.SpanKindServer || text("eligibility.request_id") == "" {
			t.Errorf("%+v: %v %v", row.want, span.SpanKind(), span.Attributes())
		}
	}
}
