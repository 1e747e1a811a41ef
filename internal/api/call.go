package api

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// call is what is known about one RPC while it is being answered, and the
// context that it is answered in. Interceptor and handler share it, one after
// the other.
type call struct {
	lazyContext

	in        *Inbound          // never nil
	start     time.Time         // when its message had arrived
	caller    *access.Caller    // nil if it is not known
	requests  *callerSeries     // the caller's
	allowed   *allowance.Caller // what the caller may ask; nil if nothing bounds it
	series    *rpcMetrics       // the method's, by the way that the RPC came
	requestID string            // the caller's; see id
	trace     Traceparent
	span      trace.Span // nil if the RPC is not traced

	callers time.Time     // the deadline that the caller set; zero if it set none
	left    time.Duration // until then, on arrival

	// CheckReply is the answer to a single question. The customer's ID is not
	// known for a batch, nor for a name that is no GUID.
	CheckReply

	question        Question // as it was sent over gRPC, if it is a single one
	knowsCustomerID bool
	recorded        bool // the answer to a single question is in the decision log, or cannot be

	// partner is the one that the RPC is for, nil if it is not known or a batch is
	// for several; partners is their number.
	partner  *partner
	partners int
	// operation and segment are those of a single question.
	operation eligibility.Operation
	segment   eligibility.Segment
	// prefetched is what a prefetch returned; nil for other RPCs.
	prefetched *evidence.Prefetched

	// watched is a stream's of changes; nil for other RPCs.
	watched *watched

	// tally and batch are a batch's; nil for one that is malformed.
	tally *tally
	batch BatchReply
}

// tally counts what became of the items of a batch.
type tally struct {
	allowed, blocked, failed int
	undecided                int                // blocked under when_undecidable: block; not in blocked
	cause                    *eligibility.Error // the worst reason why one is undecided; nil if none is
	answers                  answerCounts       // for the metrics
}

func (t *tally) fail(err *eligibility.Error) {
	t.failed++
	t.blame(err)
}

// blame keeps the worst reason why an item is undecided.
func (t *tally) blame(err *eligibility.Error) {
	if t.cause == nil || FaultOf(err.Kind).Level > FaultOf(t.cause.Kind).Level {
		t.cause = err
	}
}

// undecided returns why an answer is no decision: under when_undecidable: block
// it stands for an error. It returns nil for a decision.
func undecided(answer *eligibility.Answer) *eligibility.Error {
	for _, reason := range answer.Reasons {
		if reason.Code == eligibility.ReasonUndecidable {
			return domainError(answer.Cause)
		}
	}
	return nil
}

// enoughTime is how long a caller has to wait in vain for the service to be to blame:
// Partner Center usually answers in less.
const enoughTime = 400 * time.Millisecond

// impatient reports whether the caller, if it left now, has waited for too short a time.
func (c *call) impatient() bool { return time.Since(c.start) < enoughTime }

// id is the ID of the request: the caller's, or a random one, made when the first record
// bears it. It is not for concurrent use.
func (c *call) id() string {
	if c.requestID == "" {
		c.requestID = newRequestID()
	}
	return c.requestID
}

type callKey struct{}

// Value returns the call itself under its key, and what its caller may ask about new
// customers under evidence's.
func (c *call) Value(key any) any {
	switch key {
	case callKey{}:
		return c
	case evidence.NewCustomersKey{}:
		if c.allowed == nil {
			return nil
		}
		return c.allowed.NewCustomers(c.caller.Rights.Has(access.Batch))
	default:
		return c.lazyContext.Value(key)
	}
}

// take takes n more requests of those that the caller may make now, or as many as
// are left. If that is fewer, limited is the error of the others.
func (c *call) take(now time.Time, n int) (granted int, limited *eligibility.Error) {
	if c.allowed == nil {
		return n, nil
	}
	granted, retryAfter := c.allowed.Requests(now, n)
	if granted < n {
		limited = &eligibility.Error{Kind: eligibility.KindCallerLimited, RetryAfter: retryAfter}
	}
	return granted, limited
}

// callOf returns the call that ctx is, or descends from.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.(*call); ok {
		return c
	}
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}
