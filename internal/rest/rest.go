// Package rest serves the API over HTTP, and its documentation.
//
// The handlers that grpc-gateway generates serve every RPC that has an HTTP rule,
// on a connection within the process that runs the chain of package api. Only
// CheckEligibility and BatchCheckEligibility are served by hand: they are called
// for each sale, and their handlers name every field that is wrong, set the headers
// of caches, and neither copy messages nor use reflection to write JSON. No other
// RPC needs a handler here.
package rest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	gateway "github.com/eligibilityd/eligibilityd/internal/gateway/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/loopback"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Config tunes a [Handler]. Its zero value is the documented default.
type Config struct {
	// BodyBytes bounds the body of a request; 0 means 2 MiB.
	BodyBytes int
	// Origins are the origins of web pages that may read answers, exactly as
	// browsers send them.
	Origins []string
}

// Handler serves the RPCs of a chain over HTTP. It is built by [New].
type Handler struct {
	cfg     Config
	chain   *api.Chain
	gateway *runtime.ServeMux
	conn    *inProcess
	docs    *docs
	console http.Handler // nil if there is none
	now     func() time.Time
	guarded atomic.Bool // the listener is bound to loopback

	compressors sync.Pool // of *gzip.Writer
	batches     buffers   // of their requests and their answers
	bodies      buffers   // of the answers of checks

	// Values of headers that are the same in each answer.
	noSniff, json, noStore, vary []string
	// languages are the values of Content-Language.
	languages [eligibility.LanguageCount][]string
}

// Register registers the handlers that grpc-gateway generates for a service.
type Register func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error

// New builds the Handler of the RPCs of chain. Functions in further register the
// services beside the API's. It fails if one of them does.
func New(chain *api.Chain, cfg Config, further ...Register) (*Handler, error) {
	documents, err := newDocs()
	if err != nil {
		return nil, fmt.Errorf("new rest: %w", err)
	}
	cfg.BodyBytes = cmp.Or(cfg.BodyBytes, 2<<20)
	r := &Handler{
		cfg: cfg, chain: chain, docs: documents, now: chain.Now, compressors: sync.Pool{New: newCompressor},
		noSniff: []string{"nosniff"}, json: []string{"application/json"}, noStore: []string{"no-store"},
		vary: slices.Clip([]string{"Accept-Encoding, Accept-Language"}),
	}
	for i := range r.languages {
		r.languages[i] = []string{eligibility.Language(i).String()}
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
		runtime.WithMarshalerOption(eventsContentType, &events{newMarshaler()}),
		runtime.WithIncomingHeaderMatcher(none), // only Authorization arrives as metadata
		runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithMetadata(r.beginGenerated),
		runtime.WithForwardResponseOption(r.forward),
		runtime.WithErrorHandler(r.writeGenerated),
		runtime.WithStreamErrorHandler(streamStatus),
		runtime.WithRoutingErrorHandler(r.writeRoutingError),
		runtime.WithDisablePathLengthFallback(), // a POST is never another method
		runtime.WithDisableHTTPMethodOverride(),
	)
	r.conn = newInProcess(chain)
	for _, register := range append([]Register{registerEligibility}, further...) {
		if err := register(context.Background(), r.gateway, r.conn); err != nil {
			return nil, fmt.Errorf("new rest: register generated handlers: %w", err)
		}
	}
	byHand = true // the handler registered last serves a path
	return r, errors.Join(
		r.gateway.HandlePath(http.MethodGet, checkPath, func(w http.ResponseWriter, req *http.Request, path map[string]string) {
			r.check(req.Context(), w, req, path[api.FieldCustomerID])
		}),
		r.gateway.HandlePath(http.MethodPost, batchPath, func(w http.ResponseWriter, req *http.Request, _ map[string]string) {
			r.batch(req.Context(), w, req)
		}))
}

func registerEligibility(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
	return gateway.RegisterEligibilityServiceHandlerClient(ctx, mux, eligibilityv1.NewEligibilityServiceClient(conn)) //nolint:wrapcheck // by the caller
}

