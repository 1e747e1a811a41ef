//go:build !race

package rest_test

import (
	"net/http"
	"testing"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	gateway "github.com/eligibilityd/eligibilityd/internal/gateway/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// TestAllocationsOfALocalHitOverREST holds the same from request to response
// writer. What grpc-gateway allocates to find the route is not ours: it is measured
// apart and subtracted.
func TestAllocationsOfALocalHitOverREST(t *testing.T) {
	limits, err := allowance.New(allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1_000_000, Burst: 1_000_000, Concurrent: 10}})
	if err != nil {
		t.Fatal(err)
	}
	run := servertest.StartWarm(t, api.Config{PlainRecords: 1, Access: apitest.EachRight(), Limits: limits})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, run.REST+"/v1/customers/"+apitest.CustomerA+"/eligibility", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip") // of a body that is too small for it
	req.Header.Set("Authorization", "check")
	req.Header.Set("Accept-Language", "de-AT,de;q=0.9,en;q=0.8")
	w := &discardWriter{header: make(http.Header)}
	got := apitest.FewestAllocations(func() {
		clear(w.header)
		run.Handler.ServeHTTP(w, req)
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
	routing := apitest.FewestAllocations(func() { router.ServeHTTP(w, req) })
	if !routed {
		t.Fatal("not routed")
	}
	if got-routing > 10 {
		t.Errorf("%v allocations, %v of them routing, want at most 10 others", got, routing)
	}
}

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
