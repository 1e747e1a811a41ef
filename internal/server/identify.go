package server

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// The headers that a caller may send and gets back, as metadata keys.
const (
	headerRequestID   = "x-request-id"
	headerTraceparent = "traceparent"
	headerTracestate  = "tracestate" // taken only
)

// maxRequestIDBytes is the longest request ID taken from a caller.
const maxRequestIDBytes = 128

// identify gives the RPC its record, its request ID and its trace, and returns
// both to the caller in the header.
func (s *Server) identify(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c := &call{
		rpc:       info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:],
		via:       viaOf(ctx),
		requestID: requestIDOr(first(metadata.ValueFromIncomingContext(ctx, headerRequestID))),
		trace:     parseTraceparent(first(metadata.ValueFromIncomingContext(ctx, headerTraceparent))),
	}
	if c.via == viaREST {
		c.span = restOf(ctx).span
	} else if s.tracer.takes(c.trace) {
		state := strings.Join(metadata.ValueFromIncomingContext(ctx, headerTracestate), ",")
		ctx, c.span, c.trace = s.tracer.start(ctx, info.FullMethod[1:], c.trace, state,
			attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", info.FullMethod[1:]))
		defer c.span.End()
	}
	header := metadata.Pairs(headerRequestID, c.requestID)
	if c.trace != "" {
		header.Set(headerTraceparent, string(c.trace))
	}
	// It fails only where the header was sent already or there is no stream.
	_ = grpc.SetHeader(ctx, header)
	return handler(context.WithValue(ctx, callKey{}, c), req)
}

// requestIDOr returns id if it is fit for logs and headers, 1 to 128 visible
// ASCII characters, and a new one otherwise.
func requestIDOr(id string) string {
	if id == "" || len(id) > maxRequestIDBytes {
		return uuid.NewString()
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return uuid.NewString()
		}
	}
	return id
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
