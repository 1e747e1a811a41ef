package server

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// BenchmarkBatchLocalHit measures a batch of 100 that the local tier answers:
// through the interceptors and the handler alone, and over gRPC on the loopback
// interface, client included. The one record of a batch is left out.
func BenchmarkBatchLocalHit(b *testing.B) {
	run := start(b, setup{source: approved(), server: Config{Logger: zap.NewNop()}})
	now := time.Now().Add(-time.Second)
	batch := new(eligibilityv1.BatchCheckEligibilityRequest)
	for i := range 100 {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		run.store.put(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
		run.store.put(id, eligibility.FacetQualifications, eligibility.Evidence{}, now)
		batch.Requests = append(batch.Requests, ask(id))
	}
	check := func(b *testing.B, client eligibilityv1.EligibilityServiceClient) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			resp, err := client.BatchCheckEligibility(b.Context(), batch)
			if err != nil || len(resp.GetResults()) != len(batch.GetRequests()) {
				b.Fatal(resp, err)
			}
		}
	}
	b.Run("handler", func(b *testing.B) { check(b, eligibilityv1.NewEligibilityServiceClient(run.server.conn)) })
	b.Run("grpc", func(b *testing.B) { check(b, run.client) })
}
