package server

import (
	"context"
	"errors"
	"net/http"
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
	// retryDefault is what RetryInfo says where the error itself does not know.
	retryDefault = time.Second
)

// fault is what the API says about one kind of error. Its message is fixed: a
// cause never leaves the process. It is read by the shop's staff and customers.
type fault struct {
	code    codes.Code
	reason  string // of ErrorInfo
	message string
	retry   bool // RetryInfo is sent
	level   zapcore.Level
}

// faultOf is the one table of errors, for both transports and for the items of
// a batch. A kind that it does not name is an INTERNAL.
func faultOf(kind eligibility.Kind) fault {
	switch kind {
	case eligibility.KindInvalidArgument:
		return fault{codes.InvalidArgument, "INVALID_ARGUMENT", "The request is not valid.", false, zapcore.InfoLevel}
	case eligibility.KindNotFound:
		return fault{codes.NotFound, "CUSTOMER_NOT_FOUND", "Partner Center has no such customer.", false, zapcore.InfoLevel}
	case eligibility.KindNotServed:
		return fault{codes.FailedPrecondition, "CUSTOMER_NOT_SERVED", "This partner does not serve that customer.", false, zapcore.InfoLevel}
	case eligibility.KindUnavailable:
		return fault{codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", "Partner Center is not available at the moment.", true, zapcore.ErrorLevel}
	case eligibility.KindThrottled:
		return fault{codes.Unavailable, "PARTNER_CENTER_THROTTLED", "The limit on questions to Partner Center is reached for now.", true, zapcore.WarnLevel}
	case eligibility.KindCredentials:
		return fault{codes.Unavailable, "PARTNER_CENTER_CREDENTIALS", "Partner Center refused access.", false, zapcore.ErrorLevel}
	case eligibility.KindInvalidResponse:
		return fault{codes.Unavailable, "PARTNER_CENTER_INVALID_RESPONSE", "Partner Center sent an answer that cannot be read.", false, zapcore.ErrorLevel}
	case eligibility.KindOverloaded:
		return fault{codes.ResourceExhausted, "OVERLOADED", "Too many requests are in progress at the moment.", true, zapcore.WarnLevel}
	case eligibility.KindDeadlineExceeded:
		return fault{codes.DeadlineExceeded, "DEADLINE_EXCEEDED", "The deadline ended before there was an answer.", true, zapcore.InfoLevel}
	case eligibility.KindCanceled:
		return fault{codes.Canceled, "CANCELLED", "The request was cancelled before there was an answer.", false, zapcore.InfoLevel}
	default:
		return fault{codes.Internal, "INTERNAL", "An internal fault prevented an answer.", false, zapcore.ErrorLevel}
	}
}

// httpFaultOf is the table of errors of HTTP alone, by status. A status that it
// does not name is an INVALID_ARGUMENT.
func httpFaultOf(code int) fault {
	switch code {
	case http.StatusForbidden:
		return fault{code: codes.PermissionDenied, reason: "PERMISSION_DENIED", message: "This request is not allowed from its origin."}
	case http.StatusNotFound:
		return fault{code: codes.NotFound, reason: "PATH_NOT_FOUND", message: "There is nothing at this path."}
	case http.StatusMethodNotAllowed:
		return fault{code: codes.Unimplemented, reason: "METHOD_NOT_ALLOWED", message: "This path does not accept this method."}
	case http.StatusUnsupportedMediaType:
		return fault{code: codes.InvalidArgument, reason: "UNSUPPORTED_MEDIA_TYPE", message: "The body must be application/json and not compressed."}
	default:
		return faultOf(eligibility.KindInvalidArgument)
	}
}

// domainError returns the domain's view of err: err itself where it is one, a
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

// statusOf is what the caller of an RPC is told about err.
func statusOf(err *eligibility.Error) *status.Status {
	f := faultOf(err.Kind)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Domain: errorDomain, Reason: f.reason}}
	if f.retry {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter(err))})
	}
	if len(err.Violations) > 0 {
		details = append(details, badRequest(err.Violations))
	}
	return f.status(details...)
}

// httpStatusOf is statusOf for a fault of HTTP alone.
func httpStatusOf(code int) *status.Status {
	f := httpFaultOf(code)
	return f.status(&errdetails.ErrorInfo{Domain: errorDomain, Reason: f.reason})
}

func (f *fault) status(details ...protoadapt.MessageV1) *status.Status {
	st := status.New(f.code, f.message)
	detailed, failure := st.WithDetails(details...)
	if failure != nil { // a field with invalid UTF-8, which ours never have
		return st
	}
	return detailed
}

// itemError is what the caller of a batch is told about one item: what the RPC
// would have failed with, violations as part of the sentence.
func itemError(err *eligibility.Error) *eligibilityv1.BatchCheckEligibilityError {
	f := faultOf(err.Kind)
	item := &eligibilityv1.BatchCheckEligibilityError{
		Code:    int32(f.code), //nolint:gosec // gRPC codes end at 16
		Reason:  f.reason,
		Message: f.message,
	}
	if len(err.Violations) > 0 {
		item.Message = sentence(f.message, err.Violations)
	}
	if f.retry {
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
