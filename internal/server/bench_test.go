package server

import (
	"io"
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// BenchmarkCheckLocalHit measures one question that the local tier answers, with
// metrics and log on: through the interceptors and the handler alone, and over
// each transport on the loopback interface, client included.
func BenchmarkCheckLocalHit(b *testing.B) {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	discard := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	run := start(b, setup{source: approved(), server: Config{Logger: discard}})
	now := time.Now().Add(-time.Second)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, now)

	check := func(b *testing.B, client eligibilityv1.EligibilityServiceClient) {
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
	b.Run("handler", func(b *testing.B) { check(b, eligibilityv1.NewEligibilityServiceClient(run.server.conn)) })
	b.Run("grpc", func(b *testing.B) { check(b, run.client) })
	b.Run("rest", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got := run.get(b, customerA, ""); got.StatusCode != http.StatusOK {
				b.Fatal(got.StatusCode)
			}
		}
	})
}
