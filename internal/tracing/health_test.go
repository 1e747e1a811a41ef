package tracing_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/tracing"
)

// Whatever a collector answers, its text is not in the kind.
func TestFailureKind(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("traces export: %w", context.DeadlineExceeded), "timeout"},
		{fmt.Errorf("traces export: %w", status.Error(codes.DeadlineExceeded, "text")), "timeout"},
		{status.Error(codes.Unauthenticated, "text"), "unauthorized"},
		{status.Error(codes.PermissionDenied, "text"), "unauthorized"},
		{status.Error(codes.ResourceExhausted, "text"), "throttled"},
		{status.Error(codes.Unavailable, "text"), "unavailable"},
		{status.Error(codes.InvalidArgument, "text"), "refused"},
		{errors.New("text"), "unavailable"},
	} {
		if got := tracing.FailureKind(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
