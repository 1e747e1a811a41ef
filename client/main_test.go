package client

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds the wait for what should happen at once.
const patience = 30 * time.Second

const (
	contoso  = "c0000000-0000-4000-8000-00000000000c"
	fabrikam = "f0000000-0000-4000-8000-00000000000f"
)

// far is a service that a test scripts.
type far struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	check func(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error)
	batch func(context.Context, *eligibilityv1.BatchCheckEligibilityRequest) (*eligibilityv1.BatchCheckEligibilityResponse, error)
	watch func(*eligibilityv1.WatchEligibilityRequest, grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]) error
}

func (f far) CheckEligibility(ctx context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	return f.check(ctx, request)
}

func (f far) BatchCheckEligibility(ctx context.Context, request *eligibilityv1.BatchCheckEligibilityRequest) (*eligibilityv1.BatchCheckEligibilityResponse, error) {
	return f.batch(ctx, request)
}

func (f far) WatchEligibility(request *eligibilityv1.WatchEligibilityRequest, stream grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]) error {
	return f.watch(request, stream)
}

// replica is a far that serves.
type replica struct {
	*grpc.Server

	address string
	health  *health.Server
}

// serve serves f until the test ends.
func serve(tb testing.TB, f far, options ...grpc.ServerOption) *replica {
	tb.Helper()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &replica{Server: grpc.NewServer(options...), address: listener.Addr().String(), health: health.NewServer()}
	eligibilityv1.RegisterEligibilityServiceServer(r, f)
	healthv1.RegisterHealthServer(r, r.health)
	r.report(healthv1.HealthCheckResponse_SERVING)
	go func() { _ = r.Serve(listener) }() // Stop ends it
	tb.Cleanup(r.Stop)
	return r
}

func (r *replica) report(status healthv1.HealthCheckResponse_ServingStatus) {
	r.health.SetServingStatus("eligibility.v1.EligibilityService", status)
}

// dial returns a client in plain text, unless cfg has TLS.
func dial(tb testing.TB, target string, cfg Config) *Client {
	tb.Helper()
	cfg.Insecure = cfg.TLS == nil
	c, err := New(target, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

func answer(id string, decision eligibilityv1.Decision) *eligibilityv1.CheckEligibilityResponse {
	return &eligibilityv1.CheckEligibilityResponse{CustomerId: id, Decision: decision}
}

func allowed(id string) *eligibilityv1.CheckEligibilityResponse {
	return answer(id, eligibilityv1.Decision_DECISION_ALLOWED)
}

// refusal is an error as the service returns it. Without a retry, there is no RetryInfo.
func refusal(code codes.Code, reason string, retry ...time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: "eligibility", Reason: reason}}
	for _, after := range retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	s, err := status.New(code, "A sentence.").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}