// GuardLoopback makes the handler refuse what a web page in a browser can send,
// from now on.
func (r *Handler) GuardLoopback() { r.guarded.Store(true) }

// The paths that are served by hand, as in eligibility.http.yaml.
const (
	checkPath = "/v1/customers/{customer_id}/eligibility"
	batchPath = "/v1/customers:batchCheckEligibility"
)

// ServeHTTP answers one HTTP request. Whatever the answer, it carries the
// request ID.
func (r *Handler) ServeHTTP(w http.ResponseWriter, given *http.Request) {
	inbound := r.read(given)
	header := w.Header()
	inbound.values[requestIDValue] = inbound.RequestID
	header["X-Request-Id"] = inbound.values[requestIDValue : requestIDValue+1 : requestIDValue+1]
	if inbound.Trace != "" {
		header["Traceparent"] = []string{string(inbound.Trace)}
	}
	header["X-Content-Type-Options"] = r.noSniff
	header["Vary"] = r.vary
	if acceptsGzip(given.Header["Accept-Encoding"]) {
		inbound.compressed = compressWriter{ResponseWriter: w, compressors: &r.compressors, isHead: given.Method == http.MethodHead}
		w = &inbound.compressed
		defer inbound.compressed.end()
	}
	if r.screened(w, given) {
		return
	}
	if r.ofConsole(given.URL.Path) {
		r.console.ServeHTTP(w, given.WithContext(inbound))
		return
	}
	r.serve(w, given, inbound)
}

// read returns what the headers of a request hold.
func (r *Handler) read(given *http.Request) *request {
	var certificate *access.Certificate
	if conn, ok := given.Context().Value(api.ConnectionKey{}).(api.Connection); ok {
		certificate = conn.Certificate()
	}
	return &request{
		Context:     given.Context(),
		method:      given.Method,
		contentType: first(given.Header["Content-Type"]),
		ifNoneMatch: given.Header["If-None-Match"],
		Inbound: api.Inbound{
			RequestID:   api.RequestIDOr(first(given.Header["X-Request-Id"])),
			Language:    r.chain.Language(given.Header["Accept-Language"]),
			Trace:       api.ParseTraceparent(first(given.Header["Traceparent"])),
			Credentials: access.Credentials{Authorization: given.Header["Authorization"], Certificate: certificate},
		},
	}
}

// first returns the first value of a header, "" if there is none. Unlike [http.Header.Get],
// it leaves the case of the header's name to whoever looks that up.
func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// serve answers a request that a web page may send.
func (r *Handler) serve(w http.ResponseWriter, given *http.Request, inbound *request) {
	if err := r.chain.Authenticate(inbound, &inbound.Inbound); err != nil {
		leaveBody(w, given)
		writeError(inbound, nil, nil, w, given, err)
		return
	}
	if !r.direct(w, given, inbound) {
		r.route(w, given, inbound)
	}
}

// direct answers a request that is exactly for a method that is served by hand, as it
// would be if the gateway routed it: these handlers come first there. It reports whether
// it has answered.
func (r *Handler) direct(w http.ResponseWriter, given *http.Request, inbound *request) bool {
	switch given.Method {
	case http.MethodGet:
		below, isBelow := strings.CutPrefix(given.URL.Path, "/v1/customers/")
		customer, isCheck := strings.CutSuffix(below, "/eligibility")
		if !isBelow || !isCheck || customer == "" || strings.Contains(customer, "/") {
			return false
		}
		ctx, w, end := r.begun(inbound, w, given, inbound, checkPath)
		if end != nil {
			defer end()
		}
		r.check(ctx, w, given, customer)
		return true
	case http.MethodPost:
		if given.URL.Path != batchPath {
			return false
		}
		ctx, w, end := r.begun(inbound, w, given, inbound, batchPath)
		if end != nil {
			defer end()
		}
		r.batch(ctx, w, given)
		return true
	default:
		return false
	}
}

