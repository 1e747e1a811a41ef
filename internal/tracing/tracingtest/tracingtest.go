// Package tracingtest is an OpenTelemetry collector for tests: it serves
// OTLP/gRPC on a real socket and records the spans and metrics it receives.
package tracingtest

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	metricscollectorv1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// patience bounds the wait of Await.
const patience = 30 * time.Second

// Collector receives spans and metrics. It is safe for concurrent use. When the test ends,
// it stops.
type Collector struct {
	// URL is the endpoint, in clear text on the loopback interface.
	URL string

	collectorv1.UnimplementedTraceServiceServer

	tb       testing.TB
	mu       sync.Mutex
	requests []*collectorv1.ExportTraceServiceRequest          // guarded by mu
	metrics  []*metricscollectorv1.ExportMetricsServiceRequest // guarded by mu
	metadata metadata.MD                                       // of the last request; guarded by mu
	mood     mood                                              // guarded by mu
	attempts int                                               // requests that arrived, recorded or not; guarded by mu
}

// Start starts a collector.
func Start(tb testing.TB) *Collector {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &Collector{URL: "http://" + listener.Addr().String(), tb: tb}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	metricscollectorv1.RegisterMetricsServiceServer(server, metricsService{collector: c})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	tb.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return c
}

// Export implements the service of OTLP.
func (c *Collector) Export(ctx context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	if err := c.react(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, req)
	c.metadata, _ = metadata.FromIncomingContext(ctx)
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// metricsService is the service of OTLP for metrics.
type metricsService struct {
	metricscollectorv1.UnimplementedMetricsServiceServer

	collector *Collector
}

// Export implements the service of OTLP.
func (s metricsService) Export(ctx context.Context, req *metricscollectorv1.ExportMetricsServiceRequest) (*metricscollectorv1.ExportMetricsServiceResponse, error) {
	c := s.collector
	if err := c.react(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metrics = append(c.metrics, req)
	c.metadata, _ = metadata.FromIncomingContext(ctx)
	return new(metricscollectorv1.ExportMetricsServiceResponse), nil
}

// react returns the error of a request that is not recorded.
func (c *Collector) react(ctx context.Context) error {
	switch c.attempt() {
	case stalling:
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	case refusing:
		return status.Error(codes.InvalidArgument, "refused")
	case taking:
	}
	return nil
}

func (c *Collector) attempt() mood {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts++
	return c.mood
}

// mood is the collector's reaction to a request.
type mood int

const (
	taking mood = iota
	stalling
	refusing
)

// Stall makes every further request hang until its client gives up.
func (c *Collector) Stall() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mood = stalling
}

// Refuse answers every further request with an error that must not be retried.
func (c *Collector) Refuse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mood = refusing
}

// Attempts returns the number of requests that arrived.
func (c *Collector) Attempts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts
}

// Metadata returns the metadata of the last request that was recorded.
func (c *Collector) Metadata() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metadata
}

// Requests returns the recorded requests in order.
func (c *Collector) Requests() []*collectorv1.ExportTraceServiceRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// MetricRequests returns the recorded requests with metrics in order.
func (c *Collector) MetricRequests() []*metricscollectorv1.ExportMetricsServiceRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.metrics)
}

// Metrics returns the metrics of the last request by name.
func (c *Collector) Metrics() map[string]*metricsv1.Metric {
	all := make(map[string]*metricsv1.Metric)
	requests := c.MetricRequests()
	if len(requests) == 0 {
		return all
	}
	for _, resource := range requests[len(requests)-1].GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				all[metric.GetName()] = metric
			}
		}
	}
	return all
}

// Spans returns the spans of all recorded requests.
func (c *Collector) Spans() []*tracev1.Span {
	var spans []*tracev1.Span
	for _, request := range c.Requests() {
		for _, resource := range request.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				spans = append(spans, scope.GetSpans()...)
			}
		}
	}
	return spans
}

// Await waits until holds returns true. If it takes too long, the test fails.
func (c *Collector) Await(what string, holds func() bool) {
	c.tb.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			c.tb.Fatalf("waited %v in vain for: %s", patience, what)
		}
	}
}
