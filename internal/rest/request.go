package rest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/api"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// begin prepares a request that the gateway has routed for its handler.
func (r *Handler) begin(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request, path map[string]string) {
		inbound, _ := req.Context().Value(requestKey{}).(*request)
		if inbound.probed {
			inbound.found = true
			return
		}
		ctx, w, end := r.begun(req.Context(), w, req, inbound, "")
		if end != nil {
			defer end()
		}
		if ctx != req.Context() {
			req = req.WithContext(ctx)
		}
		next(w, req, path)
	}
}

// begun reads what the headers of every request may hold: the form of its body, its
// trace and its deadline. Faults of the request are passed to the RPC with it, so that
// they are reported together with its own, and a refused request is logged and counted
// like any other. The route is empty if the gateway has put it into ctx. What begun
// returns is for the handler, after which end is called unless it is nil.
func (r *Handler) begun(ctx context.Context, w http.ResponseWriter, req *http.Request, inbound *request, route string) (_ context.Context, _ http.ResponseWriter, end func()) {
	inbound.unread = req.Method != http.MethodGet && (!isJSON(inbound.contentType) || isEncoded(req.Header["Content-Encoding"]))
	if r.chain.Tracer().Samples(inbound.Trace) {
		ctx, w, end = r.trace(ctx, w, req, inbound, route)
	}
	timeout := first(req.Header["Grpc-Timeout"])
	if timeout == "" {
		return ctx, w, end
	}
	left, ok := parseTimeout(timeout)
	if !ok {
		inbound.Violations.Add("Grpc-Timeout", "must be up to 8 digits and a unit of H, M, S, m, u or n")
		return ctx, w, end
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	if end == nil {
		return ctx, w, cancel
	}
	endTrace := end
	return ctx, w, func() { cancel(); endTrace() }
}

// checkInfo names the RPC for the interceptor. It is shared and never changed.
var checkInfo = grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName} //nolint:gochecknoglobals // only read

// batchInfo is checkInfo for a batch.
var batchInfo = grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_BatchCheckEligibility_FullMethodName} //nolint:gochecknoglobals // only read

// check asks one question and writes the answer.
func (r *Handler) check(ctx context.Context, w http.ResponseWriter, req *http.Request, customer string) {
	inbound, _ := ctx.Value(requestKey{}).(*request)
	if err := r.chain.BeginREST(ctx, checkInfo.FullMethod, &inbound.Inbound); err != nil {
		leaveBody(w, req)
		writeError(ctx, nil, nil, w, nil, err)
		return
	}
	maxAge, narrowed := cacheControlAge(req.Header["Cache-Control"], inbound)
	question := &inbound.question
	readQuery(req.URL.RawQuery, inbound, question,
		api.FieldSegment, api.FieldMaxAge, api.FieldMinEvidenceTime, api.FieldPartner, api.FieldOperation)
	if narrowed {
		narrow(question, maxAge)
	}
	question.SetCustomerID(customer)
	resp, err := r.chain.Intercept(ctx, question, &checkInfo, func(ctx context.Context, _ any) (any, error) {
		return r.chain.Check(ctx, question)
	})
	if err != nil {
		writeError(ctx, nil, nil, w, nil, err)
		return
	}
	if reply, ok := resp.(*api.CheckReply); ok { // it is nothing else
		r.write(w, inbound, reply)
	}
}

// batch asks the questions in the body and writes their results. The body is
// parsed behind the interceptor, which bounds how many are at a time, and for how
// long.
func (r *Handler) batch(ctx context.Context, w http.ResponseWriter, req *http.Request) {
	inbound, _ := ctx.Value(requestKey{}).(*request)
	if err := r.chain.BeginREST(ctx, batchInfo.FullMethod, &inbound.Inbound); err != nil {
		leaveBody(w, req)
		writeError(ctx, nil, nil, w, nil, err)
		return
	}
	if inbound.unread {
		writeUnsupported(w, req)
		return
	}
	maxAge, narrowed := cacheControlAge(req.Header["Cache-Control"], inbound)
	readQuery(req.URL.RawQuery, inbound, nil)
	buffer := r.batches.get()
	body := r.readBody(w, req, inbound, buffer)
	resp, err := r.chain.Intercept(ctx, body, &batchInfo, func(bounded context.Context, _ any) (any, error) {
		questions, err := readBatch(ctx, body, inbound) // up to the caller's deadline: local answers need no more time
		if err != nil {
			return nil, err
		}
		if narrowed {
			for i := range questions {
				narrow(&questions[i], maxAge)
			}
		}
		return r.chain.CheckBatch(bounded, questions)
	})
	if err != nil {
		r.batches.put(buffer)
		writeError(ctx, nil, nil, w, nil, err)
		return
	}
	if batch, ok := resp.(api.BatchReply); ok { // it is nothing else
		*buffer = batch.AppendJSON((*buffer)[:0]) // the body was read
		header := w.Header()
		header["Content-Type"], header["Cache-Control"] = r.json, r.noStore
		header["Content-Language"] = r.languages[inbound.Language]
		header["Content-Length"] = []string{strconv.Itoa(len(*buffer))}
		if _, err := w.Write(*buffer); err == nil { // else, HTTP/2 may still be reading it
			r.batches.put(buffer)
		}
	}
}

