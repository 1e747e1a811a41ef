package api

import (
	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Inbound is what a transport has read of a request beside its message. gRPC
// leaves it out: there the message and its metadata are all there is.
type Inbound struct {
	// Violations are those of the request as a whole, Items those of the items of
	// a batch, by place.
	Violations Violations
	Items      map[int]Violations
	// RequestID, Trace and Span are the request's; Span is nil if it is not
	// traced.
	RequestID string
	Trace     Traceparent
	Span      trace.Span
	// Language is that of the messages.
	Language eligibility.Language
	// Credentials are what the caller presents.
	Credentials access.Credentials

	caller *access.Caller // nil until [Chain.Authenticate]
	call   *call          // nil until [Chain.BeginREST] has permitted it
}

// InboundKey is the key of a context's *Inbound.
type InboundKey struct{}

// Admit makes caller that of the request. It was authenticated elsewhere: the
// credentials are not examined then.
func (in *Inbound) Admit(caller *access.Caller) { in.caller = caller }

// Next returns what another RPC of the same request begins with: the request's
// identity, language and caller.
func (in *Inbound) Next() *Inbound {
	return &Inbound{RequestID: in.RequestID, Trace: in.Trace, Language: in.Language, Credentials: in.Credentials, caller: in.caller}
}

// itemFaults returns the violations of an item of a batch, for the handler to
// add its own.
func (in *Inbound) itemFaults(place int) Violations {
	if faults, ok := in.Items[place]; ok {
		return faults
	}
	return ItemViolations(place)
}
