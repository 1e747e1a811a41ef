package api

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/logging"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The ways by which an RPC can come, as logs and metrics name them.
const (
	viaGRPC = "grpc"
	viaREST = "rest"
)

// Overloaded returns the error of a call that is refused because there are too many.
func Overloaded() *eligibility.Error {
	return &eligibility.Error{Kind: eligibility.KindOverloaded, RetryAfter: time.Second}
}

// Intercept is what every RPC runs through, whichever way it came: record, log,
// metrics and span around recovery, limit and deadline. Inside, errors are the
// domain's; here they become statuses. The answer is a *checkReply or
// a batchReply in place of a message.
//
// Health checks only pass the recovery, reflection the check of its caller's right
// too: they are not logged, counted or limited.
func (ch *Chain) Intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if _, begun := ctx.(*call); !begun && !ch.methods[info.FullMethod].ours {
		if _, err := ch.Begin(ctx, info.FullMethod); err != nil {
			return nil, err
		}
		if err := refusedStatus(nil, req); err != nil {
			return nil, err
		}
		return ch.recovered(ctx, req, info.FullMethod, handler)
	}
	c, err := ch.begun(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer c.end()
	resp, err := ch.admit(c, req, info.FullMethod, handler)
	if err != nil {
		ch.answers.refused(c, req, err)
		return nil, ch.failed(c, err, questionsIn(info.FullMethod, req))
	}
	ch.record(c, codes.OK, nil)
	switch resp.(type) { // empty messages: the call has the answers
	case *eligibilityv1.CheckEligibilityResponse:
		return &c.CheckReply, nil
	case *eligibilityv1.BatchCheckEligibilityResponse:
		return c.batch, nil
	default:
		return resp, nil
	}
}

// failed records an RPC that failed, and returns its status.
func (ch *Chain) failed(c *call, err error, questions int) error {
	failure := domainError(err)
	st := StatusOf(failure)
	ch.metrics.failed(failure, questions, c.impatient())
	ch.record(c, st.Code(), failure)
	return st.Err()
}

// record writes metrics, log and span of an RPC that has ended.
func (ch *Chain) record(c *call, code codes.Code, failure *eligibility.Error) {
	took := time.Since(c.start)
	c.series.handled(c, code, took)
	c.series.checks.observe(c, failure, took)
	c.requests.count(code)
	ch.log(c, code, failure, took)
	c.endSpan(code, failure)
}

// InterceptStream is Intercept for streaming RPCs. They have the deadline that
// their caller set, and a limit of their own in place of Config.MaxConcurrent:
// Config.MaxWatches.
func (ch *Chain) InterceptStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !ch.methods[info.FullMethod].ours {
		if _, err := ch.Begin(stream.Context(), info.FullMethod); err != nil {
			return err
		}
		return ch.recoverStream(srv, &boundedStream{ServerStream: stream, open: &ch.beside}, info, handler)
	}
	c, err := ch.begun(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer c.end()
	if deadline, ok := c.Deadline(); ok {
		c.callers, c.left = deadline, deadline.Sub(c.start)
	}
	if _, limited := c.take(c.start, 1); limited != nil {
		return ch.failed(c, limited, 0)
	}
	bounded := &boundedStream{ServerStream: &callStream{stream, c}, open: &ch.watches}
	if c.caller != nil && c.caller != access.Anonymous {
		bounded.caller = c.caller.Name
	}
	err = ch.recoverStream(srv, bounded, info, handler)
	if err == nil {
		ch.record(c, codes.OK, nil)
		return nil
	}
	if _, known := errors.AsType[*eligibility.Error](err); !known && c.Err() != nil {
		err = c.Err() // the transport's own error of a caller that left
	}
	return ch.failed(c, err, 0) // a stream asks no question
}

// callStream is a stream whose context is its call.
type callStream struct {
	grpc.ServerStream
	call *call
}

// Context returns the call.
func (s *callStream) Context() context.Context { return s.call }

// questionsIn counts the questions of a request that failed as a whole. A batch
// that is malformed counts as no more than one may hold; a prefetch, a list and an
// explanation ask none.
func questionsIn(method string, req any) int {
	switch method {
	case eligibilityv1.EligibilityService_PrefetchEligibility_FullMethodName, eligibilityv1.EligibilityService_ListReviews_FullMethodName,
		eligibilityv1.EligibilityService_ExplainEligibility_FullMethodName:
		return 0
	}
	questions := 1
	switch req := req.(type) {
	case *Batch:
		questions = len(req.Questions)
	case *eligibilityv1.BatchCheckEligibilityRequest:
		questions = len(req.GetRequests())
	case interface{ Questions() int }:
		questions = req.Questions()
	}
	return min(max(questions, 1), MaxBatch)
}

// admit turns the RPC away while as many as Config.MaxConcurrent are in progress, or
// a batch or prefetch while half as many of these are, or while its caller may ask no
// more. Otherwise it hands the RPC on.
func (ch *Chain) admit(c *call, req any, method string, handler grpc.UnaryHandler) (any, error) {
	defer ch.inFlight.Add(-1)
	overloaded := ch.inFlight.Add(1) > int64(ch.cfg.MaxConcurrent)
	if isBulk(method) {
		defer ch.bulk.Add(-1)
		overloaded = ch.bulk.Add(1) > int64(ch.cfg.MaxConcurrent+1)/2 || overloaded
	}
	if overloaded {
		ch.metrics.overloaded.Inc()
		return nil, Overloaded()
	}
	if c.allowed != nil {
		if !c.allowed.Enter() {
			return nil, &eligibility.Error{Kind: eligibility.KindCallerLimited, RetryAfter: time.Second}
		}
		defer c.allowed.Leave()
		// Of a batch, the first item: the handler takes the others.
		if _, limited := c.take(c.start, 1); limited != nil {
			return nil, limited
		}
	}
	if err := refusal(req); err != nil {
		return nil, err
	}
	ch.bound(c, method)
	return ch.recovered(c, req, method, handler)
}

