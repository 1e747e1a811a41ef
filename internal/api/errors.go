package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// errorDomain is the domain of every google.rpc.ErrorInfo.
	errorDomain = "eligibility"
	// retryDefault is the delay of RetryInfo if the error has none.
	retryDefault = time.Second
)

// Fault is what the API returns for one kind of error. Its message is fixed: a
// cause never leaves the process. It is read by the shop's staff and customers.
type Fault struct {
	Code    codes.Code
	Reason  string // of ErrorInfo
	Message string
	Retry   bool          // RetryInfo is sent
	Level   zapcore.Level // of the log record
}

// FaultOf is the one table of errors, for both transports and for the items of
// a batch. A kind that it does not name is an INTERNAL.
func FaultOf(kind eligibility.Kind) Fault {
	switch kind {
	case eligibility.KindInvalidArgument:
		return Fault{codes.InvalidArgument, kind.Reason(), "The request is not valid.", false, zapcore.InfoLevel}
	case eligibility.KindNotFound:
		return Fault{codes.NotFound, kind.Reason(), "Partner Center has no such customer.", false, zapcore.InfoLevel}
	case eligibility.KindNotServed:
		return Fault{codes.FailedPrecondition, kind.Reason(), "This partner does not serve that customer.", false, zapcore.InfoLevel}
	case eligibility.KindUnavailable:
		return Fault{codes.Unavailable, kind.Reason(), "Partner Center is not available at the moment.", true, zapcore.ErrorLevel}
	case eligibility.KindThrottled:
		return Fault{codes.Unavailable, kind.Reason(), "The limit on questions to Partner Center is reached for now.", true, zapcore.WarnLevel}
	case eligibility.KindCredentials:
		return Fault{codes.Unavailable, kind.Reason(), "Partner Center refused access.", false, zapcore.ErrorLevel}
	case eligibility.KindInvalidResponse:
		return Fault{codes.Unavailable, kind.Reason(), "Partner Center sent an answer that cannot be read.", false, zapcore.ErrorLevel}
	case eligibility.KindOverloaded:
		return Fault{codes.ResourceExhausted, kind.Reason(), "Too many requests are in progress at the moment.", true, zapcore.WarnLevel}
	case eligibility.KindDeadlineExceeded:
		return Fault{codes.DeadlineExceeded, kind.Reason(), "The deadline ended before there was an answer.", true, zapcore.InfoLevel}
	case eligibility.KindCanceled:
		return Fault{codes.Canceled, kind.Reason(), "The request was cancelled before there was an answer.", false, zapcore.InfoLevel}
	case eligibility.KindUnauthenticated:
		return Fault{codes.Unauthenticated, kind.Reason(), "The caller could not be authenticated.", false, zapcore.WarnLevel}
	case eligibility.KindPermissionDenied:
		return Fault{codes.PermissionDenied, kind.Reason(), "The caller does not have the right that this request needs.", false, zapcore.WarnLevel}
	case eligibility.KindCallerLimited:
		return Fault{codes.ResourceExhausted, kind.Reason(), "The caller has reached its limit for now.", true, zapcore.WarnLevel}
	case eligibility.KindResumeTokenExpired:
		return Fault{codes.OutOfRange, kind.Reason(), "The changes after the resume token are no longer kept.", false, zapcore.WarnLevel}
	case eligibility.KindFeedUnavailable:
		return Fault{codes.Unavailable, kind.Reason(), "The feed of changes cannot be read at the moment.", true, zapcore.ErrorLevel}
	case eligibility.KindNotKnown:
		return Fault{codes.Unavailable, kind.Reason(), "Nothing that decides is known about this customer.", false, zapcore.InfoLevel}
	default:
		return Fault{codes.Internal, kind.Reason(), "An internal fault prevented an answer.", false, zapcore.ErrorLevel}
	}
}

// domainError returns the domain's view of err: err itself if it is one, a
// context's end by its name, and a fault of ours for everything else.
func domainError(err error) *eligibility.Error {
	var known *eligibility.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.DeadlineExceeded):
		return &eligibility.Error{Kind: eligibility.KindDeadlineExceeded, Err: err}
	case errors.Is(err, context.Canceled):
		return &eligibility.Error{Kind: eligibility.KindCanceled, Err: err}
	default:
		return &eligibility.Error{Kind: eligibility.KindInternal, Err: err}
	}
}

// StatusOf returns the status that the caller of an RPC gets if it fails with failure.
func StatusOf(failure error) *status.Status {
	err := domainError(failure)
	f := FaultOf(err.Kind)
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: f.Reason}
	if err.Right != "" {
		info.Metadata = map[string]string{"right": err.Right}
	}
	details := []protoadapt.MessageV1{info}
	if f.Retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter(err))})
	}
	if len(err.Violations) > 0 {
		details = append(details, badRequest(err.Violations))
	}
	return f.withDetails(details...)
}

// Status is the fault as a status with its ErrorInfo.
func (f Fault) Status() *status.Status {
	return f.withDetails(&errdetails.ErrorInfo{Domain: errorDomain, Reason: f.Reason})
}

func (f Fault) withDetails(details ...protoadapt.MessageV1) *status.Status {
	st := status.New(f.Code, f.Message)
	detailed, failure := st.WithDetails(details...)
	if failure != nil { // a field with invalid UTF-8, which ours never have
		return st
	}
	return detailed
}

// itemError is the error of one item of a batch: what the RPC
// would have failed with, violations as part of the sentence.
func itemError(err *eligibility.Error) *eligibilityv1.BatchCheckEligibilityError {
	f := FaultOf(err.Kind)
	item := &eligibilityv1.BatchCheckEligibilityError{
		Code:    int32(f.Code), //nolint:gosec // gRPC codes end at 16
		Reason:  f.Reason,
		Message: f.Message,
	}
	if len(err.Violations) > 0 {
		item.Message = sentence(f.Message, err.Violations)
	}
	if f.Retry {
		item.RetryAfter = durationpb.New(retryAfter(err))
	}
	return item
}

// sentence appends violations to a message, for items, which have no details.
func sentence(message string, violations []eligibility.Violation) string {
	var b strings.Builder
	b.WriteString(message)
	for _, violation := range violations {
		b.WriteByte(' ')
		if violation.Field != "" {
			b.WriteString(violation.Field)
			b.WriteString(": ")
		}
		b.WriteString(violation.Description)
	}
	return b.String()
}

func retryAfter(err *eligibility.Error) time.Duration {
	if err.RetryAfter > 0 {
		return err.RetryAfter
	}
	return retryDefault
}

func badRequest(violations []eligibility.Violation) *errdetails.BadRequest {
	detail := new(errdetails.BadRequest)
	for _, violation := range violations {
		detail.FieldViolations = append(detail.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field:       violation.Field,
			Description: violation.Description,
		})
	}
	return detail
}
