package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Error is why nothing is decided. Every error of a [Verdict] is one.
type Error struct {
	// Code is the code of the call, or of the item of a batch.
	Code codes.Code
	// Reason is the word of the service for the cause, such as PARTNER_CENTER_THROTTLED.
	// If the service did not answer, it is the name of the code, such as UNAVAILABLE.
	Reason string
	// Message is one English sentence, for developers.
	Message string
	// RetryAfter is after how long asking again helps. It is 0 if the service has not
	// stated that it does.
	RetryAfter time.Duration

	ours bool // of eligibilityd, not of the way to it
}

// Error returns the reason and the message.
func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// GRPCStatus returns the code and the message, for package status.
func (e *Error) GRPCStatus() *status.Status { return status.New(e.Code, e.Message) }

// errorOf returns the error of a call; nil if it has none.
func errorOf(err error) *Error {
	if err == nil {
		return nil
	}
	s := status.Convert(err)
	e := &Error{Code: s.Code(), Reason: code.Code(s.Code()).String(), Message: s.Message()} //nolint:gosec // the same numbers
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "eligibility" {
				e.Reason, e.ours = detail.GetReason(), true
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = max(detail.GetRetryDelay().AsDuration(), time.Millisecond)
		}
	}
	return e
}

// itemError returns the error of an item of a batch; nil if it has none.
func itemError(item *eligibilityv1.BatchCheckEligibilityError) *Error {
	if item == nil {
		return nil
	}
	e := &Error{Code: codes.Code(item.GetCode()), Reason: item.GetReason(), Message: item.GetMessage(), ours: true} //nolint:gosec // the same numbers
	if item.GetRetryAfter() != nil {
		e.RetryAfter = max(item.GetRetryAfter().AsDuration(), time.Millisecond)
	}
	return e
}

// invalid returns the error of an answer that must not be used.
func invalid(message string) *Error {
	return &Error{Code: codes.Internal, Reason: "INVALID_RESPONSE", Message: message}
}

// curable reports whether the same call may succeed later: the service states when, or
// the connection to a replica failed, which others are there to make up for. A service
// whose credentials are refused, for example, states none.
func (e *Error) curable() bool {
	return e.RetryAfter > 0 || !e.ours && (e.Code == codes.Unavailable || e.Code == codes.Canceled)
}

// cutOff reports whether a stream was ended on the way to the service: by a proxy, which
// resets those that last, or by a limit of the connection. Another stream goes on.
func (e *Error) cutOff() bool {
	switch e.Code {
	case codes.Internal, codes.Unknown, codes.ResourceExhausted, codes.DeadlineExceeded:
		return !e.ours
	default:
		return false
	}
}

// shortestPause is the pause between attempts after the second, which doubles.
const shortestPause = 100 * time.Millisecond

// retry calls try until it succeeds, ends with what a retry does not cure, or would have
// to wait beyond the deadline of ctx. After a failed connection, it tries another
// replica at once.
func (c *Client) retry(ctx context.Context, try func() *Error) *Error {
	for attempt := 1; ; attempt++ {
		failure := try()
		if failure == nil || attempt == c.cfg.Attempts || !failure.curable() {
			return failure
		}
		wait := failure.RetryAfter
		if attempt > 1 || wait > 0 {
			wait = max(wait, shortestPause<<attempt/4)
		}
		if !fits(ctx, wait) || !sleep(ctx, wait+rand.N(wait/4+1)) { //nolint:gosec // spreads load
			return failure
		}
	}
}

// fits reports whether ctx has more time than wait.
func fits(ctx context.Context, wait time.Duration) bool {
	deadline, bounded := ctx.Deadline()
	return ctx.Err() == nil && (!bounded || time.Until(deadline) > wait)
}

// sleep waits, and reports whether ctx is still valid.
func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
