package tracing

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// queue receives ended spans. The SDK's own processor is not used: it starts a
// goroutine in its constructor and prints failures to standard error.
type queue struct {
	spans chan sdktrace.ReadOnlySpan
	lost  *atomic.Int64 // spans that the log has not reported yet
	name  func(customer string) string
}

var _ sdktrace.SpanProcessor = queue{}

// OnStart does nothing.
func (queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd queues a span if there is room.
func (q queue) OnEnd(span sdktrace.ReadOnlySpan) {
	if q.name != nil {
		span = renamed{span, q.name}
	}
	select {
	case q.spans <- span:
	default:
		q.lost.Add(1)
	}
}

// customerID is the attribute of the spans that are about one customer.
const customerID = attribute.Key("eligibility.customer_id")

// renamed is a span whose customer has another name.
type renamed struct {
	sdktrace.ReadOnlySpan

	name func(customer string) string
}

// Attributes returns those of the span, with the customer's other name.
func (r renamed) Attributes() []attribute.KeyValue {
	attributes := slices.Clone(r.ReadOnlySpan.Attributes())
	for i, a := range attributes {
		if a.Key == customerID {
			attributes[i] = customerID.String(r.name(a.Value.AsString()))
		}
	}
	return attributes
}

// ForceFlush does nothing: Run sends.
func (queue) ForceFlush(context.Context) error { return nil }

// Shutdown does nothing: Run sends.
func (queue) Shutdown(context.Context) error { return nil }

// losses logs lost spans, at most once an interval. Only Run uses it.
type losses struct {
	logger     *zap.Logger
	now        func() time.Time
	unreported *atomic.Int64
	limit      *logging.Limiter
}

// report receives the result of a batch; err is nil if it was sent.
func (l *losses) report(err error) {
	if l.unreported.Load() == 0 {
		return
	}
	if _, ok := l.limit.Admit(l.now()); !ok {
		return
	}
	l.logger.Warn("spans lost; continuing without them",
		zap.Int64("spans", l.unreported.Swap(0)), zap.Duration("next_report_in", lossInterval), zap.Error(err))
}
