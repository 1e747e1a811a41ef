package eligibility

import (
	"fmt"
	"time"
)

// Kind is what went wrong, in the caller's terms.
type Kind uint8

// The kinds of error. The zero value is a fault of ours.
const (
	KindInternal Kind = iota
	// KindInvalidArgument: the question is malformed.
	KindInvalidArgument
	// KindNotFound: Partner Center knows no such customer.
	KindNotFound
	// KindNotServed: this partner does not serve that customer.
	KindNotServed
	// KindUnavailable: Partner Center or the login host failed, or gave no complete
	// answer within the service's own limits.
	KindUnavailable
	// KindThrottled: Partner Center or the login host asked for a pause, or
	// the own budget for it is spent.
	KindThrottled
	// KindCredentials: Partner Center or the login host refuses our
	// credentials. Somebody must act; asking again does not help.
	KindCredentials
	// KindInvalidResponse: Partner Center answered something that the rule cannot read.
	KindInvalidResponse
	// KindOverloaded: this service has more to do than it can.
	KindOverloaded
	// KindDeadlineExceeded: the caller's deadline, or the default for callers
	// without one, ended the wait. The fetch goes on.
	KindDeadlineExceeded
	// KindCanceled: the caller left.
	KindCanceled
	// KindUnauthenticated: the caller did not prove who it is.
	KindUnauthenticated
	// KindPermissionDenied: the caller lacks Error.Right.
	KindPermissionDenied
	// KindCallerLimited: the caller has used up what it may ask for now.
	KindCallerLimited
	// KindResumeTokenExpired: the changes after a resume token are no longer kept.
	KindResumeTokenExpired
	// KindFeedUnavailable: the feed of changes cannot be read.
	KindFeedUnavailable
	// KindNotKnown: no evidence that can be used is at hand, and Partner Center was
	// not asked. Only explanations have it.
	KindNotKnown
)

// Kinds lists every kind, for tables that must cover all of them.
func Kinds() []Kind {
	kinds := make([]Kind, 0, KindNotKnown+1)
	for k := KindInternal; k <= KindNotKnown; k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// String returns the kind's name for logs and metrics.
func (k Kind) String() string {
	switch k {
	case KindInvalidArgument:
		return "invalid_argument"
	case KindNotFound:
		return "not_found"
	case KindNotServed:
		return "not_served"
	case KindUnavailable:
		return "unavailable"
	case KindThrottled:
		return "throttled"
	case KindCredentials:
		return "credentials"
	case KindInvalidResponse:
		return "invalid_response"
	case KindOverloaded:
		return "overloaded"
	case KindDeadlineExceeded:
		return "deadline_exceeded"
	case KindCanceled:
		return "canceled"
	case KindUnauthenticated:
		return "unauthenticated"
	case KindPermissionDenied:
		return "permission_denied"
	case KindCallerLimited:
		return "caller_limited"
	case KindResumeTokenExpired:
		return "resume_token_expired"
	case KindFeedUnavailable:
		return "feed_unavailable"
	case KindNotKnown:
		return "not_known"
	default:
		return "internal"
	}
}

// Reason returns the kind's name as the API spells it, for ErrorInfo, logs and
// metrics.
func (k Kind) Reason() string {
	switch k {
	case KindInvalidArgument:
		return "INVALID_ARGUMENT"
	case KindNotFound:
		return "CUSTOMER_NOT_FOUND"
	case KindNotServed:
		return "CUSTOMER_NOT_SERVED"
	case KindUnavailable:
		return "PARTNER_CENTER_UNAVAILABLE"
	case KindThrottled:
		return "PARTNER_CENTER_THROTTLED"
	case KindCredentials:
		return "PARTNER_CENTER_CREDENTIALS"
	case KindInvalidResponse:
		return "PARTNER_CENTER_INVALID_RESPONSE"
	case KindOverloaded:
		return "OVERLOADED"
	case KindDeadlineExceeded:
		return "DEADLINE_EXCEEDED"
	case KindCanceled:
		return "CANCELLED"
	case KindUnauthenticated:
		return "UNAUTHENTICATED"
	case KindPermissionDenied:
		return "PERMISSION_DENIED"
	case KindCallerLimited:
		return "CALLER_LIMITED"
	case KindResumeTokenExpired:
		return "RESUME_TOKEN_EXPIRED"
	case KindFeedUnavailable:
		return "FEED_UNAVAILABLE"
	case KindNotKnown:
		return "NOT_KNOWN"
	default:
		return "INTERNAL"
	}
}

// undecidable reports whether policy.when_undecidable applies to the kind:
// Partner Center could not be asked or understood.
func (k Kind) undecidable() bool {
	switch k {
	case KindUnavailable, KindThrottled, KindCredentials, KindInvalidResponse:
		return true
	default:
		return false
	}
}

// Violation names a field of the request and what is wrong with it. Both are
// fit to show to the caller.
type Violation struct {
	Field       string
	Description string
}

// Call describes what a fetch did upstream, for logs. The zero value means
// that no call was made.
type Call struct {
	// Attempts counts HTTP requests, replays included.
	Attempts int
	// Status is the last HTTP status, 0 if no response came.
	Status int
	// CorrelationID and RequestID are the last MS-CorrelationId and MS-RequestId.
	CorrelationID string
	RequestID     string
	// Lane is the lane in which the call waited for the budget, "" if it did not.
	Lane string
}

// Error is why there is no answer. Err is the cause and never leaves the process.
type Error struct {
	Kind Kind
	// RetryAfter is when asking again may help; zero means unknown.
	RetryAfter time.Duration
	// Violations are the faults of the request; KindInvalidArgument only.
	Violations []Violation
	// Right is the right that the caller lacks; KindPermissionDenied only.
	Right string
	// Call is the call to Partner Center that failed; zero if none was made.
	Call Call
	Err  error
}

// Error returns the kind and the cause, for logs.
func (e *Error) Error() string {
	if e.Err == nil {
		return "eligibility: " + e.Kind.String()
	}
	return fmt.Sprintf("eligibility: %s: %v", e.Kind, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
