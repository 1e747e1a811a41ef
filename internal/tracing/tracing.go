// Package tracing sends the spans of the service to an OpenTelemetry collector.
//
// internal/api decides which requests are traced when they arrive; a
// [Pipeline]'s tracer samples every span that is started with it.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

const (
	// queueSize bounds the spans that wait to be sent, batchSize those in one
	// request, and sendEvery how long a span waits.
	queueSize = 2048
	batchSize = 512
	sendEvery = 5 * time.Second
	// sendTimeout bounds the sending of one batch, retries included.
	sendTimeout = 10 * time.Second
	// flushTimeout bounds Flush, even if its ctx allows more.
	flushTimeout = 2 * time.Second
	// lossInterval is the minimum time between reports of lost spans.
	lossInterval = 10 * time.Second
)

// Config configures a [Pipeline]. The zero value has no collector and is
// rejected: if tracing is off, there is no Pipeline.
type Config struct {
	// Endpoint is the collector's OTLP/gRPC endpoint: a URL with http, for a
	// connection in clear text, or https, and without a path. Required.
	Endpoint string
	// Headers are sent with every batch, such as an authorization.
	Headers map[string]string
	// Version is the service's version in spans.
	Version string
	// CustomerName returns what stands for the id of a customer in spans; nil means the
	// id itself.
	CustomerName func(id string) string
	// Now is the clock of Logger's interval; nil means time.Now.
	Now func() time.Time
	// Logger gets a record, at most every ten seconds, if spans were lost; nil means none.
	Logger *zap.Logger
}

// Pipeline collects ended spans and sends them in batches. If the queue is full
// or a batch cannot be sent, spans are lost: no caller waits for a collector.
type Pipeline struct {
	provider  *sdktrace.TracerProvider
	queue     queue
	exporter  *otlptrace.Exporter
	losses    losses
	condition *health.Component
	unsent    []sdktrace.ReadOnlySpan // left by Run for Flush
}

// New builds a Pipeline. It makes no connection and starts no goroutine; spans
// that end before Run are queued. If there is no endpoint, it fails.
func New(cfg Config) (*Pipeline, error) {
	if cfg.Endpoint == "" {
		return nil, errors.New("tracing: endpoint is required")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	described, err := Resource(cfg.Version)
	if err != nil {
		return nil, err
	}
	waiting := queue{spans: make(chan sdktrace.ReadOnlySpan, queueSize), lost: new(atomic.Int64), name: cfg.CustomerName}
	return &Pipeline{
		provider: sdktrace.NewTracerProvider(
			sdktrace.WithResource(described),
			sdktrace.WithSampler(sdktrace.AlwaysSample()),
			sdktrace.WithSpanProcessor(waiting)),
		queue:     waiting,
		condition: health.New(cfg.Now),
		exporter: otlptrace.NewUnstarted(otlptracegrpc.NewClient(
			otlptracegrpc.WithEndpointURL(cfg.Endpoint),
			otlptracegrpc.WithHeaders(cfg.Headers),
			otlptracegrpc.WithTimeout(sendTimeout),
		)),
		losses: losses{logger: cfg.Logger, now: cfg.Now, unreported: waiting.lost, limit: logging.NewLimiter(1, lossInterval)},
	}, nil
}

// Resource describes this process, of that version, to collectors.
func Resource(version string) (*resource.Resource, error) {
	described, err := resource.New(context.Background(),
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "eligibilityd"), attribute.String("service.version", version)),
		resource.WithFromEnv(), // last, so that the operator's setting wins
	)
	if err != nil {
		return nil, fmt.Errorf("describe this process: %w", err)
	}
	return described, nil
}

// Tracer starts spans, all of which the Pipeline sends. It is safe for
// concurrent use.
func (p *Pipeline) Tracer() trace.Tracer {
	return p.provider.Tracer("github.com/eligibilityd/eligibilityd")
}

// Run sends spans until ctx ends; [Pipeline.Flush] sends the rest. Call it
// once. It fails only if the endpoint is invalid.
func (p *Pipeline) Run(ctx context.Context) error {
	if err := p.exporter.Start(ctx); err != nil {
		return fmt.Errorf("tracing: start the exporter: %w", err)
	}
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	batch := make([]sdktrace.ReadOnlySpan, 0, batchSize)
	for ctx.Err() == nil {
		select {
		case span := <-p.queue.spans:
			if batch = append(batch, span); len(batch) == batchSize {
				batch = p.send(ctx, batch)
			}
		case <-tick.C:
			batch = p.send(ctx, batch)
		case <-ctx.Done():
		}
	}
	p.unsent = batch
	return nil
}

// send sends a batch and returns an empty one. If ctx ends first, it returns
// the same batch.
func (p *Pipeline) send(ctx context.Context, batch []sdktrace.ReadOnlySpan) []sdktrace.ReadOnlySpan {
	bounded, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := p.exporter.ExportSpans(bounded, batch)
	if ctx.Err() != nil {
		return batch
	}
	switch {
	case err != nil:
		p.queue.lost.Add(int64(len(batch)))
		p.condition.Failed(FailureKind(err))
	case len(batch) > 0:
		p.condition.OK()
	}
	p.losses.report(err)
	clear(batch)
	return batch[:0]
}

// Flush sends the spans that Run has left and closes the connection, within ctx
// and two seconds at most. Call it once, after Run has returned.
func (p *Pipeline) Flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	batch := p.unsent
	for len(p.queue.spans) > 0 {
		batch = append(batch, <-p.queue.spans)
	}
	if len(batch) > 0 {
		if err := p.exporter.ExportSpans(ctx, batch); err != nil {
			p.queue.lost.Add(int64(len(batch)))
			p.losses.report(err)
		}
	}
	_ = p.exporter.Shutdown(ctx) // nothing is in flight any more
}
