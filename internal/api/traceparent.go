package api

import (
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// Traceparent is a valid W3C trace context header, or empty.
//
// Source: https://www.w3.org/TR/trace-context/#traceparent-header
type Traceparent string

// ParseTraceparent returns header if it is a valid traceparent: version, trace
// ID, parent ID and flags in lower-case hexadecimal. A version after 00 may
// carry more behind a further dash.
func ParseTraceparent(header string) Traceparent {
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
	return Traceparent(header)
}

// traceID is the trace that the caller's request belongs to; empty if there is none.
func (t Traceparent) traceID() string {
	if t == "" {
		return ""
	}
	return string(t[3:35])
}

// sampled reports whether the caller traces the request itself.
func (t Traceparent) sampled() bool { return hexDigit(t[54])&1 != 0 }

// spanContext is the caller's span. A tracestate that cannot be read is left
// out, as the specification has it.
func (t Traceparent) spanContext(state string) trace.SpanContext {
	parent := trace.SpanContextConfig{TraceFlags: trace.TraceFlags(hexDigit(t[54])), Remote: true}
	// What ParseTraceparent has taken decodes.
	_, _ = hex.Decode(parent.TraceID[:], []byte(t[3:35]))
	_, _ = hex.Decode(parent.SpanID[:], []byte(t[36:52]))
	if read, err := trace.ParseTraceState(state); err == nil {
		parent.TraceState = read
	}
	return trace.NewSpanContext(parent)
}

// hexDigit is the value of a digit that isHex has taken.
func hexDigit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
