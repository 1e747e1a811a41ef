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
	run := startWarm(b, ChainConfig{})
	b.Run("handler", func(b *testing.B) {
		check := run.asked(eligibility.SegmentCommercial)
		b.ReportAllocs()
		for b.Loop() {
			check(b)
		}
	})
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
	for name, cfg := range map[string]ChainConfig{
		"off":  {},
		"0%":   {Tracer: spans},
		"1%":   {Tracer: spans, SampleRatio: 0.01},
		"100%": {Tracer: spans, SampleRatio: 1},
	} {
		check := startWarm(b, cfg).asked(eligibility.SegmentCommercial)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				check(b)
			}
		})
	}
}

// startWarm starts a server that has fresh evidence for customerA and writes
// its log nowhere.
func startWarm(tb testing.TB, cfg ChainConfig) *running {
	tb.Helper()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	cfg.Logger = zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	run := start(tb, setup{source: approved(), api: cfg})
	now := time.Now().Add(-time.Second)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{
		Qualifications: []eligibility.Qualification{{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved}},
	}, now)
	return run
}

// asked returns a function that asks about customerA as the gRPC server does
// between reading the request and writing the response, without a transport.
func (r *running) asked(segment eligibility.Segment) func(testing.TB) {
	info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
	req := ask(customerA)
	if segment == eligibility.SegmentEducation {
		req.Segment = eligibilityv1.Segment_SEGMENT_EDUCATION
	}
	encode := NewCodec()
	handle := func(ctx context.Context, _ any) (any, error) { return r.chain.Answers().CheckEligibility(ctx, req) }
	ctx := context.Background()
	return func(tb testing.TB) {
		tb.Helper()
		resp, err := r.chain.Intercept(ctx, req, info, handle)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := encode.Marshal(resp); err != nil {
			tb.Fatal(err)
		}
	}
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
