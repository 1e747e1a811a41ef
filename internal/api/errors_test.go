package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestEveryKindHasItsCodeAndReason(t *testing.T) {
	t.Parallel()
	want := map[eligibility.Kind]apitest.Outcome{
		eligibility.KindInternal:         {Code: codes.Internal, Reason: "INTERNAL", Details: 1},
		eligibility.KindInvalidArgument:  {Code: codes.InvalidArgument, Reason: "INVALID_ARGUMENT", Details: 1},
		eligibility.KindNotFound:         {Code: codes.NotFound, Reason: "CUSTOMER_NOT_FOUND", Details: 1},
		eligibility.KindNotServed:        {Code: codes.FailedPrecondition, Reason: "CUSTOMER_NOT_SERVED", Details: 1},
		eligibility.KindUnavailable:      {Code: codes.Unavailable, Reason: "PARTNER_CENTER_UNAVAILABLE", Retry: 7 * time.Second, Details: 2},
		eligibility.KindThrottled:        {Code: codes.Unavailable, Reason: "PARTNER_CENTER_THROTTLED", Retry: 7 * time.Second, Details: 2},
		eligibility.KindCredentials:      {Code: codes.Unavailable, Reason: "PARTNER_CENTER_CREDENTIALS", Details: 1},
		eligibility.KindInvalidResponse:  {Code: codes.Unavailable, Reason: "PARTNER_CENTER_INVALID_RESPONSE", Details: 1},
		eligibility.KindOverloaded:       {Code: codes.ResourceExhausted, Reason: "OVERLOADED", Retry: 7 * time.Second, Details: 2},
		eligibility.KindDeadlineExceeded: {Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: 7 * time.Second, Details: 2},
		eligibility.KindCanceled:         {Code: codes.Canceled, Reason: "CANCELLED", Details: 1},

		eligibility.KindUnauthenticated:  {Code: codes.Unauthenticated, Reason: "UNAUTHENTICATED", Details: 1},
		eligibility.KindPermissionDenied: {Code: codes.PermissionDenied, Reason: "PERMISSION_DENIED", Details: 1},
		eligibility.KindCallerLimited:    {Code: codes.ResourceExhausted, Reason: "CALLER_LIMITED", Retry: 7 * time.Second, Details: 2},

		eligibility.KindResumeTokenExpired: {Code: codes.OutOfRange, Reason: "RESUME_TOKEN_EXPIRED", Details: 1},
		eligibility.KindFeedUnavailable:    {Code: codes.Unavailable, Reason: "FEED_UNAVAILABLE", Retry: 7 * time.Second, Details: 2},
		eligibility.KindNotKnown:           {Code: codes.Unavailable, Reason: "NOT_KNOWN", Details: 1},
	}
	messages := make(map[string]eligibility.Kind)
	for _, kind := range eligibility.Kinds() {
		expected, listed := want[kind]
		if !listed {
			t.Errorf("%v: no row in this test", kind)
		}
		const secret = "cause-that-must-stay-inside"
		err := &eligibility.Error{Kind: kind, RetryAfter: 7 * time.Second, Err: errors.New(secret)}
		st := StatusOf(domainError(fmt.Errorf("wrapped: %w", err)))
		if diff := cmp.Diff(expected, apitest.OutcomeOf(st)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", kind, diff)
		}
		if strings.Contains(st.Proto().String(), secret) {
			t.Errorf("%v: the cause is told to the caller", kind)
		}
		if other, taken := messages[st.Message()]; taken || st.Message() == "" {
			t.Errorf("%v: message %q is also that of %v", kind, st.Message(), other)
		}
		messages[st.Message()] = kind

		item := itemError(err)
		if diff := cmp.Diff(expected, apitest.Outcome{
			Code: codes.Code(item.GetCode()), Reason: item.GetReason(), //nolint:gosec // a gRPC code
			Retry: item.GetRetryAfter().AsDuration(), Details: expected.Details,
		}); diff != "" {
			t.Errorf("%v as an item (-want +got):\n%s", kind, diff)
		}
		if strings.Contains(item.GetMessage(), secret) {
			t.Errorf("%v: the cause is told to the caller of a batch", kind)
		}
	}
}

func TestWhatIsNoErrorOfTheDomain(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err  error
		want apitest.Outcome
	}{
		"a foreign error is INTERNAL":         {errors.New("x"), apitest.Outcome{Code: codes.Internal, Reason: "INTERNAL", Details: 1}},
		"a gRPC status of others is INTERNAL": {status.Error(codes.NotFound, "x"), apitest.Outcome{Code: codes.Internal, Reason: "INTERNAL", Details: 1}},
		"an unknown kind is INTERNAL":         {&eligibility.Error{Kind: 255}, apitest.Outcome{Code: codes.Internal, Reason: "INTERNAL", Details: 1}},
		"a deadline keeps its name":           {context.DeadlineExceeded, apitest.Outcome{Code: codes.DeadlineExceeded, Reason: "DEADLINE_EXCEEDED", Retry: retryDefault, Details: 2}},
		"a cancellation keeps its name":       {fmt.Errorf("y: %w", context.Canceled), apitest.Outcome{Code: codes.Canceled, Reason: "CANCELLED", Details: 1}},
	} {
		if diff := cmp.Diff(row.want, apitest.OutcomeOf(StatusOf(row.err))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRetryInfoIsNeverEmpty(t *testing.T) {
	t.Parallel()
	st := StatusOf(&eligibility.Error{Kind: eligibility.KindUnavailable})
	if got := apitest.OutcomeOf(st).Retry; got != retryDefault {
		t.Errorf("retry delay %v, want %v", got, retryDefault)
	}
}

func TestEveryViolationIsReturned(t *testing.T) {
	t.Parallel()
	faults := Violations{more: 3}
	faults.Add("a", "is wrong")
	faults.Add("b", "too")
	err := domainError(faults.Err())
	var fields []string
	for _, detail := range StatusOf(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, violation := range bad.GetFieldViolations() {
				fields = append(fields, violation.GetField()+" "+violation.GetDescription())
			}
		}
	}
	if diff := cmp.Diff([]string{"a is wrong", "b too", " and 3 more"}, fields); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, want := itemError(err).GetMessage(), "The request is not valid. a: is wrong b: too and 3 more"; got != want {
		t.Errorf("item message %q, want %q", got, want)
	}
}
