package cache

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// startSpan starts the span of an exchange with Redis about so many keys, if
// the caller is traced. The keys themselves stay out of it.
func startSpan(ctx context.Context, op string, keys int) (context.Context, trace.Span) {
	caller := trace.SpanFromContext(ctx)
	if !caller.SpanContext().IsSampled() {
		return ctx, noop.Span{}
	}
	return caller.TracerProvider().Tracer("github.com/eligibilityd/eligibilityd/internal/cache").Start(ctx, "redis "+op, //nolint:spancheck // the caller ends it
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			attribute.String("db.system.name", "redis"),
			attribute.String("db.operation.name", op),
			attribute.Int("db.operation.batch.size", keys)))
}

// endLoad ends the span of a lookup with the number of keys that it found.
func endLoad(span trace.Span, found []loaded) {
	if span.IsRecording() {
		hits := 0
		for _, loaded := range found {
			if loaded.evidence != nil {
				hits++
			}
		}
		span.SetAttributes(attribute.Int("db.response.returned_rows", hits))
	}
	span.End()
}
