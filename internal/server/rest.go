package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/loopback"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// rest is the REST side of the API: grpc-gateway finds the method, and the rest
// is ours, down to the call of the handler through the interceptor.
type rest struct {
	gateway   *runtime.ServeMux
	docs      *docs
	answers   eligibilityv1.EligibilityServiceServer
	intercept grpc.UnaryServerInterceptor
	tracer    tracer
	now       func() time.Time
	guarded   bool // the listener is bound to loopback

	// Values of headers that are the same in each answer.
	noSniff, json, noStore []string
}

func newREST(ctx context.Context, answers eligibilityv1.EligibilityServiceServer, intercept grpc.UnaryServerInterceptor, tracer tracer, now func() time.Time) (*rest, error) {
	documents, err := newDocs()
	if err != nil {
		return nil, err
	}
	r := &rest{
		docs: documents, answers: answers, intercept: intercept, tracer: tracer, now: now,
		noSniff: []string{"nosniff"}, json: []string{"application/json"}, noStore: []string{"no-store"},
	}
	r.gateway = runtime.NewServeMux(
		runtime.WithMiddlewares(r.serve),
		runtime.WithErrorHandler(writeError),
		runtime.WithRoutingErrorHandler(writeRoutingError),
	)
	// No client: the generated handlers read a request too loosely, and serve
	// never gets to them.
	return r, eligibilityv1.RegisterEligibilityServiceHandlerClient(ctx, r.gateway, nil)
}

// ServeHTTP answers one HTTP request. Whatever the answer, it carries the
// request ID.
func (r *rest) ServeHTTP(w http.ResponseWriter, given *http.Request) {
	said := &restRequest{
		contentType: first(given.Header["Content-Type"]),
		ifNoneMatch: given.Header["If-None-Match"],
		requestID:   requestIDOr(first(given.Header["X-Request-Id"])),
		trace:       parseTraceparent(first(given.Header["Traceparent"])),
	}
	// A shallow copy: net/http keeps the request that it was given, for HEAD
	// among others.
	req := given.WithContext(context.WithValue(given.Context(), restKey{}, said))
	if said.contentType != "" {
		req.Header = given.Header.Clone()
		req.Header.Del("Content-Type") // the gateway would take a form for a GET
	}
	header := w.Header()
	header["X-Request-Id"] = []string{said.requestID}
	if said.trace != "" {
		header["Traceparent"] = []string{string(said.trace)}
	}
	header["X-Content-Type-Options"] = r.noSniff
	if r.guarded && loopback.Refuses(given, r.docs.isPage(given.URL.Path)) {
		writeHTTPError(w, http.StatusForbidden)
		return
	}
	if path, slash := strings.CutSuffix(req.URL.Path, "/"); slash && path != "" && path != docsPath {
		tolerated := *req.URL
		tolerated.Path, tolerated.RawPath = path, strings.TrimSuffix(tolerated.RawPath, "/")
		req.URL = &tolerated
	}
	if r.docs.serve(w, req) {
		return
	}
	if req.Method == http.MethodHead {
		req.Method = http.MethodGet // net/http leaves the body out
	}
	r.gateway.ServeHTTP(w, req)
}

// restRequest is what the HTTP request said beside the message that is made of
// it. It travels in the context; the zero value says nothing.
type restRequest struct {
	contentType string
	// ifNoneMatch are the values of the header of that name.
	ifNoneMatch []string
	// violations are those of the request as a whole, items those of the items
	// of a batch, by place.
	violations violations
	items      map[int]violations
	// requestID, trace and span are the request's; span is nil where it is not
	// traced.
	requestID string
	trace     traceparent
	span      trace.Span
}

// itemFaults returns the violations of an item of a batch, for the handler to
// add its own.
func (r *restRequest) itemFaults(place int) violations {
	if faults, ok := r.items[place]; ok {
		return faults
	}
	return violations{item: true, place: place}
}

type restKey struct{}
