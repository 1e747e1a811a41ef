package evidence

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// traceScope names this package as the maker of its spans.
const traceScope = "github.com/eligibilityd/eligibilityd/internal/evidence"

// A span in a context carries its own exporter, so nothing here depends on whether
// tracing is on. If the caller is not traced, there is no span.

// startFetchSpan starts the span of a fetch as a child of its first caller's span.
// It may end after that one.
func startFetchSpan(ctx context.Context, key eligibility.Key) (context.Context, trace.Span) {
	asking := trace.SpanFromContext(ctx)
	if !asking.SpanContext().IsSampled() {
		return ctx, noop.Span{}
	}
	return asking.TracerProvider().Tracer(traceScope).Start(ctx, "fetch "+key.Facet.String(), //nolint:spancheck // the fetch ends it
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("eligibility.customer_id", key.CustomerID.String())))
}

// startRenewal starts the span of an early refresh, which no caller waits for: a
// trace of its own, linked to the check that scheduled it. noticing is the span of
// that check; nil if it is not traced.
func startRenewal(noticing trace.Span, key eligibility.Key) (context.Context, trace.Span) {
	if noticing == nil {
		return context.Background(), noop.Span{}
	}
	return noticing.TracerProvider().Tracer(traceScope).Start(context.Background(), "renew "+key.Facet.String(), //nolint:spancheck // the caller ends it
		trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: noticing.SpanContext()}))
}

// link adds a link to the fetch's span to the span of a caller who waits for it,
// unless the fetch's span is its child anyway.
func (f *fetch) link(ctx context.Context) {
	waiting, fetching := trace.SpanFromContext(ctx), f.span.SpanContext()
	if fetching.IsValid() && !waiting.SpanContext().Equal(f.asking) {
		waiting.AddLink(trace.Link{SpanContext: fetching})
	}
}

// endSpan ends the fetch's span. f.err has been set.
func (f *fetch) endSpan() {
	if f.err != nil {
		kind := eligibility.KindInternal
		if known, ok := errors.AsType[*eligibility.Error](f.err); ok {
			kind = known.Kind
		}
		f.span.SetStatus(codes.Error, kind.String())
	}
	f.span.End()
}
