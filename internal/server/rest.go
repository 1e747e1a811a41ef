package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/loopback"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// rest serves every RPC that has an HTTP rule, in one of two ways. The handlers
// that grpc-gateway generates serve an RPC as soon as it is added to the .proto:
// they call it on an [inProcess] connection, which runs the interceptor of gRPC.
// CheckEligibility and BatchCheckEligibility are called for each sale, and are
// served by hand: their handlers name every field that is wrong, set the headers
// of caches, and neither copy messages nor use reflection to write JSON. No other
// RPC needs a handler here.
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

func newREST(ctx context.Context, answers eligibilityv1.EligibilityServiceServer, conn *inProcess, apis []api, tracer tracer, now func() time.Time) (*rest, error) {
	documents, err := newDocs()
	if err != nil {
		return nil, err
	}
	r := &rest{
		docs: documents, answers: answers, intercept: conn.intercept, tracer: tracer, now: now,
		noSniff: []string{"nosniff"}, json: []string{"application/json"}, noStore: []string{"no-store"},
	}
	byHand := false // while handlers are registered
	none := func(string) (string, bool) { return "", false }
	r.gateway = runtime.NewServeMux(
		runtime.WithMiddlewares(func(next runtime.HandlerFunc) runtime.HandlerFunc {
			if byHand {
				return r.begin(next)
			}
			return r.begin(r.generated(next))
		}),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(none), // only Authorization arrives as metadata
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithForwardResponseOption(forward),
		runtime.WithErrorHandler(r.writeGenerated),
		runtime.WithStreamErrorHandler(streamStatus),
		runtime.WithRoutingErrorHandler(r.writeRoutingError),
	)
	for _, api := range apis {
		if err := api.gateway(ctx, r.gateway, conn); err != nil {
			return nil, fmt.Errorf("register %s: %w", api.desc.ServiceName, err)
		}
	}
	byHand = true // the handler registered last serves a path
	return r, errors.Join(
		r.gateway.HandlePath(http.MethodGet, checkPath, r.check),
		r.gateway.HandlePath(http.MethodPost, batchPath, r.batch))
}

// The paths that are served by hand, as in eligibility.http.yaml.
const (
	checkPath = "/v1/customers/{customer_id}/eligibility"
	batchPath = "/v1/customers:batchCheckEligibility"
)

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
	if _, ok := given.Header["Content-Type"]; ok {
		req.Header = given.Header.Clone()
		req.Header.Del("Content-Type") // the gateway would take a form for a GET
	}
	header := w.Header()
	said.values[requestIDValue] = said.requestID
	header["X-Request-Id"] = said.values[requestIDValue : requestIDValue+1 : requestIDValue+1]
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
	// values hold the response's headers, each a slice of one.
	values [valueCount]string

	// probed is set if the request only asks whether its path has a handler for
	// its method; that sets found.
	probed, found bool
	// called is set once a generated handler has called the RPC, stream if that
	// is streaming: it is closed when the RPC ends.
	called bool
	stream <-chan struct{}
	// query and path are those of a generated handler's request.
	query url.Values
	path  map[string]string
}

// wait returns when the streaming RPC of the request, if it has one, has ended.
func (r *restRequest) wait() {
	if r.stream != nil {
		<-r.stream
	}
}

// The places of headers in restRequest.values.
const (
	requestIDValue = iota
	etagValue
	cacheControlValue
	ageValue
	valueCount
)

// itemFaults returns the violations of an item of a batch, for the handler to
// add its own.
func (r *restRequest) itemFaults(place int) violations {
	if faults, ok := r.items[place]; ok {
		return faults
	}
	return violations{item: true, place: place}
}

type restKey struct{}
