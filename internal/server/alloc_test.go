//go:build !race

package server

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	gateway "github.com/eligibilityd/eligibilityd/internal/gateway/eligibility/v1"
)

// The race detector allocates, so these are built without it; make test runs
// them apart.

// TestAllocationsOfALocalHit holds what one question costs that the local tier
// answers, from the decoded request to the encoded response: the call, its request
// ID, the answer's reasons and the list of buffers that grpc-go takes. Tracing
// that samples nothing adds nothing.
func TestAllocationsOfALocalHit(t *testing.T) {
	spans, _ := recorded()
	for name, cfg := range map[string]ChainConfig{"tracing off": {PlainRecords: 1}, "nothing traced": {PlainRecords: 1, Tracer: spans}} {
		run := startWarm(t, cfg)
		for _, segment := range []eligibilityv1.Segment{eligibilityv1.Segment_SEGMENT_COMMERCIAL, eligibilityv1.Segment_SEGMENT_EDUCATION} {
			ctx := grpc.NewContextWithServerTransportStream(context.Background(), discardStream{})
			info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
			req := &eligibilityv1.CheckEligibilityRequest{CustomerId: customerA, Segment: segment}
			handle := func(ctx context.Context, _ any) (any, error) { return run.chain.Answers().CheckEligibility(ctx, req) }
			got := fewestAllocations(func() {
				resp, err := run.chain.Intercept(ctx, req, info, handle)
				if err != nil {
					t.Fatal(err)
				}
				wire, err := Codec{}.Marshal(resp)
				if err != nil {
					t.Fatal(err)
				}
				wire.Free()
			})
			if got > 4 {
				t.Errorf("%s, %v: %v allocations, want at most 4", name, segment, got)
			}
		}
	}
}

// TestAllocationsOfALocalHitOverREST holds the same from request to response
// writer. What grpc-gateway allocates to find the route is not ours: it is measured
// apart and subtracted.
func TestAllocationsOfALocalHitOverREST(t *testing.T) {
	run := startWarm(t, ChainConfig{PlainRecords: 1})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, run.rest+"/v1/customers/"+customerA+"/eligibility", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	w := &discardWriter{header: make(http.Header)}
	got := fewestAllocations(func() {
		clear(w.header)
		run.handler.ServeHTTP(w, req)
		if w.written == 0 {
			t.Fatal("no answer")
		}
	})
	routed := false
	router := runtime.NewServeMux(runtime.WithMiddlewares(func(runtime.HandlerFunc) runtime.HandlerFunc {
		return func(http.ResponseWriter, *http.Request, map[string]string) { routed = true }
	}))
	if err := gateway.RegisterEligibilityServiceHandlerClient(t.Context(), router, nil); err != nil {
		t.Fatal(err)
	}
	routing := fewestAllocations(func() { router.ServeHTTP(w, req) })
	if !routed {
		t.Fatal("not routed")
	}
	if got-routing > 10 {
		t.Errorf("%v allocations, %v of them routing, want at most 10 others", got, routing)
	}
}

// TestAllocationsOfABatch holds what each question of a batch adds, from the
// request's message to the encoded response: its reasons.
func TestAllocationsOfABatch(t *testing.T) {
	run := startWarm(t, ChainConfig{PlainRecords: 1})
	req := new(eligibilityv1.BatchCheckEligibilityRequest)
	const n = 100
	now := time.Now().Add(-time.Second)
	for i := range n {
		id := fmt.Sprintf("cccccccc-0000-4000-8000-%012x", i)
		run.store.put(id, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
		run.store.put(id, eligibility.FacetQualifications, eligibility.Evidence{}, now)
		req.Requests = append(req.Requests, ask(id))
	}
	info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName}
	handle := func(ctx context.Context, _ any) (any, error) {
		return run.chain.Answers().BatchCheckEligibility(ctx, req)
	}
	ctx := grpc.NewContextWithServerTransportStream(context.Background(), discardStream{})
	got := fewestAllocations(func() {
		resp, err := run.chain.Intercept(ctx, req, info, handle)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := Codec{}.Marshal(resp)
		if err != nil {
			t.Fatal(err)
		}
		wire.Free()
	})
	if got > n+10 {
		t.Errorf("%v allocations for %d questions, want one each, their reasons", got, n)
	}
}

func TestAllocationsOfEncoders(t *testing.T) {
	reply := &checkReply{answer: eligibility.Answer{Decision: eligibility.DecisionAllowed, Reasons: []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}}}}
	buffer := make([]byte, 0, 4096)
	if got := fewestAllocations(func() { _ = reply.appendJSON(buffer) }); got != 0 {
		t.Errorf("JSON: %v allocations", got)
	}
	if got := fewestAllocations(func() { _ = reply.appendProto(buffer) }); got != 0 {
		t.Errorf("protobuf: %v allocations", got)
	}
}

// fewestAllocations returns how often f allocates: the least of several
// measurements, because the garbage collector empties the pools.
func fewestAllocations(f func()) float64 {
	least := testing.AllocsPerRun(100, f)
	for range 9 {
		least = min(least, testing.AllocsPerRun(100, f))
	}
	return least
}

// discardStream is a transport that takes no header.
type discardStream struct{}

func (discardStream) Method() string               { return "" }
func (discardStream) SetHeader(metadata.MD) error  { return nil }
func (discardStream) SendHeader(metadata.MD) error { return nil }
func (discardStream) SetTrailer(metadata.MD) error { return nil }

// discardWriter is a response that counts what it is sent.
type discardWriter struct {
	header  http.Header
	written int
}

func (w *discardWriter) Header() http.Header { return w.header }

func (w *discardWriter) Write(b []byte) (int, error) {
	w.written += len(b)
	return len(b), nil
}

func (w *discardWriter) WriteHeader(int) {}
