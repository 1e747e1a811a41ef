package api_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// BenchmarkBatchLocalHit measures a batch of 100 that the local tier answers:
// through the interceptors and the handler alone, and over gRPC on the loopback
// interface, client included. The one record of a batch is left out.
func BenchmarkBatchLocalHit(b *testing.B) {
	run := servertest.Start(b, servertest.Setup{Source: apitest.Approved(), API: api.Config{Logger: zap.NewNop()}})
	now := time.Now().Add(-time.Second)
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for i := range 100 {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		run.Store.Hold(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
		run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, now)
		batch.Requests = append(batch.Requests, apitest.Ask(id))
	}
	b.Run("handler", func(b *testing.B) {
		ask := run.Asked(b.Context(), "BatchCheckEligibility", batch)
		b.ReportAllocs()
		for b.Loop() {
			ask(b)
		}
	})
	b.Run("grpc", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			resp, err := run.Client.BatchCheckEligibility(b.Context(), batch)
			if err != nil || len(resp.GetResults()) != len(batch.GetRequests()) {
				b.Fatal(resp, err)
			}
		}
	})
}
