package api_test

import (
	"context"
	"net/http"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// BenchmarkCheckLocalHit measures one question that the local tier answers, with
// metrics and log on: through the interceptors and the handler alone, and over
// each transport on the loopback interface, client included.
func BenchmarkCheckLocalHit(b *testing.B) {
	run := servertest.StartWarm(b, api.Config{})
	b.Run("handler", func(b *testing.B) {
		check := askedCustomerA(run)
		b.ReportAllocs()
		for b.Loop() {
			check(b)
		}
	})
	b.Run("grpc", func(b *testing.B) { benchCheck(b, run.Client) })
	b.Run("rest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got := run.Get(b, apitest.CustomerA, ""); got.StatusCode != http.StatusOK {
				b.Fatal(got.StatusCode)
			}
		}
	})
}

// BenchmarkDecisionLog measures what the decision log adds to the interceptors and the
// handler, the writing of its file included.
func BenchmarkDecisionLog(b *testing.B) {
	on, _ := recordTo(b, api.Config{}, decisionlog.Config{Block: true})
	for name, cfg := range map[string]api.Config{"off": {}, "on": on} {
		check := askedCustomerA(servertest.StartWarm(b, cfg))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				check(b)
			}
		})
	}
}

// BenchmarkTracing measures what tracing adds to the interceptors and the
// handler: switched off, on for none, for one in a hundred, and for all.
func BenchmarkTracing(b *testing.B) {
	spans := sdktrace.NewTracerProvider().Tracer("bench")
	for name, cfg := range map[string]api.Config{
		"off":  {},
		"0%":   {Tracer: spans},
		"1%":   {Tracer: spans, SampleRatio: 0.01},
		"100%": {Tracer: spans, SampleRatio: 1},
	} {
		check := askedCustomerA(servertest.StartWarm(b, cfg))
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				check(b)
			}
		})
	}
}

func askedCustomerA(run *servertest.Running) func(testing.TB) {
	return run.Asked(context.Background(), "CheckEligibility", apitest.Ask(apitest.CustomerA))
}

func benchCheck(b *testing.B, client eligibilityv1.EligibilityServiceClient) {
	b.Helper()
	req := apitest.Ask(apitest.CustomerA)
	b.ReportAllocs()
	for b.Loop() {
		resp, err := client.CheckEligibility(b.Context(), req)
		if err != nil || resp.GetSource() != eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL {
			b.Fatal(resp, err)
		}
	}
}
