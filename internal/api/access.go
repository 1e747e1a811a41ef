package api

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// open marks a method that needs no right and no caller.
const open access.Rights = 0

// method is what the chain knows about one method. The zero value is a method that is
// refused.
type method struct {
	right  access.Rights // that it needs
	known  bool          // it has a right
	ours   bool          // it is one of the chain's services: logged, counted and limited
	series methodMetrics // empty if it is not ours
}

// methodsOf returns the methods of services, of health and of reflection, by their full
// names.
func methodsOf(services []Service, metrics *metrics) map[string]method {
	methods := make(map[string]method)
	for name, series := range metrics.rpcs {
		methods[name] = method{ours: true, series: series}
	}
	for name, right := range needed(services) {
		m := methods[name]
		m.right, m.known = right, true
		methods[name] = m
	}
	return methods
}

// needed returns the right that each method of services needs, by its full name.
func needed(services []Service) map[string]access.Rights {
	table := map[string]access.Rights{
		"/grpc.health.v1.Health/Check":                                   open,
		"/grpc.health.v1.Health/List":                                    open,
		"/grpc.health.v1.Health/Watch":                                   open,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      access.Check,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": access.Check,
	}
	for _, service := range services {
		for method, right := range service.Needs {
			table[service.FullMethod(method)] = right
		}
	}
	return table
}

// needs returns the right that each method of the API needs.
func needs() map[string]access.Rights {
	return map[string]access.Rights{
		"CheckEligibility":      access.Check,
		"BatchCheckEligibility": access.Batch,
		"PrefetchEligibility":   access.Prefetch,
		"WatchEligibility":      access.Watch,
		"ListReviews":           access.Support,
		"ExplainEligibility":    access.Support,
	}
}

// Authenticator identifies callers. An [access.Authenticator] is one.
type Authenticator interface {
	// Authenticate returns the caller who presents given. It makes no I/O. The error
	// states the cause for the log, and holds no part of a token.
	Authenticate(given access.Credentials) (*access.Caller, error)
}

// Connection is what the server knows about a connection. Over gRPC it is the
// AuthInfo of the peer.
type Connection interface {
	// Requested records that a request has arrived.
	Requested()
	// Streaming records that a stream of changes begins, which may last for
	// MaxWatchAge; ended that it has ended.
	Streaming() (ended func())
	// Close closes the connection.
	Close() error
	// Certificate is the client's verified certificate; nil if it presented none.
	Certificate() *access.Certificate
}

// ConnectionKey is the key of the [Connection] in the context of a request over REST.
type ConnectionKey struct{}

// Begin begins an RPC over gRPC before its message is received: it authenticates the
// caller, checks the right that the method needs, and identifies the request. The
// context returned is the RPC's. If the RPC is refused, it is recorded, and the
// error is its status. [Chain.Intercept] begins an RPC for which Begin was not called.
func (ch *Chain) Begin(ctx context.Context, method string) (context.Context, error) {
	given := access.Credentials{Authorization: ch.incoming(ctx)["authorization"]}
	if from, ok := peer.FromContext(ctx); ok {
		if conn, ok := from.AuthInfo.(Connection); ok {
			conn.Requested()
			given.Certificate = conn.Certificate()
		}
	}
	m := ch.methods[method]
	if !m.ours {
		if m.known && m.right == open {
			return ctx, nil
		}
		m.series = ch.metrics.other
	}
	caller, failure := ch.authenticate(given)
	if failure == nil {
		failure = authorize(caller, m.right, m.known || !m.ours)
	}
	if failure != nil {
		return nil, ch.refuse(ch.identify(ctx, method, m.series, caller, false), failure)
	}
	switch {
	case m.ours:
		return ch.identify(ctx, method, m.series, caller, true), nil
	case m.known:
		return ctx, nil
	default:
		c := ch.identify(ctx, method, m.series, caller, false)
		defer c.end()
		c.series.handled(c, codes.Unimplemented, 0)
		c.requests.count(codes.Unimplemented)
		return nil, status.Error(codes.Unimplemented, "This service has no such method.")
	}
}

// BeginREST is Begin for an RPC over REST, whose request is described in in.
func (ch *Chain) BeginREST(ctx context.Context, method string, in *Inbound) error {
	if err := ch.Authenticate(ctx, in); err != nil {
		return err
	}
	m := ch.methods[method]
	failure := authorize(in.caller, m.right, m.known)
	c := ch.identify(ctx, method, m.series, in.caller, true)
	if failure != nil {
		return ch.refuse(c, failure)
	}
	in.call = c
	return nil
}