// isBulk reports whether a method asks about many customers in one RPC.
func isBulk(method string) bool {
	return method == eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName ||
		method == eligibilityv1.EligibilityService_PrefetchEligibility_FullMethodName
}

// bound gives the handler the caller's time less the reserve that the answer
// needs, and never more than Config.MaxTimeout. If the caller set no deadline, a
// single check gets Config.DefaultTimeout, and a batch all there is. It never
// refuses up front: a warm answer takes no time.
func (ch *Chain) bound(c *call, method string) {
	left := ch.cfg.DefaultTimeout
	if method == eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName {
		left = ch.cfg.MaxTimeout
	}
	if deadline, ok := c.Context.Deadline(); ok {
		left = deadline.Sub(c.start)
		c.callers, c.left = deadline, left
	}
	c.deadline = c.start.Add(min(left, ch.cfg.MaxTimeout) - ch.cfg.Reserve)
}

// recovered calls the handler and turns a panic into a bare INTERNAL. The
// panic's text is logged here with its stack and goes nowhere else.
func (ch *Chain) recovered(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if r := recover(); r != nil {
			resp, err = nil, ch.panicked(r, method)
		}
	}()
	return handler(ctx, req)
}

// recoverStream is recovered for streams. It also ends them when the server
// stops, for a watcher never ends by itself.
func (ch *Chain) recoverStream(srv any, stream *boundedStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, cancel := context.WithCancel(stream.ServerStream.Context())
	defer cancel()
	defer context.AfterFunc(ch.stopping, cancel)()
	defer func() {
		if r := recover(); r != nil {
			err = ch.panicked(r, info.FullMethod)
		}
	}()
	stream.ctx = ctx
	defer stream.leave()
	return handler(srv, stream)
}

const (
	// maxBeside is how many streams of health and reflection may be open after their
	// first message. They take no room from the API's.
	maxBeside = 4096
	// fairBeside is how many of them a connection may have when all are open. None is
	// denied because of what other connections hold.
	fairBeside = 1
)

// openStreams counts streams whose first message has arrived. It is safe for
// concurrent use.
type openStreams struct {
	most int // open streams; set once
	fair int // of one connection, if most are open; set once
	// share is the most of one caller who has a name, so that none takes all there
	// are; 0 means no bound. Set once.
	share int

	mu      sync.Mutex
	count   int
	of      map[*peer.Peer]int // connection → its streams
	callers map[string]int     // caller → its streams
}

// open is how many streams are open.
func (o *openStreams) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

// enter reports whether there is room for a stream of conn, by a caller who has a name
// or "", and counts it.
func (o *openStreams) enter(conn *peer.Peer, caller string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count >= o.most && o.of[conn] >= o.fair || caller != "" && o.share > 0 && o.callers[caller] >= o.share {
		return false
	}
	if o.of == nil {
		o.of, o.callers = make(map[*peer.Peer]int), make(map[string]int)
	}
	o.count++
	o.of[conn]++
	o.callers[caller]++
	return true
}

// leave ends the count of a stream that entered.
func (o *openStreams) leave(conn *peer.Peer, caller string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.count--
	o.of[conn]--
	if o.of[conn] == 0 {
		delete(o.of, conn)
	}
	o.callers[caller]--
	if o.callers[caller] == 0 {
		delete(o.callers, caller)
	}
}

// boundedStream is a stream whose context ends with the server. It counts as open
// from its first message on.
type boundedStream struct {
	grpc.ServerStream
	ctx     context.Context //nolint:containedctx // a stream's context is handed on by its method only
	open    *openStreams
	conn    *peer.Peer // one for each connection
	caller  string     // its name; "" if it has none
	counted bool
}

// Context returns the context that ends with the server.
func (b *boundedStream) Context() context.Context { return b.ctx }

// RecvMsg receives the next message. It fails if the message is refused, or if
// it is the first and too many streams are open.
func (b *boundedStream) RecvMsg(m any) error {
	if err := refusedStatus(b.ServerStream.RecvMsg(m), m); err != nil || b.counted {
		return err
	}
	b.conn, _ = peer.FromContext(b.ctx)
	b.counted = b.open.enter(b.conn, b.caller)
	if !b.counted {
		return &statusError{*Overloaded()}
	}
	return nil
}

// refusedStatus is err, or the status of a message that is refused.
func refusedStatus(err error, message any) error {
	if err != nil {
		return err
	}
	if err := refusal(message); err != nil {
		return &statusError{*domainError(err)}
	}
	return nil
}

// leave ends the count.
func (b *boundedStream) leave() {
	if b.counted {
		b.open.leave(b.conn, b.caller)
	}
}

// panicked logs a panic and returns the error that the caller gets.
func (ch *Chain) panicked(recovered any, method string) error {
	ch.metrics.panics.Inc()
	logging.Limit(ch.logger, ch.limits.failures[panicRecord]).Error("rpc panicked",
		zap.String("rpc", method),
		zap.String("panic", fmt.Sprint(recovered)),
		zap.ByteString("stack", debug.Stack()))
	return &statusError{eligibility.Error{Kind: eligibility.KindInternal, Err: errors.New("panic, logged apart")}}
}

// statusError is an error of the domain with its gRPC status, for RPCs that are
// not the API's: nothing converts their errors.
type statusError struct{ domain eligibility.Error }

func (e *statusError) Error() string              { return e.domain.Error() }
func (e *statusError) Unwrap() error              { return &e.domain }
func (e *statusError) GRPCStatus() *status.Status { return StatusOf(&e.domain) }
