package api

import (
	"context"
	"math"
	"math/rand/v2"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Tracer decides which requests are traced and starts their spans. Those that
// are not cost a comparison. The zero value traces none.
type Tracer struct {
	spans trace.Tracer // nil traces none
	below uint64       // a random number of 53 bits below it traces a request that nobody decided on
}

func newTracer(spans trace.Tracer, ratio float64) Tracer {
	return Tracer{spans: spans, below: uint64(math.Ceil(ratio * (1 << 53)))}
}

// Samples reports whether a request with that traceparent is traced: as its
// caller decided and, if no caller did, at random.
func (t *Tracer) Samples(parent Traceparent) bool {
	switch {
	case t.spans == nil:
		return false
	case parent != "":
		return parent.sampled()
	default:
		return rand.Uint64()>>11 < t.below //nolint:gosec // nobody gains by guessing it
	}
}

// Start starts the span of a request that Samples has chosen, and returns its
// traceparent: the caller's if there is one.
func (t *Tracer) Start(ctx context.Context, name string, parent Traceparent, state string, attributes ...attribute.KeyValue) (context.Context, trace.Span, Traceparent) {
	if parent != "" {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent.spanContext(state))
	}
	ctx, span := t.spans.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes...))
	if parent == "" {
		own := span.SpanContext()
		parent = Traceparent("00-" + own.TraceID().String() + "-" + own.SpanID().String() + "-" + own.TraceFlags().String())
	}
	return ctx, span, parent
}

// child starts a span below that of the RPC, if it has one.
func (c *call) child(ctx context.Context, name string) (context.Context, trace.Span) {
	if c.span == nil {
		return ctx, noop.Span{}
	}
	return c.span.TracerProvider().Tracer("github.com/eligibilityd/eligibilityd/internal/api").Start(ctx, name) //nolint:spancheck // the caller ends it
}

// endSpan sets what the log has of the RPC on its span, and ends it.
func (c *call) endSpan(code codes.Code, failure *eligibility.Error) {
	if c.span == nil {
		return
	}
	if c.series.via == viaGRPC { // REST's goes on until the body is written
		defer c.span.End()
	}
	c.span.SetAttributes(
		attribute.String("rpc.response.status_code", CodeName(code)),
		attribute.String("eligibility.request_id", c.id()))
	if c.caller != nil {
		c.span.SetAttributes(attribute.String("eligibility.caller", c.caller.Name))
	}
	if c.knowsCustomerID {
		c.span.SetAttributes(attribute.String("eligibility.customer_id", c.CustomerID.String()))
	}
	switch {
	case c.partner != nil:
		c.span.SetAttributes(attribute.String("eligibility.partner", c.partner.name))
	case c.partners > 1:
		c.span.SetAttributes(attribute.Int("eligibility.partners", c.partners))
	}
	if c.operation != eligibility.OperationPurchase {
		c.span.SetAttributes(attribute.String("eligibility.operation", c.operation.String()))
	}
	switch {
	case failure != nil:
		// What the caller did wrong is no error of the service.
		if f := FaultOf(failure.Kind); f.Level > zapcore.InfoLevel {
			c.span.SetStatus(otelcodes.Error, f.Reason)
		}
	case c.Answer.Decision != eligibility.DecisionNone:
		c.span.SetAttributes(
			attribute.String("eligibility.decision", decision(c.Answer.Decision).String()),
			attribute.String("eligibility.source", evidenceSource(c.Answer.Tier).String()),
			attribute.Bool("eligibility.stale", c.Answer.Stale))
	case c.tally != nil:
		c.span.SetAttributes(
			attribute.Int("eligibility.allowed", c.tally.allowed),
			attribute.Int("eligibility.blocked", c.tally.blocked),
			attribute.Int("eligibility.failed", c.tally.failed))
	case c.prefetched != nil:
		c.span.SetAttributes(
			attribute.Int("eligibility.fresh", c.prefetched.Fresh),
			attribute.Int("eligibility.fetching", c.prefetched.Fetching),
			attribute.Int("eligibility.refused", c.prefetched.Refused))
	}
}
