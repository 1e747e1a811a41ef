package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/logging"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The ways by which an RPC can come, as logs and metrics name them.
const (
	viaGRPC = "grpc"
	viaREST = "rest"
)

// overloadedRetry is when a caller that was turned away may ask again.
const overloadedRetry = time.Second

// intercept is what every RPC runs through, whichever way it came: record, log,
// metrics and span around recovery, limit and deadline. Inside, errors are the
// domain's; here they become what the caller is told. An answer may be a *rendered
// or a *renderedBatch in place of its message.
//
// Health checks and reflection only pass the recovery: they are not logged,
// counted or limited.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	series, ours := s.metrics.rpcs[info.FullMethod]
	if !ours {
		if err := refusedStatus(nil, req); err != nil {
			return nil, err
		}
		return s.recovered(ctx, req, info.FullMethod, handler)
	}
	start := time.Now()
	c := s.identify(ctx, info.FullMethod, series)
	defer c.end()
	resp, err := s.admit(c, req, info.FullMethod, handler)
	var failure *eligibility.Error
	var st *status.Status // nil is OK
	if err != nil {
		failure = domainError(err)
		st = statusOf(failure)
		s.metrics.failed(failure, questionsIn(req))
	}
	took := time.Since(start)
	c.series.handled(st.Code(), took)
	s.log(c, st.Code(), failure, took)
	c.endSpan(st.Code(), failure)
	switch {
	case err != nil:
		return nil, st.Err()
	case c.rendered != nil:
		return c.rendered, nil
	case c.batch != nil:
		return c.batch, nil
	default:
		return resp, nil
	}
}

// questionsIn counts the questions of a request that failed as a whole. A batch
// that is malformed counts as no more than one may hold.
func questionsIn(req any) int {
	questions := 1
	switch req := req.(type) {
	case *eligibilityv1.BatchCheckEligibilityRequest:
		questions = len(req.GetRequests())
	case restBatch:
		questions = bytes.Count(req, []byte("{")) - 1 // exact if it is well formed
	}
	return min(max(questions, 1), maxBatch)
}

// admit turns the RPC away while as many as Config.MaxConcurrent are in
// progress, and hands it on otherwise.
func (s *Server) admit(c *call, req any, method string, handler grpc.UnaryHandler) (any, error) {
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > int64(s.cfg.MaxConcurrent) {
		s.metrics.overloaded.Inc()
		return nil, &eligibility.Error{Kind: eligibility.KindOverloaded, RetryAfter: overloadedRetry}
	}
	if err := refusal(req); err != nil {
		return nil, err
	}
	s.bound(c, method)
	return s.recovered(c, req, method, handler)
}

// bound gives the handler the caller's time less the reserve that the answer
// needs, and never more than Config.MaxTimeout. If the caller set no deadline, a
// single check gets Config.DefaultTimeout, and a batch all there is. It never
// refuses up front: a warm answer takes no time.
func (s *Server) bound(c *call, method string) {
	now := time.Now()
	left := s.cfg.DefaultTimeout
	if method == eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName {
		left = s.cfg.MaxTimeout
	}
	if deadline, ok := c.Context.Deadline(); ok {
		left = deadline.Sub(now)
		c.callers, c.left = deadline, left
	}
	c.deadline = now.Add(min(left, s.cfg.MaxTimeout) - s.cfg.Reserve)
}

// recovered calls the handler and turns a panic into a bare INTERNAL. The
// panic's text is logged here with its stack and goes nowhere else.
func (s *Server) recovered(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, s.panicked(r, method)
		}
	}()
	return handler(ctx, req)
}

// recoverStream is recovered for the streams of health and reflection. It
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
	bounded := &boundedStream{ServerStream: stream, ctx: ctx, awaited: &s.awaited, open: &s.streams}
	defer bounded.leave()
	return handler(srv, bounded)
}

// maxOpenStreams is how many streams of health and reflection may be open after
// their first message.
const maxOpenStreams = 4096

// boundedStream is a stream whose context ends with the server. It is awaited up
// to its first message, and counts as open from then on.
type boundedStream struct {
	grpc.ServerStream
	ctx     context.Context //nolint:containedctx // a stream's context is handed on by its method only
	awaited *awaited
	open    *atomic.Int64
	counted bool
}

// Context returns the context that ends with the server.
func (b *boundedStream) Context() context.Context { return b.ctx }

// RecvMsg receives the next message. It fails if the message is refused, or if
// it is the first and too many streams are open.
func (b *boundedStream) RecvMsg(m any) error {
	receive := func() error { return b.ServerStream.RecvMsg(m) }
	if b.counted {
		return refusedStatus(receive(), m)
	}
	if err := refusedStatus(b.awaited.receive(b.ctx, receive), m); err != nil {
		return err
	}
	b.counted = true
	if b.open.Add(1) > maxOpenStreams {
		return overloaded().Err()
	}
	return nil
}

// refusedStatus is err, or the status of a message that is refused.
func refusedStatus(err error, message any) error {
	if err != nil {
		return err
	}
	if err := refusal(message); err != nil {
		return statusOf(domainError(err)).Err()
	}
	return nil
}

// leave ends the count.
func (b *boundedStream) leave() {
	if b.counted {
		b.open.Add(-1)
	}
}

// panicked logs a panic and returns what the caller is told of it. The result
// is an error of the domain that also says its gRPC status, for RPCs that are not
// the API's.
func (s *Server) panicked(recovered any, method string) error {
	s.metrics.panics.Inc()
	logging.Limit(s.logger, s.limits.failures[panicRecord]).Error("rpc panicked",
		zap.String("rpc", method),
		zap.String("panic", fmt.Sprint(recovered)),
		zap.ByteString("stack", debug.Stack()))
	return &panicError{eligibility.Error{Kind: eligibility.KindInternal, Err: errors.New("panic, logged apart")}}
}

type panicError struct{ domain eligibility.Error }

func (e *panicError) Error() string              { return e.domain.Error() }
func (e *panicError) Unwrap() error              { return &e.domain }
func (e *panicError) GRPCStatus() *status.Status { return statusOf(&e.domain) }
