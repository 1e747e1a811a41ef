//go:build !race

package api_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The race detector allocates, so these are built without it; make test runs
// them apart.

// TestAllocationsOfALocalHit holds what one question costs that the local tier
// answers, from the received bytes to the encoded response: the call, the list of buffers
// that grpc-go takes and, if there are two, the answer's reasons. Tracing that samples
// nothing adds nothing. The decision log adds the ID of the request.
func TestAllocationsOfALocalHit(t *testing.T) {
	spans, _ := apitest.RecordSpans()
	limits, err := allowance.New(allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1_000_000, Burst: 1_000_000, Concurrent: 10, NewCustomersPerMinute: 1, NewCustomers: allowance.BoundAll}})
	if err != nil {
		t.Fatal(err)
	}
	recorded, _ := recordTo(t, api.Config{PlainRecords: 1}, decisionlog.Config{})
	for name, cfg := range map[string]api.Config{
		"recorded":    recorded,
		"tracing off": {PlainRecords: 1}, "in German": {PlainRecords: 1}, "nothing traced": {PlainRecords: 1, Tracer: spans},
		"caller limited": {PlainRecords: 1, Access: apitest.EachRight(), Limits: limits},
	} {
		run := servertest.StartWarm(t, cfg)
		for _, segment := range []eligibilityv1.Segment{eligibilityv1.Segment_SEGMENT_COMMERCIAL, eligibilityv1.Segment_SEGMENT_EDUCATION} {
			ctx := context.Background()
			most := 2.0
			if segment != eligibilityv1.Segment_SEGMENT_COMMERCIAL {
				most++
			}
			switch {
			case name == "recorded":
				most++
			case cfg.Access != nil:
				ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "check"))
			case name == "in German":
				ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("accept-language", "de-AT,de;q=0.9,en;q=0.8"))
			}
			ask := run.Asked(ctx, "CheckEligibility", &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA, Segment: segment})
			got := apitest.FewestAllocations(func() { ask(t) })
			if got > most {
				t.Errorf("%s, %v: %v allocations, want at most %v", name, segment, got, most)
			}
		}
	}
}

// TestAllocationsOfABatch holds that a question of a batch adds nothing, from the received
// bytes to the encoded response.
func TestAllocationsOfABatch(t *testing.T) {
	run := servertest.StartWarm(t, api.Config{PlainRecords: 1})
	req := new(eligibilityv1.BatchCheckEligibilityRequest)
	const n = 100
	now := time.Now().Add(-time.Second)
	for i := range n {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		run.Store.Hold(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
		run.Store.Hold(id, eligibility.FacetQualifications, eligibility.Evidence{}, now)
		req.Requests = append(req.Requests, apitest.Ask(id))
	}
	ask := run.Asked(context.Background(), "BatchCheckEligibility", req)
	if got := apitest.FewestAllocations(func() { ask(t) }); got > 6 {
		t.Errorf("%v allocations for %d questions, want at most 6", got, n)
	}
	const rounds = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		ask(t)
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / rounds; got > 4<<10 {
		t.Errorf("%d bytes for %d questions, want the call only", got, n)
	}
}
