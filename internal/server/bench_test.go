package server

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// BenchmarkCheckLocalHit measures one question that the local tier answers, with
// metrics and log on: through the interceptors and the handler alone, and over
// each transport on the loopback interface, client included.
func BenchmarkCheckLocalHit(b *testing.B) {
	run := startWarm(b, Config{})
	b.Run("handler", func(b *testing.B) { benchCheck(b, eligibilityv1.NewEligibilityServiceClient(run.server.conn)) })
	b.Run("grpc", func(b *testing.B) { benchCheck(b, run.client) })
	b.Run("rest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got := run.get(b, customerA, ""); got.StatusCode != http.StatusOK {
				b.Fatal(got.StatusCode)
			}
		}
	})
}

// BenchmarkTracing measures what tracing adds to the interceptors and the
// handler: switched off, on for none, for one in a hundred, and for all.
func BenchmarkTracing(b *testing.B) {
	spans := sdktrace.NewTracerProvider().Tracer("bench")
	for name, cfg := range map[string]Config{
		"off":  {},
		"0%":   {Tracer: spans},
		"1%":   {Tracer: spans, SampleRatio: 0.01},
		"100%": {Tracer: spans, SampleRatio: 1},
	} {
		// The gateway is left out and has no say over what is traced: so this
		// goes the way of gRPC, but for its socket.
		run := startWarm(b, cfg)
		answers := &handler{service: run.service, metrics: run.server.metrics, now: time.Now}
		info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
		b.Run(name, func(b *testing.B) {
			req := ask(customerA)
			b.ReportAllocs()
			for b.Loop() {
				_, err := run.server.intercept(b.Context(), req, info, func(ctx context.Context, _ any) (any, error) {
					return answers.CheckEligibility(ctx, req)
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// startWarm starts a server that has fresh evidence for customerA and writes
// its log nowhere.
func startWarm(tb testing.TB, cfg Config) *running {
	tb.Helper()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	cfg.Logger = zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	run := start(tb, setup{source: approved(), server: cfg})
	now := time.Now().Add(-time.Second)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, now)
	return run
}

func benchCheck(b *testing.B, client eligibilityv1.EligibilityServiceClient) {
	b.Helper()
	req := ask(customerA)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := client.CheckEligibility(b.Context(), req)
		if err != nil || resp.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL {
			b.Fatal(resp, err)
		}
	}
}
