//go:build !race

package api_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
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
// answers, from the decoded request to the encoded response: the call, its request
// ID, the answer's reasons and the list of buffers that grpc-go takes. Tracing
// that samples nothing adds nothing, nor does the decision log.
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
			ctx := grpc.NewContextWithServerTransportStream(context.Background(), discardStream{})
			most := 4.0
			if cfg.Access != nil { // the header with the token is copied
				ctx, most = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "check")), 5
			}
			if name == "in German" { // the header with the language is copied
				ctx, most = metadata.NewIncomingContext(ctx, metadata.Pairs("accept-language", "de-AT,de;q=0.9,en;q=0.8")), 5
			}
			info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
			req := &eligibilityv1.CheckEligibilityRequest{CustomerId: apitest.CustomerA, Segment: segment}
			handle := func(ctx context.Context, _ any) (any, error) { return run.Chain.Answers().CheckEligibility(ctx, req) }
			got := apitest.FewestAllocations(func() {
				resp, err := run.Chain.Intercept(ctx, req, info, handle)
				if err != nil {
					t.Fatal(err)
				}
				wire, err := api.Codec{}.Marshal(resp)
				if err != nil {
					t.Fatal(err)
				}
				wire.Free()
			})
			if got > most {
				t.Errorf("%s, %v: %v allocations, want at most %v", name, segment, got, most)
			}
		}
	}
}

// TestAllocationsOfABatch holds what each question of a batch adds, from the
// request's message to the encoded response: its reasons.
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
	info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName}
	handle := func(ctx context.Context, _ any) (any, error) {
		return run.Chain.Answers().BatchCheckEligibility(ctx, req)
	}
	ctx := grpc.NewContextWithServerTransportStream(context.Background(), discardStream{})
	got := apitest.FewestAllocations(func() {
		resp, err := run.Chain.Intercept(ctx, req, info, handle)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := api.Codec{}.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		wire.Free()
	})
	if got > n+10 {
		t.Errorf("%v allocations for %d questions, want one each, their reasons", got, n)
	}
}

// discardStream is a transport that takes no header.
type discardStream struct{}

func (discardStream) Method() string               { return "" }
func (discardStream) SetHeader(metadata.MD) error  { return nil }
func (discardStream) SendHeader(metadata.MD) error { return nil }
func (discardStream) SetTrailer(metadata.MD) error { return nil }
