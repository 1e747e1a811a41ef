package api_test

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

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// The span of a request has what its record in the log has, over either
// transport, for answers and errors.
func TestTheSpanOfARequest(t *testing.T) {
	t.Parallel()
	spans, recorder := apitest.RecordSpans()
	failing := apitest.Fails(eligibility.Error{Kind: eligibility.KindThrottled, Err: fmt.Errorf("a cause that stays inside")})
	allowing := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), API: api.Config{Tracer: spans}})
	broken := servertest.Start(t, servertest.Setup{Source: failing, API: api.Config{Tracer: spans}})
	ctx := metadata.AppendToOutgoingContext(t.Context(), api.HeaderTraceparent, apitest.ExampleTrace, api.HeaderTracestate, "vendor=1")
	headers := []string{"Traceparent", apitest.ExampleTrace, "Tracestate", "vendor=1", "X-Request-Id", "order-1"}

	const grpcName, restName = "eligibility.v1.EligibilityService/CheckEligibility", "GET /v1/customers/{customer_id}/eligibility"
	type seen struct {
		Name, Code, Decision, Status string
		HTTP                         int64
	}
	for _, row := range []struct {
		ask  func()
		want seen
	}{
		{func() { _, _ = allowing.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA)) }, seen{Name: grpcName, Code: "OK", Decision: "DECISION_ALLOWED"}},
		{func() { _, _ = broken.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA)) }, seen{Name: grpcName, Code: "UNAVAILABLE", Status: "PARTNER_CENTER_THROTTLED"}},
		{func() { _, _ = broken.Client.CheckEligibility(ctx, apitest.Ask("no-guid")) }, seen{Name: grpcName, Code: "INVALID_ARGUMENT"}},
		{func() { allowing.Get(t, apitest.CustomerA, "", headers...) }, seen{Name: restName, Code: "OK", Decision: "DECISION_ALLOWED", HTTP: http.StatusOK}},
		{func() { broken.Get(t, apitest.CustomerA, "", headers...) }, seen{Name: restName, Code: "UNAVAILABLE", Status: "PARTNER_CENTER_THROTTLED", HTTP: http.StatusServiceUnavailable}},
		{func() {
			tag := allowing.Get(t, apitest.CustomerA, "").Header.Get("Etag")
			allowing.Get(t, apitest.CustomerA, "", append(headers, "If-None-Match", tag)...)
		}, seen{Name: restName, Code: "OK", Decision: "DECISION_ALLOWED", HTTP: http.StatusNotModified}},
		{
			func() { broken.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"}]}`, headers...) },
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
		if parent := span.Parent(); parent.TraceID().String() != apitest.ExampleTrace[3:35] || parent.SpanID().String() != apitest.ExampleTrace[36:52] ||
			span.SpanContext().TraceState().Get("vendor") != "1" {
			t.Errorf("%+v: below %v", row.want, parent)
		}
		if span.SpanKind() != trace.SpanKindServer || text("eligibility.request_id") == "" {
			t.Errorf("%+v: %v %v", row.want, span.SpanKind(), span.Attributes())
		}
	}
}
