package tracing

import (
	"context"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// queue receives ended spans. The SDK's own processor is not used: it starts a
// goroutine in its constructor and prints failures to standard error.
type queue struct {
	spans chan sdktrace.ReadOnlySpan
	lost  *atomic.Int64 // spans that the log has not reported yet
}

var _ sdktrace.SpanProcessor = queue{}

// OnStart does nothing.
func (queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd queues a span if there is room.
func (q queue) OnEnd(span sdktrace.ReadOnlySpan) {
	select {
	case q.spans <- span:
	default:
		q.lost.Add(1)
	}
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
