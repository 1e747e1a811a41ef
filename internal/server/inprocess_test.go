package server

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// recorder is a service that runs a function.
type recorder struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	check func(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error)
}

func (r *recorder) CheckEligibility(ctx context.Context, req *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	return r.check(ctx, req)
}

func inProcess(service eligibilityv1.EligibilityServiceServer, intercept grpc.UnaryServerInterceptor) *inProcessConn {
	if intercept == nil {
		intercept = func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return handler(ctx, req)
		}
	}
	return newInProcessConn(&eligibilityv1.EligibilityService_ServiceDesc, service, intercept)
}

func TestInProcessCallsRunTheInterceptor(t *testing.T) {
	t.Parallel()
	var order []string
	conn := inProcess(&recorder{check: func(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		order = append(order, "handler")
		return &eligibilityv1.CheckEligibilityResponse{}, nil
	}}, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		order = append(order, info.FullMethod)
		return handler(ctx, req)
	})
	if _, err := eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/eligibility.v1.EligibilityService/CheckEligibility", "handler"}, order); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestInProcessCallsShareNoMessage(t *testing.T) {
	t.Parallel()
	kept := &eligibilityv1.CheckEligibilityResponse{CustomerId: "kept", Reasons: []*eligibilityv1.Reason{{Message: "kept"}}}
	conn := inProcess(&recorder{check: func(_ context.Context, req *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		req.CustomerId = "changed by the handler"
		return kept, nil
	}}, nil)
	req := &eligibilityv1.CheckEligibilityRequest{CustomerId: "asked"}
	resp, err := eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, resp, protocmp.Transform()); diff != "" {
		t.Errorf("response (-want +got):\n%s", diff)
	}
	resp.Reasons[0].Message = "changed by the caller"
	if kept.GetReasons()[0].GetMessage() != "kept" || req.GetCustomerId() != "asked" {
		t.Error("caller and handler share a message")
	}
}

func TestInProcessCallsCarryMetadataBothWays(t *testing.T) {
	t.Parallel()
	conn := inProcess(&recorder{check: func(ctx context.Context, _ *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		if got := metadata.ValueFromIncomingContext(ctx, "asked"); !cmp.Equal(got, []string{"yes"}) {
			t.Errorf("incoming metadata %q", got)
		}
		if out, _ := metadata.FromOutgoingContext(ctx); len(out) != 0 {
			t.Errorf("the caller's outgoing metadata is the handler's: %v", out)
		}
		if method, _ := grpc.Method(ctx); method != eligibilityv1.EligibilityService_CheckEligibility_FullMethodName {
			t.Errorf("method %q", method)
		}
		if _, ok := grpc.ServerTransportStreamFromContext(ctx).(*inProcessStream); !ok {
			t.Error("the handler cannot tell that it was called in process")
		}
		err := errors.Join(
			grpc.SetHeader(ctx, metadata.Pairs("answered", "1")),
			grpc.SendHeader(ctx, metadata.Pairs("answered", "2")),
			grpc.SetTrailer(ctx, metadata.Pairs("ended", "yes")))
		if err != nil {
			t.Error(err)
		}
		if grpc.SetHeader(ctx, metadata.Pairs("late", "1")) == nil {
			t.Error("a header can be set after it was sent")
		}
		return nil, status.Error(codes.NotFound, "header and trailer come with errors too")
	}}, nil)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "asked", "yes")
	var header, trailer metadata.MD
	_, err := eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{},
		grpc.Header(&header), grpc.Trailer(&trailer))
	if status.Code(err) != codes.NotFound {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(metadata.MD{"answered": {"1", "2"}}, header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(metadata.MD{"ended": {"yes"}}, trailer); diff != "" {
		t.Errorf("trailer (-want +got):\n%s", diff)
	}
}

func TestAnInProcessHandlersContextEndsWithItsCall(t *testing.T) {
	t.Parallel()
	var ended <-chan struct{}
	conn := inProcess(&recorder{check: func(ctx context.Context, _ *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		ended = ctx.Done()
		if ctx.Err() != nil {
			t.Errorf("ended before it began: %v", ctx.Err())
		}
		return &eligibilityv1.CheckEligibilityResponse{}, nil
	}}, nil)
	if _, err := eligibilityv1.NewEligibilityServiceClient(conn).CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	default:
		t.Error("the handler's context goes on")
	}
}

func TestWhatAnInProcessConnCannotDo(t *testing.T) {
	t.Parallel()
	conn := inProcess(&recorder{check: func(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		return nil, context.DeadlineExceeded
	}}, nil)
	const method = eligibilityv1.EligibilityService_CheckEligibility_FullMethodName
	_, streamErr := conn.NewStream(t.Context(), &grpc.StreamDesc{}, method)
	for name, row := range map[string]struct {
		err  error
		want codes.Code
	}{
		"streams":         {streamErr, codes.Unimplemented},
		"unknown methods": {conn.Invoke(t.Context(), "/eligibility.v1.EligibilityService/Other", &emptypb.Empty{}, &emptypb.Empty{}), codes.Unimplemented},
		"other requests":  {conn.Invoke(t.Context(), method, &emptypb.Empty{}, &eligibilityv1.CheckEligibilityResponse{}), codes.Internal},
		"no messages":     {conn.Invoke(t.Context(), method, "a string", &eligibilityv1.CheckEligibilityResponse{}), codes.Internal},
		"context errors":  {conn.Invoke(t.Context(), method, &eligibilityv1.CheckEligibilityRequest{}, &eligibilityv1.CheckEligibilityResponse{}), codes.DeadlineExceeded},
	} {
		if got := status.Code(row.err); got != row.want {
			t.Errorf("%s: code %v, want %v", name, got, row.want)
		}
	}
}
