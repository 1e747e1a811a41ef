package api

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"strings"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// The headers that a caller may send and gets back, as metadata keys.
const (
	headerRequestID   = "x-request-id"
	HeaderTraceparent = "traceparent"
	HeaderTracestate  = "tracestate" // taken only
)

// maxRequestIDBytes is the longest request ID taken from a caller.
const maxRequestIDBytes = 128

// identify begins the record of an RPC: its language, the request ID of a caller that
// sent one and its trace, which the caller gets back, and its span if it may be traced,
// which no refused one is. Over REST, they have been read, and are returned, by HTTP.
func (ch *Chain) identify(ctx context.Context, method string, series methodMetrics, caller *access.Caller, traced bool) *call {
	c := &call{lazyContext: lazyContext{Context: ctx}, caller: caller, requests: ch.metrics.callers.of(caller)}
	if ch.cfg.Limits != nil && caller != nil {
		c.allowed = ch.cfg.Limits.Of(caller.Name)
	}
	stream := grpc.ServerTransportStreamFromContext(ctx)
	if stream == nil {
		if in, ok := ctx.Value(InboundKey{}).(*Inbound); ok {
			c.in, c.series = in, series.rest
			c.requestID, c.trace, c.span, c.Language = in.RequestID, in.Trace, in.Span, in.Language
			return c
		}
	}
	c.in, c.series = &ch.noInbound, series.grpc
	sent := ch.incoming(ctx)
	if id := first(sent[headerRequestID]); id != "" {
		c.requestID = RequestIDOr(id)
	}
	c.Language = ch.languages.of(sent[headerAcceptLanguage])
	c.trace = ParseTraceparent(first(sent[HeaderTraceparent]))
	if traced && ch.tracer.Samples(c.trace) {
		state := strings.Join(sent[HeaderTracestate], ",")
		c.Context, c.span, c.trace = ch.tracer.Start(ctx, method[1:], c.trace, state,
			attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", method[1:]))
	}
	if stream != nil && (c.requestID != "" || c.trace != "") {
		ch.sendHeader(stream, c)
	}
	return c
}

// callerHeader is the header that an RPC over gRPC is answered with. The
// transport copies it, so it is used again.
type callerHeader struct {
	metadata  metadata.MD
	requestID []string // if the caller sent one
	trace     []string // if there is a trace
}

func newCallerHeader() any {
	return &callerHeader{metadata: make(metadata.MD, 2), requestID: make([]string, 1), trace: make([]string, 1)}
}

// sendHeader returns request ID and trace to the caller, if there are any. A random ID
// in each answer would cost more than the look-up: it is never in the tables of HPACK.
func (ch *Chain) sendHeader(stream grpc.ServerTransportStream, c *call) {
	h, _ := ch.headers.Get().(*callerHeader)
	if c.requestID != "" {
		h.requestID[0] = c.requestID
		h.metadata[headerRequestID] = h.requestID
	}
	if c.trace != "" {
		h.trace[0] = string(c.trace)
		h.metadata[HeaderTraceparent] = h.trace
	}
	_ = stream.SetHeader(h.metadata) // it fails only if the header was sent already
	clear(h.metadata)
	ch.headers.Put(h)
}

// RequestIDOr returns id if it is fit for logs and headers, 1 to 128 visible
// ASCII characters, and a new one otherwise.
func RequestIDOr(id string) string {
	if id == "" || len(id) > maxRequestIDBytes {
		return newRequestID()
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return newRequestID()
		}
	}
	return id
}

// newRequestID returns a random UUID. It has to be unique and not a secret, so
// it comes from the fast generator, which the system's has seeded.
func newRequestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64()) //nolint:gosec // see above
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64()) //nolint:gosec // see above
	id[6] = id[6]&0x0f | 0x40                            // version 4
	id[8] = id[8]&0x3f | 0x80                            // of RFC 9562
	return id.String()
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
