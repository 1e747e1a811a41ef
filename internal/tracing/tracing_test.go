package tracing_test

import (
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/tracing"
	"github.com/eligibilityd/eligibilityd/internal/tracing/tracingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a pipeline until stop, which returns how long the shutdown took.
func run(t *testing.T, cfg tracing.Config) (p *tracing.Pipeline, stop func() time.Duration) {
	t.Helper()
	p, err := tracing.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return p, func() time.Duration {
		cancel()
		asked := time.Now()
		running.Wait()
		p.Flush(context.Background())
		return time.Since(asked)
	}
}

func TestSpansReachTheCollector(t *testing.T) { //nolint:paralleltest // sets the environment
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=gate-1")
	collector := tracingtest.Start(t)
	p, stop := run(t, tracing.Config{Endpoint: collector.URL, Version: "v1.2.3", Headers: map[string]string{"authorization": "Bearer x"}})
	_, span := p.Tracer().Start(t.Context(), "asked")
	span.End()
	stop()

	spans := collector.Spans()
	if len(spans) != 1 || spans[0].GetName() != "asked" {
		t.Fatalf("spans %v", spans)
	}
	described := make(map[string]string)
	for _, attribute := range collector.Requests()[0].GetResourceSpans()[0].GetResource().GetAttributes() {
		described[attribute.GetKey()] = attribute.GetValue().GetStringValue()
	}
	for key, want := range map[string]string{"service.name": "eligibilityd", "service.version": "v1.2.3", "k8s.pod.name": "gate-1"} {
		if described[key] != want {
			t.Errorf("%s is %q, want %q", key, described[key], want)
		}
	}
	if diff := cmp.Diff([]string{"Bearer x"}, collector.Metadata().Get("authorization")); diff != "" {
		t.Errorf("authorization (-want +got):\n%s", diff)
	}
}

func TestNewStartsNothing(t *testing.T) { //nolint:paralleltest // inspects all goroutines
	p, err := tracing.New(tracing.Config{Endpoint: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	_, span := p.Tracer().Start(t.Context(), "dropped")
	span.End()
	var running strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&running, 1); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(running.String(), "go.opentelemetry.io") {
		t.Errorf("goroutines before Run:\n%s", running.String())
	}
}

func TestNewNeedsAnEndpoint(t *testing.T) {
	t.Parallel()
	if _, err := tracing.New(tracing.Config{}); err == nil {
		t.Error("built without an endpoint")
	}
}

// If the collector fails in any way, spans still end at once, and Run and Flush
// within their limit.
func TestASickCollectorHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for name, upset := range map[string]func(*tracingtest.Collector) (endpoint string){
		"stalled":  func(c *tracingtest.Collector) string { c.Stall(); return c.URL },
		"refusing": func(c *tracingtest.Collector) string { c.Refuse(); return c.URL },
		"away":     func(*tracingtest.Collector) string { return "http://127.0.0.1:1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, logged := observer.New(zapcore.DebugLevel)
			now := time.Now() // frozen, so only one report fits into an interval
			p, stop := run(t, tracing.Config{
				Endpoint: upset(tracingtest.Start(t)), Logger: zap.New(core), Now: func() time.Time { return now },
			})
			began := time.Now()
			for i := range 5000 { // more than the queue holds
				_, span := p.Tracer().Start(t.Context(), fmt.Sprint("span ", i))
				span.End()
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("5000 spans took %v", took)
			}
			if took := stop(); took > 8*time.Second { // two, plus slack for a busy machine
				t.Errorf("the end took %v", took)
			}
			if lines := logged.All(); len(lines) != 1 || lines[0].Level != zapcore.WarnLevel {
				t.Errorf("logged %v, want one warning", lines)
			}
		})
	}
}

// A span that is about a customer names it as the configuration demands.
func TestSpansNameCustomersDifferently(t *testing.T) {
	t.Parallel()
	collector := tracingtest.Start(t)
	p, stop := run(t, tracing.Config{Endpoint: collector.URL, CustomerName: func(id string) string { return "hash of " + id[:1] }})
	_, span := p.Tracer().Start(t.Context(), "asked", trace.WithAttributes(attribute.String("eligibility.customer_id", "canary"), attribute.String("other", "x")))
	span.End()
	stop()
	if got := fmt.Sprint(collector.Requests()); strings.Contains(got, "canary") || !strings.Contains(got, "hash of c") {
		t.Errorf("%.2000s", got)
	}
}
