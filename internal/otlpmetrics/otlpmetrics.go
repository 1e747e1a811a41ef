// Package otlpmetrics sends the metrics of the process to an OpenTelemetry collector:
// the same that /metrics shows.
package otlpmetrics

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/logging"
	"github.com/eligibilityd/eligibilityd/internal/tracing"
)

const (
	// sendTimeout bounds one request. A failed one is not repeated: the next has the
	// totals of then.
	sendTimeout = 10 * time.Second
	// flushTimeout bounds Flush, even if its ctx allows more.
	flushTimeout = 2 * time.Second
	// failureInterval is the minimum time between records of failures.
	failureInterval = time.Minute
)

// Config configures an [Exporter]. All but Headers, Version and Logger is required.
type Config struct {
	// Endpoint is the collector's OTLP/gRPC endpoint: a URL with http, for a
	// connection in clear text, or https, and without a path.
	Endpoint string
	// Headers are sent with every request, such as an authorization.
	Headers map[string]string
	// Interval is the time between two requests.
	Interval time.Duration
	// Gatherer has the metrics.
	Gatherer prometheus.Gatherer
	// Version is the service's version.
	Version string
	// Logger gets a record, at most once a minute, if metrics could not be sent; nil
	// means none.
	Logger *zap.Logger
}

// Exporter sends metrics. No caller of the service waits for it.
type Exporter struct {
	cfg       Config
	resource  *resource.Resource
	metrics   metric.Producer
	condition *health.Component
	exporter  *otlpmetricgrpc.Exporter // since Run
}

// New builds an Exporter. It makes no connection and starts no goroutine.
func New(cfg Config) (*Exporter, error) {
	if cfg.Endpoint == "" || cfg.Gatherer == nil || cfg.Interval <= 0 {
		return nil, errors.New("otlpmetrics: endpoint, gatherer and interval are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	cfg.Logger = logging.Limit(cfg.Logger, logging.NewLimiter(1, failureInterval))
	described, err := tracing.Resource(cfg.Version)
	if err != nil {
		return nil, err
	}
	return &Exporter{cfg: cfg, resource: described, condition: health.New(nil), metrics: bridge.NewMetricProducer(bridge.WithGatherer(cfg.Gatherer))}, nil
}

// Run sends the metrics at each interval until ctx ends; [Exporter.Flush] sends their
// last values. Call it once. It fails only if the endpoint is invalid.
func (e *Exporter) Run(ctx context.Context) error {
	var err error
	e.exporter, err = otlpmetricgrpc.New(ctx,
		otlpmetricgrpc.WithEndpointURL(e.cfg.Endpoint),
		otlpmetricgrpc.WithHeaders(e.cfg.Headers),
		otlpmetricgrpc.WithTimeout(sendTimeout),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}))
	if err != nil {
		return errors.New("otlpmetrics: the endpoint is invalid")
	}
	tick := time.NewTicker(e.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.send(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// Flush sends the last values and closes the connection, within ctx and two seconds at
// most. Call it once, after Run has returned.
func (e *Exporter) Flush(ctx context.Context) {
	if e.exporter == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	e.send(ctx)
	_ = e.exporter.Shutdown(ctx) // nothing is in flight any more
}

func (e *Exporter) send(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	scopes, err := e.metrics.Produce(bounded)
	if err == nil {
		decodeTraces(scopes)
		err = e.exporter.Export(bounded, &metricdata.ResourceMetrics{Resource: e.resource, ScopeMetrics: scopes})
	}
	switch {
	case err == nil:
		e.condition.OK()
	case !errors.Is(ctx.Err(), context.Canceled):
		e.condition.Failed(tracing.FailureKind(err))
		e.cfg.Logger.Warn("metrics not sent; the next time has the totals of then",
			zap.Duration("next", e.cfg.Interval), zap.String("cause", cause(err)))
	}
}

// Health returns how the sending of metrics fares, by the last request. The kinds of
// errors are those of tracing.FailureKind. It does not block.
func (e *Exporter) Health() health.Condition { return e.condition.Read() }

// cause returns why metrics were not sent: a gRPC code. The collector's text is not
// repeated.
func cause(err error) string {
	if from, ok := status.FromError(err); ok {
		return from.Code().String()
	}
	return status.FromContextError(err).Code().String()
}

// decodeTraces decodes the trace IDs of exemplars, which the bridge leaves as text:
// collectors reject a request with an ID that has not 16 bytes.
func decodeTraces(scopes []metricdata.ScopeMetrics) {
	for _, scope := range scopes {
		for _, m := range scope.Metrics {
			histogram, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				continue
			}
			for _, point := range histogram.DataPoints {
				for i := range point.Exemplars {
					id, err := hex.DecodeString(string(point.Exemplars[i].TraceID))
					if err != nil || len(id) != 16 {
						id = nil
					}
					point.Exemplars[i].TraceID = id
				}
			}
		}
	}
}
