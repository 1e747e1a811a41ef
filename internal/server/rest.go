package server

import (
	"context"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// rest is the REST side of the API: grpc-gateway over the in-process
// connection, with everything that HTTP adds around it.
type rest struct {
	gateway *runtime.ServeMux
	docs    *docs
	tracer  tracer
	now     func() time.Time
}

func newREST(ctx context.Context, conn grpc.ClientConnInterface, tracer tracer, now func() time.Time) (*rest, error) {
	documents, err := newDocs()
	if err != nil {
		return nil, err
	}
	r := &rest{docs: documents, tracer: tracer, now: now}
	r.gateway = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithMiddlewares(r.prepare),
		runtime.WithIncomingHeaderMatcher(noHeader),
		runtime.WithOutgoingHeaderMatcher(noHeader),
		runtime.WithOutgoingTrailerMatcher(noHeader),
		runtime.WithForwardResponseOption(r.annotate),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
	)
	client := eligibilityv1.NewEligibilityServiceClient(conn)
	return r, eligibilityv1.RegisterEligibilityServiceHandlerClient(ctx, r.gateway, client)
}

// ServeHTTP answers one HTTP request. Whatever the answer, it carries the
// request ID.
func (r *rest) ServeHTTP(w http.ResponseWriter, given *http.Request) {
	header := given.Header.Clone()
	said := &restRequest{
		contentType: header.Get("Content-Type"),
		ifNoneMatch: header.Values("If-None-Match"),
		requestID:   requestIDOr(header.Get(headerRequestID)),
		trace:       parseTraceparent(header.Get(headerTraceparent)),
	}
	// A shallow copy with a header of its own: net/http keeps the request that
	// it was given, for HEAD among others.
	req := given.WithContext(context.WithValue(given.Context(), restKey{}, said))
	req.Header = header

	header.Del("Te") // no answer has trailers
	// The gateway would complain of some on stderr, and take a form for a GET.
	header.Del("Content-Type")
	w.Header().Set(headerRequestID, said.requestID)
	if said.trace != "" {
		w.Header().Set(headerTraceparent, string(said.trace))
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.docs.serve(w, req) {
		return
	}
	if req.Method == http.MethodHead {
		req.Method = http.MethodGet // net/http leaves the body out
	}
	r.gateway.ServeHTTP(w, req)
}

// noHeader keeps headers and metadata apart: what the interceptor needs of the
// request is in its restRequest, and what belongs in the response was set
// already. The gateway always lets Authorization through.
func noHeader(string) (string, bool) { return "", false }

// newMarshaler writes proto JSON with every plain field, so that a reader sees
// decision, stale: false and empty lists, and without members that have no
// value, so that there are no nulls. Bodies are read by batchBody.
func newMarshaler() runtime.Marshaler {
	return &bodyMarshaler{JSONPb: runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true},
	}}
}

// restRequest is what the HTTP request said beside the message that the gateway
// makes of it. It travels in the context; the zero value says nothing.
type restRequest struct {
	contentType string
	// ifNoneMatch are the values of the header of that name.
	ifNoneMatch []string
	// violations are faults of the request as a whole, items those of the
	// items of a batch, by place.
	violations []eligibility.Violation
	items      map[int][]eligibility.Violation
	// requestID, trace and span are the request's; span is nil where it is not
	// traced.
	requestID string
	trace     traceparent
	span      trace.Span
}

func (r *restRequest) violate(field, description string) {
	r.violations = append(r.violations, eligibility.Violation{Field: field, Description: description})
}

type restKey struct{}

// restOf returns what the HTTP request of ctx said, or a zero value for an RPC
// that came over gRPC.
func restOf(ctx context.Context) *restRequest {
	if r, ok := ctx.Value(restKey{}).(*restRequest); ok {
		return r
	}
	return new(restRequest)
}