// Authenticate authenticates the caller of a request over REST, unless that was done.
// A request that fails is recorded, and the error is its status.
func (ch *Chain) Authenticate(ctx context.Context, in *Inbound) error {
	if in.caller != nil {
		return nil
	}
	caller, failure := ch.authenticate(in.Credentials)
	if failure != nil {
		return ch.refuseREST(ctx, in, failure)
	}
	in.caller = caller
	return nil
}

// Permits reports, as a status, whether the caller of a request over REST that is no
// RPC lacks a right.
func (ch *Chain) Permits(ctx context.Context, in *Inbound, right access.Rights) error {
	if err := ch.Authenticate(ctx, in); err != nil {
		return err
	}
	if failure := authorize(in.caller, right, true); failure != nil {
		return ch.refuseREST(ctx, in, failure)
	}
	return nil
}

// refuseREST is refuse for a request over REST whose method is not known.
func (ch *Chain) refuseREST(ctx context.Context, in *Inbound, failure *eligibility.Error) error {
	c := &call{lazyContext: lazyContext{Context: ctx}, in: in, series: ch.metrics.other.rest, requestID: in.RequestID, trace: in.Trace}
	c.caller, c.requests = in.caller, ch.metrics.callers.of(in.caller)
	return ch.refuse(c, failure)
}

const (
	// refusalsPerSecond is how many requests without a valid caller are answered at
	// once, and refusalsBurst how many of them may come together. Each further one is
	// answered after one to two refusalPause, so that a flood of them takes little time
	// from callers.
	refusalsPerSecond = 500
	refusalsBurst     = 50
	refusalPause      = time.Second
	// maxPaused bounds the requests that wait; more are answered at once.
	maxPaused = 4096
)

// pauseRefusal waits before a request without a valid caller is refused, if there are
// many.
func (ch *Chain) pauseRefusal(ctx context.Context) {
	if ch.refusals.Allow() {
		return
	}
	defer ch.paused.Add(-1)
	if ch.paused.Add(1) > maxPaused {
		return
	}
	pause := time.NewTimer(refusalPause + rand.N(refusalPause)) //nolint:gosec // spreads load
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	case <-ch.stopping.Done():
	}
}

// refuse records an RPC that was refused before its message was received, and returns
// its status.
func (ch *Chain) refuse(c *call, failure *eligibility.Error) error {
	c.start = time.Now()
	defer c.end()
	err := ch.failed(c, failure, 1)
	if failure.Kind == eligibility.KindUnauthenticated {
		ch.pauseRefusal(c)
	}
	return err
}

func (ch *Chain) authenticate(given access.Credentials) (*access.Caller, *eligibility.Error) {
	if ch.cfg.Access == nil {
		return access.Anonymous, nil
	}
	caller, err := ch.cfg.Access.Authenticate(given)
	if err != nil {
		return nil, &eligibility.Error{Kind: eligibility.KindUnauthenticated, Err: err}
	}
	return caller, nil
}

// authorize fails if the caller lacks a right, or if the method that needs it is not
// in the table.
func authorize(caller *access.Caller, right access.Rights, known bool) *eligibility.Error {
	if !known || !caller.Rights.Has(right) {
		return &eligibility.Error{Kind: eligibility.KindPermissionDenied, Right: right.String()}
	}
	return nil
}

// begun returns the call of ctx, which it begins unless that is done. The time of
// the call starts here: how fast its message arrives depends on the caller.
func (ch *Chain) begun(ctx context.Context, method string) (*call, error) {
	c, err := ch.callFor(ctx, method)
	if err == nil {
		c.start = time.Now()
	}
	return c, err
}

func (ch *Chain) callFor(ctx context.Context, method string) (*call, error) {
	if c, ok := ctx.(*call); ok {
		return c, nil
	}
	if grpc.ServerTransportStreamFromContext(ctx) == nil {
		if in, ok := ctx.Value(InboundKey{}).(*Inbound); ok {
			if in.call != nil {
				in.call.Context = ctx
				return in.call, nil
			}
			err := ch.BeginREST(ctx, method, in)
			return in.call, err
		}
	}
	ctx, err := ch.Begin(ctx, method)
	c, _ := ctx.(*call)
	return c, err
}
