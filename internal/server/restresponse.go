package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// restAnswer is an answer as REST gives it: the body, and the headers that do
// not change with time.
type restAnswer struct {
	body              []byte
	tag, cacheControl []string
	evidenceTime      time.Time // zero if no evidence was used, like expireTime
	expireTime        time.Time
}

func newRESTAnswer(message *eligibilityv1.CheckEligibilityResponse) restAnswer {
	body := appendAnswerJSON(make([]byte, 0, 1024), message)
	answer := restAnswer{body: body, tag: []string{entityTag(body)}, cacheControl: []string{cacheControl(message)}}
	if at := message.GetEvidenceTime(); at != nil {
		answer.evidenceTime = at.AsTime()
	}
	if at := message.GetExpireTime(); at != nil {
		answer.expireTime = at.AsTime()
	}
	return answer
}

// write writes an answer; a 304 with the same headers if the caller holds it
// already. An answer that is stale, or that expired on its way, is never
// confirmed: the caller must see it as it is.
func (r *rest) write(w http.ResponseWriter, said *restRequest, answer *restAnswer) {
	header := w.Header()
	header["Content-Type"] = r.json
	header["Cache-Control"] = answer.cacheControl
	now := r.now()
	if !answer.evidenceTime.IsZero() {
		age := max(now.Sub(answer.evidenceTime), 0)
		header["Age"] = []string{strconv.FormatInt(int64(age/time.Second), 10)}
	}
	header["Etag"] = answer.tag
	if len(said.ifNoneMatch) > 0 && now.Before(answer.expireTime) && matches(said.ifNoneMatch, answer.tag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(answer.body) // a caller who left is no concern
}

// cacheControl lets the caller keep the answer for the whole fresh age of its
// evidence, from which it subtracts Age.
func cacheControl(answer *eligibilityv1.CheckEligibilityResponse) string {
	if answer.GetStale() || answer.GetEvidenceTime() == nil || answer.GetExpireTime() == nil {
		return "no-cache"
	}
	fresh := max(answer.GetExpireTime().AsTime().Sub(answer.GetEvidenceTime().AsTime()), 0)
	return "private, max-age=" + strconv.FormatInt(int64(fresh/time.Second), 10)
}

// entityTag covers everything in the body of an answer except its source: where
// evidence was found does not change what it shows.
func entityTag(body []byte) string {
	// No text in the body contains this, for its quotes would be escaped.
	before, rest, _ := bytes.Cut(body, []byte(`,"source":"`))
	_, after, _ := bytes.Cut(rest, []byte(`"`))
	hash := sha256.New()
	_, _ = hash.Write(before)
	_, _ = hash.Write(after)
	return `W/"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:12]) + `"`
}

// matches reports whether an If-None-Match names tag, by weak comparison.
func matches(ifNoneMatch []string, tag string) bool {
	for candidate := range strings.SplitSeq(strings.Join(ifNoneMatch, ","), ",") {
		candidate = strings.TrimSpace(candidate)
		if candidate == "*" || strings.TrimPrefix(candidate, "W/") == strings.TrimPrefix(tag, "W/") {
			return true
		}
	}
	return false
}

// writeError answers an RPC that failed.
func writeError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	// The text of the gateway's own complaint, of a path that it cannot unescape,
	// stays inside.
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.InvalidArgument && len(st.Details()) == 0 {
		writeHTTPError(w, http.StatusBadRequest)
		return
	}
	writeStatus(w, runtime.HTTPStatusFromCode(st.Code()), st)
}

// writeRoutingError answers a request that is for none of the API's methods.
func (r *rest) writeRoutingError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, code int) {
	if said, ok := ctx.Value(restKey{}).(*restRequest); ok && said.probed {
		return
	}
	if code == http.StatusMethodNotAllowed {
		writeNotAllowed(w, strings.Join(r.allowed(w, req), ", "))
		return
	}
	writeHTTPError(w, code)
}

// allowed returns the methods that the path of a request has handlers for.
func (r *rest) allowed(w http.ResponseWriter, req *http.Request) []string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		said := &restRequest{probed: true}
		probe := req.WithContext(context.WithValue(req.Context(), restKey{}, said))
		probe.Method = method
		if r.gateway.ServeHTTP(w, probe); said.found { // it writes nothing
			allowed = append(allowed, method)
		}
		if said.found && method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	return allowed
}

// writeNotAllowed answers a request whose path takes only the methods allowed.
func writeNotAllowed(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	writeHTTPError(w, http.StatusMethodNotAllowed)
}

// writeHTTPError answers a fault of HTTP alone, in the form of all other errors.
func writeHTTPError(w http.ResponseWriter, code int) {
	writeStatus(w, code, httpStatusOf(code))
}

// writeStatus writes a google.rpc.Status as the body, and its RetryInfo as a
// header too.
func writeStatus(w http.ResponseWriter, code int, st *status.Status) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/json")
	for _, detail := range st.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			delay := retry.GetRetryDelay().AsDuration()
			seconds := int64((delay + time.Second - 1) / time.Second)
			header.Set("Retry-After", strconv.FormatInt(seconds, 10))
		}
	}
	body, err := protojson.Marshal(st.Proto())
	if err != nil {
		body = []byte(`{"code":13,"message":"An internal fault prevented an answer."}`)
	}
	w.WriteHeader(code)
	_, _ = w.Write(body) // a caller who left is no concern
}
