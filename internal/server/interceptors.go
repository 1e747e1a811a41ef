package server

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// minLeft is the time that a caller has to leave. Whoever left less and
	// gets no answer is told that its own deadline was the reason.
	minLeft = 50 * time.Millisecond
	// overloadedRetry is when a caller that was turned away may ask again.
	overloadedRetry = time.Second
)

// interceptors returns the one chain, outermost first, that every RPC runs
// through, whichever way it came. From observe inwards errors are the domain's;
// observe turns them into what the caller is told.
//
// Health checks and reflection only pass the recovery: they are not logged,
// counted or limited.
func (s *Server) interceptors() []grpc.UnaryServerInterceptor {
	return []grpc.UnaryServerInterceptor{
		ours(s.identify),
		ours(s.observe),
		s.recoverPanic,
		ours(s.limit),
		ours(s.bound),
	}
}

// ours applies an interceptor to the RPCs of this API only.
func ours(interceptor grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if !strings.HasPrefix(info.FullMethod, "/"+eligibilityv1.EligibilityService_ServiceDesc.ServiceName+"/") {
			return handler(ctx, req)
		}
		return interceptor(ctx, req, info, handler)
	}
}

// observe logs and counts the RPC, and tells the caller of its error in the
// API's words.
func (s *Server) observe(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	start := time.Now()
	resp, err := handler(ctx, req)
	c := callOf(ctx)
	var failure *eligibility.Error
	var st *status.Status // nil is OK
	if err != nil {
		failure = domainError(err)
		st = statusOf(failure)
		s.metrics.failed(failure)
	}
	took := time.Since(start)
	s.metrics.handled(c, st.Code(), took)
	s.log(c, st.Code(), failure, took)
	c.endSpan(st.Code(), failure)
	if err != nil {
		return nil, st.Err()
	}
	return resp, nil
}

// recoverPanic turns a panic into a bare INTERNAL. The panic's text is logged
// here with its stack and goes nowhere else.
func (s *Server) recoverPanic(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, s.panicked(r, info.FullMethod)
		}
	}()
	return handler(ctx, req)
}

// recoverStream is recoverPanic for the streams of health and reflection. It
// also ends them when the server stops, for a watcher never ends by itself.
func (s *Server) recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(r, info.FullMethod)
		}
	}()
	return handler(srv, &endingStream{ServerStream: stream, ctx: ctx})
}

// endingStream is a stream whose context ends with the server.
type endingStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // a stream's context is handed on by its method only
}

// Context returns the context that ends with the server.
func (e *endingStream) Context() context.Context { return e.ctx }

// panicked logs a panic and returns what the caller is told of it. The result
// is an error of the domain that also says its gRPC status, for RPCs without
// observe.
func (s *Server) panicked(recovered any, method string) error {
	s.metrics.panics.Inc()
	s.logger.Error("rpc panicked",
		zap.String("rpc", method),
		zap.String("panic", fmt.Sprint(recovered)),
		zap.ByteString("stack", debug.Stack()))
	return &panicError{eligibility.Error{Kind: eligibility.KindInternal, Err: errors.New("panic, logged apart")}}
}

type panicError struct{ domain eligibility.Error }

func (e *panicError) Error() string              { return e.domain.Error() }
func (e *panicError) Unwrap() error              { return &e.domain }
func (e *panicError) GRPCStatus() *status.Status { return statusOf(&e.domain) }

// limit turns RPCs away while as many as Config.MaxConcurrent are in progress.
func (s *Server) limit(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > int64(s.cfg.MaxConcurrent) {
		s.metrics.overloaded.Inc()
		return nil, &eligibility.Error{Kind: eligibility.KindOverloaded, RetryAfter: overloadedRetry}
	}
	return handler(ctx, req)
}

// bound gives the handler the caller's time less the reserve that the answer
// needs, Config.DefaultTimeout where the caller set no deadline, and never more
// than Config.MaxTimeout. It never refuses up front: a warm answer takes no time.
func (s *Server) bound(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := callOf(ctx)
	left := s.cfg.DefaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
		c.deadline, c.left, c.hurried = deadline, left, left < minLeft
	}
	bounded, cancel := context.WithTimeout(ctx, min(left, s.cfg.MaxTimeout)-s.cfg.Reserve)
	defer cancel()
	resp, err := handler(bounded, req)
	if err != nil {
		return nil, c.blame(bounded, err)
	}
	return resp, nil
}

// chain makes one interceptor of many, the first outermost.
func chain(interceptors []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		call := handler
		for _, interceptor := range slices.Backward(interceptors) {
			next := call
			call = func(ctx context.Context, req any) (any, error) {
				return interceptor(ctx, req, info, next)
			}
		}
		return call(ctx, req)
	}
}
