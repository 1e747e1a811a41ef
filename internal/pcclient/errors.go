package pcclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// ErrCustomerID is returned if a customer ID is not a GUID in the form
// 8-4-4-4-12. No call is made then.
var ErrCustomerID = errors.New("partner center: customer ID is not a hyphenated GUID")

// Op names what was asked, in errors and metrics.
type Op string

// The operations. OpToken is asked of the login host, the others of Partner Center.
const (
	OpToken            Op = "token"
	OpValidationStatus Op = "validation_status"
	OpQualifications   Op = "qualifications"
)

// Class groups the failures of an [APIError] by what callers can do. The zero
// value is a failure that nothing else is known about.
type Class uint8

// The classes.
const (
	// ClassInvalidResponse: an answer that the rules cannot read.
	ClassInvalidResponse Class = iota
	// ClassUnavailable: no complete answer in time, or a failure of the far side.
	ClassUnavailable
	// ClassThrottled: either host asked for a pause, or the own budget is spent.
	ClassThrottled
	// ClassCredentials: either host refuses our credentials. Somebody must act.
	ClassCredentials
	// ClassNotFound: Partner Center knows no such tenant (404, code 60003).
	ClassNotFound
	// ClassNotServed: this partner does not serve that customer (403, code 20002).
	ClassNotServed
)

// String returns the class's name for logs.
func (c Class) String() string {
	switch c {
	case ClassUnavailable:
		return "unavailable"
	case ClassThrottled:
		return "throttled"
	case ClassCredentials:
		return "credentials"
	case ClassNotFound:
		return "not_found"
	case ClassNotServed:
		return "not_served"
	default:
		return "invalid_response"
	}
}

// Reason is the cause of a failure, from a closed set. It serves as a metric
// label.
type Reason string

// The reasons of failures.
const (
	ReasonConnection   Reason = "connection"   // no complete answer: the connection failed
	ReasonTimeout      Reason = "timeout"      // no complete answer in time
	ReasonCanceled     Reason = "canceled"     // the caller left
	ReasonServerError  Reason = "server_error" // 408 or 5xx except 501
	ReasonThrottled    Reason = "throttled"    // 429
	ReasonPaused       Reason = "paused"       // no call: a 429's Retry-After runs
	ReasonBudget       Reason = "budget"       // no call: the own budget is spent
	ReasonBreaker      Reason = "breaker"      // no call: Partner Center has not worked for a while
	ReasonUnauthorized Reason = "unauthorized" // 401
	ReasonForbidden    Reason = "forbidden"    // 403 with a readable error body
	ReasonAppOnly      Reason = "app_only"     // no call: needs FlowAppUser
	ReasonNotFound     Reason = "not_found"    // 404, code 60003
	ReasonNotServed    Reason = "not_served"   // 403, code 20002
	ReasonUnreadable   Reason = "unreadable"   // a body that the rules cannot read
	ReasonUnexpected   Reason = "unexpected"   // a status that the rules do not know

	// ReasonInvalidGrant and those below are of the login host only. If they
	// stand for one of its error words, they have its name.
	ReasonInvalidGrant       Reason = "invalid_grant"        // the refresh token has expired or was revoked
	ReasonInteraction        Reason = "interaction_required" // the user must sign in again
	ReasonConsent            Reason = "consent_required"     // a permission is not consented to
	ReasonInvalidClient      Reason = "invalid_client"       // the secret or certificate is wrong or has expired
	ReasonUnauthorizedClient Reason = "unauthorized_client"  // the application may not do that
	ReasonInvalidResource    Reason = "invalid_resource"     // no such audience or permission
	ReasonInvalidRequest     Reason = "invalid_request"      // no such tenant, or a parameter is wrong
	ReasonRefused            Reason = "refused"              // another word, or no usable token
	ReasonRefreshToken       Reason = "refresh_token"        // no call: there is no refresh token to read
	ReasonRefreshTokenStore  Reason = "refresh_token_store"  // no call: the refresh token's store is away
	// ReasonClientCredential is: no call, because the vault hands out no secret or
	// certificate that can be used, or the platform no identity.
	ReasonClientCredential       Reason = "client_credential"
	ReasonClientCredentialSource Reason = "client_credential_source" // no call: the vault, or the identity endpoint, is away

	// reasonNoStatus is an answer: 404 with code 600074 about an account.
	reasonNoStatus Reason = "no_status"
)

// APIError is a question that Partner Center or the login host did not answer.
type APIError struct {
	// Op is the request that failed: OpToken if it was the login host's.
	Op     Op
	Class  Class
	Reason Reason
	// Status is the HTTP status, 0 if no answer came.
	Status int
	// Code is Partner Center's error code in decimal digits, or the login
	// host's error word if it is a published one; empty if there is none.
	Code string
	// RequestID and CorrelationID are what Microsoft support asks for.
	RequestID     string
	CorrelationID string
	// RetryAfter is when asking again may help; 0 means unknown.
	RetryAfter time.Duration
	// Attempts counts the requests made to Partner Center for this fetch.
	Attempts int
	// Err is the cause without any text of the answer; may be nil.
	Err error

	// final forbids a replay.
	final bool
	// pause is the pause that the login host asked for; 0 if it did not.
	pause time.Duration
	// aadsts and suberror are the login host's own details, for advice.
	aadsts   []int
	suberror string
	// generation is that of the proof that a refused token request had, and
	// byIdentity whether it was an assertion of Config.ClientAssertion.
	generation int
	byIdentity bool
}

// Error describes the failure in one line that is free of secrets and of the
// far side's text.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "partner center: %s: %s", e.Op, e.Reason)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", status %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ", code %s", e.Code)
	}
	if e.Attempts > 1 {
		fmt.Fprintf(&b, ", %d attempts", e.Attempts)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *APIError) Unwrap() error { return e.Err }

// LoginCodes returns the login host's own numbers of the failure (AADSTS): for
// people to look up, never to decide by, as they change.
func (e *APIError) LoginCodes() []int { return slices.Clone(e.aadsts) }

// transportFailure classifies an exchange that returned no complete answer.
// ctx is the caller's: its cancellation is no failure of the host.
func transportFailure(ctx context.Context, op Op, err error) *APIError {
	fail := &APIError{Op: op, Class: ClassUnavailable, Reason: ReasonConnection, Err: remote.Cause(ctx, err)}
	switch {
	case errors.Is(fail.Err, context.Canceled):
		fail.Reason = ReasonCanceled
	case errors.Is(fail.Err, context.DeadlineExceeded):
		fail.Reason = ReasonTimeout
	}
	return fail
}
