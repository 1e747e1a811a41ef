package api_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// BenchmarkBatchOfMany measures batches about 40,000 customers at random, whose evidence
// fits into no cache of a processor, from the received bytes to the encoded response.
func BenchmarkBatchOfMany(b *testing.B) {
	store, err := cache.New(cache.Config{})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now().Add(-time.Second)
	customers := make([]eligibility.CustomerID, 40_000)
	for i := range customers {
		id := eligibility.CustomerID(uuid.New())
		customers[i] = id
		for _, found := range []eligibility.Evidence{
			{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"},
			{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{{
				Type: eligibility.QualificationEducation, TypeText: "Education",
				VettingStatus: eligibility.VettingApproved, VettingStatusText: "Approved", VettingCreatedTime: now,
			}}},
		} {
			found.CorrelationID, found.RequestID = id.String(), id.String()
			found.SetFetchTime(now)
			store.Put(eligibility.Key{CustomerID: id, Facet: found.Facet}, eligibility.Compact(found))
		}
	}
	service, err := evidence.New(apitest.Silent(), store, evidence.Config{})
	if err != nil {
		b.Fatal(err)
	}
	chain, err := api.New(servertest.Partners(b, service), api.Config{Logger: zap.NewNop(), Registerer: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	run := &servertest.Running{Chain: chain}
	for _, size := range []int{100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ask := make([]func(testing.TB), 64_000/size)
			for i := range ask {
				batch := new(eligibilityv1.BatchCheckEligibilityRequest)
				for range size {
					batch.Requests = append(batch.Requests, apitest.Ask(customers[rand.IntN(len(customers))].String()))
				}
				ask[i] = run.Asked(context.Background(), "BatchCheckEligibility", batch)
			}
			b.ReportAllocs()
			defer cachetest.MeasureCPU(b)()
			for i := 0; b.Loop(); i++ {
				ask[i%len(ask)](b)
			}
		})
	}
}
