package rest

import (
	"net/http"

	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// faultOf is the table of errors of HTTP alone, by status. A status that it
// does not name is an INVALID_ARGUMENT.
func faultOf(code int) api.Fault {
	switch code {
	case http.StatusForbidden:
		return api.Fault{Code: codes.PermissionDenied, Reason: "PERMISSION_DENIED", Message: "This request is not allowed from its origin."}
	case http.StatusNotFound:
		return api.Fault{Code: codes.NotFound, Reason: "PATH_NOT_FOUND", Message: "There is nothing at this path."}
	case http.StatusMethodNotAllowed:
		return api.Fault{Code: codes.Unimplemented, Reason: "METHOD_NOT_ALLOWED", Message: "This path does not accept this method."}
	case http.StatusUnsupportedMediaType:
		return api.Fault{Code: codes.InvalidArgument, Reason: "UNSUPPORTED_MEDIA_TYPE", Message: "The body must be application/json and not compressed."}
	default:
		return api.FaultOf(eligibility.KindInvalidArgument)
	}
}
