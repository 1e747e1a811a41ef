package server

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// The headers that a caller may send and gets back, as metadata keys.
const (
	headerRequestID   = "x-request-id"
	headerTraceparent = "traceparent"
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

// traceparent is a valid W3C trace context header, or empty.
//
// Source: https://www.w3.org/TR/trace-context/#traceparent-header
type traceparent string

// parseTraceparent returns header if it is a valid traceparent: version, trace
// ID, parent ID and flags in lower-case hexadecimal. A version after 00 may
// carry more behind a further dash.
func parseTraceparent(header string) traceparent {
	const length = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(header) < length || len(header) > 256 ||
		header[2] != '-' || header[35] != '-' || header[52] != '-' ||
		!isHex(header[:2]) || !isHex(header[3:35]) || !isHex(header[36:52]) || !isHex(header[53:length]) {
		return ""
	}
	if version := header[:2]; version == "ff" || version == "00" && len(header) > length {
		return ""
	}
	if len(header) > length && header[length] != '-' {
		return ""
	}
	if strings.Trim(header[3:35], "0") == "" || strings.Trim(header[36:52], "0") == "" {
		return ""
	}
	return traceparent(header)
}

// traceID is the trace that the caller's request belongs to; empty where none.
func (t traceparent) traceID() string {
	if t == "" {
		return ""
	}
	return string(t[3:35])
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
