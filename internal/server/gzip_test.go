package server_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// sizes records the last message that a client received.
type sizes struct {
	last atomic.Pointer[stats.InPayload]
}

func (*sizes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*sizes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*sizes) HandleConn(context.Context, stats.ConnStats)                       {}
func (s *sizes) HandleRPC(_ context.Context, event stats.RPCStats) {
	if in, ok := event.(*stats.InPayload); ok {
		s.last.Store(in)
	}
}

// dialWith connects to the gRPC listener of a server.
func dialWith(t *testing.T, run *servertest.Running, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(run.Conn.Target(), append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// A client that compresses gets compressed answers, and one that does not gets none.
func TestClientsMayCompressOverGRPC(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	seen := new(sizes)
	client := eligibilityv1.NewEligibilityServiceClient(dialWith(t, run, grpc.WithStatsHandler(seen)))
	req := new(eligibilityv1.BatchCheckEligibilityRequest)
	for range 100 {
		req.Requests = append(req.Requests, apitest.Ask(apitest.CustomerA))
	}
	for _, compressor := range []string{encoding.Identity, "gzip"} {
		resp, err := client.BatchCheckEligibility(t.Context(), req, grpc.UseCompressor(compressor))
		if err != nil || len(resp.GetResults()) != 100 {
			t.Fatalf("%s: %v", compressor, err)
		}
		got := seen.last.Load()
		if compressed := got.CompressedLength < got.Length; compressed != (compressor == "gzip") {
			t.Errorf("%s: %d bytes as %d", compressor, got.Length, got.CompressedLength)
		}
	}
}

// bomb is a compressor whose messages are size zero bytes, compressed by gzip.
type bomb struct {
	encoding.Compressor
	compressed []byte
}

func newBomb(t *testing.T, size int) *bomb {
	t.Helper()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &bomb{encoding.GetCompressor("gzip"), compressed.Bytes()}
}

// Do implements grpc.Compressor.
func (b *bomb) Do(w io.Writer, _ []byte) error {
	_, err := w.Write(b.compressed)
	return err //nolint:wrapcheck // by grpc-go
}

// Type implements grpc.Compressor.
func (*bomb) Type() string { return "gzip" }

// A small message that becomes a large one is refused, and costs no more memory than
// the limit of messages, for a caller who may ask; nothing for all others.
func TestDecompressionIsBoundedOverGRPC(t *testing.T) {
	run := startFor(t, apitest.EachRight(), servertest.Setup{})
	const size = 64 << 20
	conn := dialWith(t, run, grpc.WithCompressor(newBomb(t, size))) //nolint:staticcheck // a compressor that is not the registered one
	var before, after runtime.MemStats
	for token, want := range map[string]codes.Code{"check": codes.ResourceExhausted, "batch": codes.PermissionDenied, "guessed": codes.Unauthenticated} {
		runtime.GC()
		runtime.ReadMemStats(&before)
		const calls = 10
		for range calls {
			err := conn.Invoke(apitest.With(t.Context(), token), eligibilityv1.EligibilityService_CheckEligibility_FullMethodName, apitest.Ask(apitest.CustomerA), new(eligibilityv1.CheckEligibilityResponse))
			if status.Code(err) != want {
				t.Fatalf("%s: %v", token, err)
			}
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / calls; each > 24<<20 {
			t.Errorf("%s: %d bytes allocated for each bomb of %d", token, each, size)
		} else {
			t.Logf("%s: %d KiB allocated for each bomb of %d MiB", token, each>>10, size>>20)
		}
	}
	// One that is above our limit and below that of grpc-go gets our reason.
	conn = dialWith(t, run, grpc.WithCompressor(newBomb(t, 2<<20))) //nolint:staticcheck // as above
	err := conn.Invoke(apitest.With(t.Context(), "check"), eligibilityv1.EligibilityService_CheckEligibility_FullMethodName, apitest.Ask(apitest.CustomerA), new(eligibilityv1.CheckEligibilityResponse))
	if fields := apitest.ViolatedBy(err); status.Code(err) != codes.InvalidArgument || len(fields) != 1 || fields[0] != "message" {
		t.Errorf("%v", err)
	}
}

// Batches and prefetches fill half of what may be in progress; checks fill the rest,
// and health is never refused.
func TestBatchesLeaveRoomForChecks(t *testing.T) {
	t.Parallel()
	const most = 8
	started := make(chan struct{}, 1000)
	run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, apitest.Silent()), API: api.Config{MaxConcurrent: most}})
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	t.Cleanup(func() { cancel(); calls.Wait() })
	ids := 0
	fill := func(n int, call func(id string)) {
		for range n {
			ids++
			id := fmt.Sprintf("dddddddd-0000-4000-8000-%012x", ids)
			calls.Go(func() { call(id) })
			<-started
			<-started
		}
	}
	batch := func(id string) *eligibilityv1.BatchCheckEligibilityRequest {
		return &eligibilityv1.BatchCheckEligibilityRequest{Requests: []*eligibilityv1.CheckEligibilityRequest{apitest.Ask(id)}}
	}
	fill(most/2, func(id string) { _, _ = run.Client.BatchCheckEligibility(ctx, batch(id)) })
	_, err := run.Client.BatchCheckEligibility(ctx, batch(apitest.CustomerA))
	overREST := run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"}]}`)
	_, prefetchErr := run.Client.PrefetchEligibility(ctx, &eligibilityv1.PrefetchEligibilityRequest{CustomerIds: []string{apitest.CustomerA}})
	for _, err := range []error{err, prefetchErr} {
		if got := apitest.OutcomeOf(status.Convert(err)); got.Reason != "OVERLOADED" || got.Retry == 0 {
			t.Errorf("beyond half: %v", err)
		}
	}
	if overREST.StatusCode != http.StatusTooManyRequests || overREST.Failure(t).Reason() != "OVERLOADED" || overREST.Header.Get("Retry-After") == "" {
		t.Errorf("beyond half over REST: %d %s", overREST.StatusCode, overREST.Body)
	}
	fill(most/2, func(id string) { _, _ = run.Client.CheckEligibility(ctx, apitest.Ask(id)) })
	if got := run.Get(t, apitest.CustomerB, ""); got.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one check too many: %d %s", got.StatusCode, got.Body)
	}
	if err := run.Conn.Invoke(t.Context(), "/grpc.health.v1.Health/Check", &healthv1.HealthCheckRequest{}, &healthv1.HealthCheckResponse{}); err != nil {
		t.Errorf("health: %v", err)
	}
	if got := run.Scrape(t, "eligibility_overloaded_total"); !strings.HasSuffix(got[0], " 4") {
		t.Errorf("%q", got)
	}
}
