package otlpmetrics_test

import (
	"context"
	"encoding/hex"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/otlpmetrics"
	"github.com/eligibilityd/eligibilityd/internal/tracing/tracingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs an exporter until stop, which returns how long the end took.
func run(t *testing.T, cfg otlpmetrics.Config) (stop func() time.Duration) {
	t.Helper()
	e, err := otlpmetrics.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() time.Duration {
		cancel()
		asked := time.Now()
		running.Wait()
		e.Flush(context.Background())
		return time.Since(asked)
	}
}

const traceID = "0af7651916cd43dd8448eb211c80319c"

func registry(t *testing.T) (*prometheus.Registry, prometheus.Counter) { //nolint:ireturn // NewCounter returns one
	t.Helper()
	all := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "eligibility_a_total", Help: "A.", ConstLabels: prometheus.Labels{"partner": "eu"}})
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "eligibility_wait_seconds", Help: "Wait.", Buckets: []float64{1, 2}})
	all.MustRegister(counter, histogram)
	counter.Add(3)
	histogram.Observe(5)
	histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(1.5, prometheus.Labels{"trace_id": traceID})
	return all, counter
}

func TestMetricsReachTheCollector(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	gatherer, counter := registry(t)
	stop := run(t, otlpmetrics.Config{
		Endpoint: collector.URL, Interval: 50 * time.Millisecond, Gatherer: gatherer, Version: "v1.2.3", Headers: map[string]string{"authorization": "Bearer x"},
	})
	collector.Await("two exports", func() bool { return len(collector.MetricRequests()) >= 2 })
	counter.Add(4)
	stop() // sends the last values
	metrics := collector.Metrics()
	points := metrics["eligibility_a_total"].GetSum().GetDataPoints()
	if len(points) != 1 || points[0].GetAsDouble() != 7 || points[0].GetAttributes()[0].GetValue().GetStringValue() != "eu" || !metrics["eligibility_a_total"].GetSum().GetIsMonotonic() {
		t.Errorf("counter %v", points)
	}
	histogram := metrics["eligibility_wait_seconds"].GetHistogram().GetDataPoints()
	if len(histogram) != 1 || histogram[0].GetCount() != 2 || len(histogram[0].GetExemplars()) != 1 || hex.EncodeToString(histogram[0].GetExemplars()[0].GetTraceId()) != traceID {
		t.Errorf("histogram %v", histogram)
	}
	resource := ""
	for _, attribute := range collector.MetricRequests()[0].GetResourceMetrics()[0].GetResource().GetAttributes() {
		resource += attribute.GetKey() + "=" + attribute.GetValue().GetStringValue() + " "
	}
	if !strings.Contains(resource, "service.name=eligibilityd ") || !strings.Contains(resource, "service.version=v1.2.3 ") {
		t.Errorf("resource %s", resource)
	}
	if got := collector.Metadata().Get("authorization"); len(got) != 1 || got[0] != "Bearer x" {
		t.Errorf("authorization %q", got)
	}
}

func TestNewStartsNothing(t *testing.T) { //nolint:paralleltest // inspects all goroutines
	gatherer, _ := registry(t)
	e, err := otlpmetrics.New(otlpmetrics.Config{Endpoint: "http://127.0.0.1:1", Interval: time.Minute, Gatherer: gatherer})
	if err != nil {
		t.Fatal(err)
	}
	e.Flush(t.Context()) // was never run
	var running strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&running, 1); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(running.String(), "otlpmetricgrpc") {
		t.Errorf("goroutines before Run:\n%s", running.String())
	}
	if _, err := otlpmetrics.New(otlpmetrics.Config{}); err == nil {
		t.Error("built without an endpoint")
	}
}

// If the collector fails in any way, the end is bounded, one record a minute has the
// cause, and nothing of what the collector wrote.
func TestASickCollector(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		upset func(*tracingtest.Collector) (endpoint string)
		cause string
	}{
		"stalled":  {func(c *tracingtest.Collector) string { c.Stall(); return c.URL }, "DeadlineExceeded"},
		"refusing": {func(c *tracingtest.Collector) string { c.Refuse(); return c.URL }, "InvalidArgument"},
		"away":     {func(*tracingtest.Collector) string { return "http://127.0.0.1:1" }, "Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, logged := observer.New(zapcore.DebugLevel)
			gatherer, _ := registry(t)
			collector := tracingtest.Start(t)
			stop := run(t, otlpmetrics.Config{Endpoint: row.upset(collector), Interval: 10 * time.Millisecond, Gatherer: gatherer, Logger: zap.New(core)})
			if name == "refusing" {
				collector.Await("attempts", func() bool { return collector.Attempts() > 5 })
			}
			if took := stop(); took > 8*time.Second { // two, plus slack for a busy machine
				t.Errorf("the end took %v", took)
			}
			lines := logged.All()
			if len(lines) != 1 || lines[0].Level != zapcore.WarnLevel {
				t.Fatalf("logged %v, want one warning", lines)
			}
			if got := lines[0].ContextMap()["cause"]; got != row.cause {
				t.Errorf("cause %v, want %s", got, row.cause)
			}
		})
	}
}
