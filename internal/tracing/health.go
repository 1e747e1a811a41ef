package tracing

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

// Health returns how the sending of spans fares, by the last batch. The kinds of errors
// are those of [FailureKind]. It does not block.
func (p *Pipeline) Health() health.Condition { return p.condition.Read() }

// FailureKind names why a collector did not take what was sent: timeout, unauthorized,
// throttled, unavailable or refused. The collector's text is not repeated.
func FailureKind(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	var from interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &from) {
		return "unavailable"
	}
	switch from.GRPCStatus().Code() {
	case codes.DeadlineExceeded:
		return "timeout"
	case codes.Unauthenticated, codes.PermissionDenied:
		return "unauthorized"
	case codes.ResourceExhausted:
		return "throttled"
	case codes.Unavailable, codes.Canceled, codes.Aborted, codes.Unknown:
		return "unavailable"
	default:
		return "refused"
	}
}