// trace starts the span of a request that is traced. end ends it, and needs the
// writer returned to know the status.
func (r *Handler) trace(ctx context.Context, w http.ResponseWriter, req *http.Request, inbound *request, route string) (_ context.Context, _ http.ResponseWriter, end func()) {
	if route == "" {
		pattern, _ := runtime.HTTPPattern(ctx)
		route = strings.ReplaceAll(pattern.String(), "=*}", "}")
	}
	state := strings.Join(req.Header.Values(api.HeaderTracestate), ",")
	ctx, inbound.Span, inbound.Trace = r.chain.Tracer().Start(ctx, req.Method+" "+route, inbound.Trace, state,
		attribute.String("http.request.method", req.Method), attribute.String("http.route", route))
	w.Header().Set(api.HeaderTraceparent, string(inbound.Trace))
	noted := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	return ctx, noted, func() {
		inbound.Span.SetAttributes(attribute.Int("http.response.status_code", noted.status))
		inbound.Span.End()
	}
}

// readQuery reads the query into a question. Only the fields named may stand in
// it, by their proto or JSON names, each once: a mistyped name must not change
// what is asked.
func readQuery(raw string, inbound *request, question *api.Question, allowed ...string) {
	if raw == "" {
		return
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		inbound.Violations.Add("query", "must be well formed")
	}
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		field := fieldNamed(name)
		switch {
		case !slices.Contains(allowed, field):
			inbound.Violations.Add(printable(name, maxShown), "is no query parameter of this method")
		case seen[field] || len(values[name]) != 1:
			inbound.Violations.Add(field, "must stand in the query once")
		default:
			if fault := setField(question, field, queryValue(field, values[name][0])); fault != "" {
				inbound.Violations.Add(field, fault)
			}
		}
		seen[field] = true
	}
}

// queryValue is a parameter's value in JSON: a string, or the number of an
// enumerated value.
func queryValue(field, value string) json.RawMessage {
	if (field == api.FieldSegment || field == api.FieldOperation) && isDigits(value) {
		return json.RawMessage(value)
	}
	quoted, err := json.Marshal(value)
	if err != nil { // no string fails
		return json.RawMessage("{}")
	}
	return quoted
}

// narrow lowers the question's max_age to so many seconds.
func narrow(question *api.Question, seconds int64) {
	age := question.MaxAge
	if !question.MaxAgeSet || seconds < age.Seconds || seconds == age.Seconds && age.Nanos > 0 {
		question.MaxAge, question.MaxAgeSet = api.Seconds{Seconds: seconds}, true
	}
}

// cacheControlAge is the age in seconds that a request's Cache-Control asks for: zero for
// no-cache, N for max-age=N, the least of several; given is false if it has
// neither. Other directives are not ours.
func cacheControlAge(values []string, inbound *request) (least int64, given bool) {
	if len(values) == 0 {
		return 0, false
	}
	for directive := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		var seconds int64
		switch strings.ToLower(name) {
		case "no-cache":
		case "max-age":
			digits := strings.Trim(value, `"`)
			parsed, err := strconv.ParseUint(digits, 10, 31)
			if err != nil && !isDigits(digits) {
				inbound.Violations.Add("Cache-Control", "max-age must be whole seconds")
				continue
			}
			seconds = int64(parsed) // the largest that fits, if it is too large
		default:
			continue
		}
		if !given || seconds < least {
			least, given = seconds, true
		}
	}
	return least, given
}

// parseTimeout reads a Grpc-Timeout header.
//
// Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
func parseTimeout(header string) (time.Duration, bool) {
	digits := header[:len(header)-1]
	if !isDigits(digits) || len(digits) > 8 {
		return 0, false
	}
	count, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[header[len(header)-1]]
	if count > int64(maxTimeoutHours) && unit == time.Hour {
		count = int64(maxTimeoutHours) // more does not fit a Duration
	}
	return time.Duration(count) * unit, ok
}

// maxTimeoutHours keeps a Grpc-Timeout within a time.Duration.
const maxTimeoutHours = 1_000_000

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// maxShown is how much of a caller's own word is returned.
const maxShown = 64

// printable makes a caller's own words fit to be returned: most bytes of them.
func printable(word string, most int) string {
	shown := strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, word)
	if len(shown) > most {
		shown = strings.ToValidUTF8(shown[:most], "") + "…"
	}
	return shown
}
