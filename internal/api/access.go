package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// open marks a method that needs no right and no caller.
const open access.Rights = 0

// needed returns the right that each method of services needs, by its full name. A
// method that is not in the table is refused.
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
	}
}

// Connection is what the server knows about a connection over gRPC: it is the
// AuthInfo of its peer.
type Connection interface {
	// Requested records that a request has arrived.
	Requested()
	// Certificate is the client's verified certificate; nil if it presented none.
	Certificate() *access.Certificate
}

// Begin begins an RPC over gRPC before its message is received: it identifies the
// request, authenticates its caller, and checks the right that the method needs.
// The context returned is the RPC's. If the RPC is refused, it is recorded, and the
// error is its status. [Chain.Intercept] begins an RPC for which Begin was not called.
func (ch *Chain) Begin(ctx context.Context, method string) (context.Context, error) {
	given := access.Credentials{Authorization: metadata.ValueFromIncomingContext(ctx, "authorization")}
	if from, ok := peer.FromContext(ctx); ok {
		if conn, ok := from.AuthInfo.(Connection); ok {
			conn.Requested()
			given.Certificate = conn.Certificate()
		}
	}
	series, ours := ch.metrics.rpcs[method]
	if !ours {
		_, failure := ch.authorize(method, given)
		if failure != nil {
			return nil, StatusOf(failure).Err()
		}
		return ctx, nil
	}
	c := ch.identify(ctx, method, series)
	return c, ch.begin(c, method, given)
}

// BeginREST is Begin for an RPC over REST, whose request is described in in.
func (ch *Chain) BeginREST(ctx context.Context, method string, in *Inbound) error {
	c := ch.identify(ctx, method, ch.metrics.rpcs[method])
	in.call = c
	return ch.begin(c, method, in.Credentials)
}

// Permits reports, as a status, whether the caller who presents given lacks a right.
// It is for requests that are no RPC.
func (ch *Chain) Permits(given access.Credentials, right access.Rights) error {
	caller, failure := ch.authenticate(given)
	if failure == nil && !caller.Rights.Has(right) {
		failure = denied(right)
	}
	if failure != nil {
		return StatusOf(failure).Err()
	}
	return nil
}

// begin authenticates the caller of c, and records c if that fails.
func (ch *Chain) begin(c *call, method string, given access.Credentials) error {
	caller, failure := ch.authorize(method, given)
	c.caller = caller
	if failure != nil {
		c.start = time.Now()
		defer c.end()
		return ch.failed(c, failure, 1)
	}
	return nil
}

// authorize authenticates the caller of a method and checks its right to it. The
// caller is nil if it is not known.
func (ch *Chain) authorize(method string, given access.Credentials) (*access.Caller, *eligibility.Error) {
	right, known := ch.needed[method]
	if known && right == open {
		return access.Anonymous, nil
	}
	caller, failure := ch.authenticate(given)
	if failure != nil {
		return nil, failure
	}
	if !known || !caller.Rights.Has(right) {
		return caller, denied(right)
	}
	return caller, nil
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

func denied(right access.Rights) *eligibility.Error {
	return &eligibility.Error{Kind: eligibility.KindPermissionDenied, Right: right.String()}
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
