package pcclient

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// A fetch records its calls in the span of the caller's context. The trace ends
// here: Partner Center and the login host get no trace headers.

// traceRequest notes one request that has been answered or has failed.
func (f *fetch) traceRequest(ctx context.Context, fail *APIError) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent("request", trace.WithAttributes(
		attribute.Int("http.request.resend_count", f.call.Attempts-1),
		attribute.Int("http.response.status_code", f.call.Status),
		attribute.String("eligibility.ms_request_id", f.call.RequestID),
		attribute.String("eligibility.outcome", outcome(fail))))
}

// traceEnd notes how the fetch ended.
func (f *fetch) traceEnd(ctx context.Context, fail *APIError) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(
		attribute.String("http.request.method", "GET"),
		attribute.String("eligibility.partner_center_op", string(f.op)),
		attribute.Int("eligibility.upstream_attempts", f.call.Attempts),
		attribute.Int("http.response.status_code", f.call.Status),
		attribute.String("eligibility.ms_correlation_id", f.call.CorrelationID),
		attribute.String("eligibility.outcome", outcome(fail)))
}