// route answers a request for a document, or for a method that the gateway finds.
func (r *Handler) route(w http.ResponseWriter, given *http.Request, inbound *request) {
	// A shallow copy: net/http keeps the request that it was given, for HEAD
	// among others.
	req := given.WithContext(inbound)
	if _, ok := given.Header["Content-Type"]; ok {
		req.Header = given.Header.Clone()
		req.Header.Del("Content-Type") // the gateway would take a form for a GET
	}
	if path, slash := strings.CutSuffix(req.URL.Path, "/"); slash && path != "" && path != docsPath {
		tolerated := *req.URL
		tolerated.Path, tolerated.RawPath = path, strings.TrimSuffix(tolerated.RawPath, "/")
		req.URL = &tolerated
	}
	if r.docs.has(req.URL.Path) {
		if err := r.chain.Permits(inbound, &inbound.Inbound, access.Check); err != nil {
			leaveBody(w, req)
			writeError(inbound, nil, nil, w, req, err)
			return
		}
		r.docs.serve(w, req)
		return
	}
	if req.Method == http.MethodHead {
		req.Method = http.MethodGet // net/http leaves the body out
	}
	r.gateway.ServeHTTP(w, req)
}

// screened answers requests that a web page in a browser must not send, and those by
// which a browser asks what a page may send. It reports whether it has answered.
func (r *Handler) screened(w http.ResponseWriter, given *http.Request) bool {
	guarded := r.guarded.Load()
	if guarded && loopback.RefusesHost(given) {
		writeHTTPError(w, http.StatusForbidden)
		return true
	}
	permitted, answered := false, false
	if !r.ofConsole(given.URL.Path) { // no other origin reads its pages
		permitted, answered = r.cors(w, given)
	}
	if answered {
		return true
	}
	if guarded && !permitted && loopback.RefusesSite(given, r.isPage(given.URL.Path)) {
		writeHTTPError(w, http.StatusForbidden)
		return true
	}
	return false
}

// isPage reports whether a link of another site may open a path.
func (r *Handler) isPage(path string) bool {
	return r.docs.isPage(path) || r.ofConsole(path)
}

// request is what an HTTP request holds beside the message that is made of
// it. It is the context of the request, which has it under requestKey.
type request struct {
	context.Context //nolint:containedctx // of the request that it stands for
	api.Inbound

	method      string // as it was given; a HEAD is handled as a GET
	contentType string
	// ifNoneMatch are the values of the header of that name.
	ifNoneMatch []string
	// values hold the response's headers, each a slice of one.
	values [valueCount]string
	// compressed is the response's writer if the request accepts gzip.
	compressed compressWriter

	// probed is set if the request only asks whether its path has a handler for
	// its method; that sets found.
	probed, found bool
	// called is set once a generated handler has called the RPC, stream if that
	// is streaming: it is closed when the RPC ends.
	called bool
	stream <-chan struct{}
	// events is set if a stream is to consist of server-sent events.
	events bool
	// leave ends a stream of which only the header is asked for; nil for others.
	leave context.CancelFunc
	// question is that of a check.
	question api.Question
	// refused is why a generated handler's RPC was refused before it was called.
	refused error
	// unread is set if the body has a form that is not accepted.
	unread bool
	// query and path are those of a generated handler's request.
	query url.Values
	path  map[string]string
}

// wait returns when the streaming RPC of the request, if it has one, has ended.
func (r *request) wait() {
	if r.stream != nil {
		<-r.stream
	}
}

// The places of headers in request.values.
const (
	requestIDValue = iota
	etagValue
	cacheControlValue
	ageValue
	valueCount
)

type requestKey struct{}

// Value returns the request under requestKey, and what the chain needs of it under
// [api.InboundKey].
func (r *request) Value(key any) any {
	switch key {
	case requestKey{}:
		return r
	case api.InboundKey{}:
		return &r.Inbound
	default:
		return r.Context.Value(key)
	}
}
