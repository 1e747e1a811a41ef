package rest

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// write writes an answer; a 304 with the same headers if the caller holds it
// already. An answer that expired on its way is never confirmed, and one that is stale
// only to a caller who holds it as stale.
func (r *Handler) write(w http.ResponseWriter, inbound *request, reply *api.CheckReply) {
	buffer := r.bodies.get()
	body, sourceBegin, sourceEnd := reply.AppendJSONSource((*buffer)[:0])
	*buffer = body
	tag := entityTag(reply.Answer.Decision, body[:sourceBegin], body[sourceEnd:])

	now := r.now()
	values := &inbound.values
	// One string holds all values of this answer.
	var room [128]byte
	text := append(room[:0], tag[:]...)
	text = appendCacheControl(text, &reply.Answer)
	ageFrom := len(text)
	known := api.IsTimestamp(reply.Answer.EvidenceTime)
	if known {
		age := max(now.Sub(reply.Answer.EvidenceTime), 0)
		text = strconv.AppendInt(text, int64(age/time.Second), 10)
	}
	all := string(text)
	values[etagValue], values[cacheControlValue], values[ageValue] = all[:len(tag)], all[len(tag):ageFrom], all[ageFrom:]

	header := w.Header()
	header["Content-Type"] = r.json
	header["Content-Language"] = r.languages[reply.Language]
	header["Etag"] = values[etagValue : etagValue+1 : etagValue+1]
	header["Cache-Control"] = values[cacheControlValue : cacheControlValue+1 : cacheControlValue+1]
	if known {
		header["Age"] = values[ageValue : ageValue+1 : ageValue+1]
	}
	stale := reply.Answer.Stale
	if len(inbound.ifNoneMatch) > 0 && (stale || api.IsTimestamp(reply.Answer.ExpireTime) && now.Before(reply.Answer.ExpireTime)) &&
		matches(inbound.ifNoneMatch, values[etagValue], !stale) {
		r.bodies.put(buffer)
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// If it fails, HTTP/2 may still be reading the buffer.
	if _, err := w.Write(body); err == nil { //nolint:gosec // JSON
		r.bodies.put(buffer)
	}
}

// appendCacheControl lets the caller keep the answer for the whole fresh age of
// its evidence, from which it subtracts Age.
func appendCacheControl(b []byte, answer *eligibility.Answer) []byte {
	if answer.Stale || !api.IsTimestamp(answer.EvidenceTime) || !api.IsTimestamp(answer.ExpireTime) {
		return append(b, "no-cache"...)
	}
	fresh := max(answer.ExpireTime.Sub(answer.EvidenceTime), 0)
	return strconv.AppendInt(append(b, "private, max-age="...), int64(fresh/time.Second), 10)
}

// tagBytes is the length of an entity tag: W/"", a digit, and 8 bytes of a hash in base64.
const tagBytes = 4 + 1 + 11

// entityTag covers everything in the body of an answer except its source: the
// tier that held the evidence does not change what it shows. The decision stands in the
// tag itself, so that even two bodies with the same hash never confirm another decision.
func entityTag(decision eligibility.Decision, beforeSource, afterSource []byte) (tag [tagBytes]byte) {
	var hash xxhash.Digest
	hash.Reset()
	_, _ = hash.Write(beforeSource) // it never fails
	_, _ = hash.Write(afterSource)
	var sum [8]byte
	copy(tag[:], `W/"`)
	tag[3] = '0' + byte(decision)
	base64.RawURLEncoding.Encode(tag[4:], binary.BigEndian.AppendUint64(sum[:0], hash.Sum64()))
	tag[tagBytes-1] = '"'
	return tag
}

// matches reports whether an If-None-Match names tag, by weak comparison, or is an
// asterisk, which means any tag, if anyTag is set. In a list, an asterisk would be a part
// of a tag of somebody else's, which may hold commas as ours do not.
func matches(ifNoneMatch []string, tag string, anyTag bool) bool {
	list := strings.Join(ifNoneMatch, ",")
	if strings.TrimSpace(list) == "*" {
		return anyTag
	}
	for candidate := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(strings.TrimSpace(candidate), "W/") == strings.TrimPrefix(tag, "W/") {
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
func (r *Handler) writeRoutingError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, code int) {
	if inbound, ok := ctx.Value(requestKey{}).(*request); ok && inbound.probed {
		return
	}
	if code == http.StatusMethodNotAllowed {
		writeNotAllowed(w, strings.Join(r.allowed(w, req), ", "))
		return
	}
	writeHTTPError(w, code)
}

// allowed returns the methods that the path of a request has handlers for.
func (r *Handler) allowed(w http.ResponseWriter, req *http.Request) []string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		inbound := &request{Context: req.Context(), probed: true}
		probe := req.WithContext(inbound)
		probe.Method = method
		r.gateway.ServeHTTP(w, probe) // it writes nothing
		if inbound.found {
			allowed = append(allowed, method)
		}
		if inbound.found && method == http.MethodGet {
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
	writeStatus(w, code, faultOf(code).Status())
}

// writeUnsupported answers a request whose body has a form that is not accepted.
func writeUnsupported(w http.ResponseWriter, req *http.Request) {
	leaveBody(w, req)
	w.Header().Set("Accept-Encoding", "identity")
	writeHTTPError(w, http.StatusUnsupportedMediaType)
}

// leaveBody makes an answer not wait for the body of its request, which nobody reads:
// over HTTP/1, net/http would read it first unless the connection is to be closed.
func leaveBody(w http.ResponseWriter, req *http.Request) {
	if req.ProtoMajor == 1 && req.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
}

// challenge is sent with each 401.
const challenge = `Bearer error="invalid_token"`

// writeStatus writes a google.rpc.Status as the body, and its RetryInfo as a
// header too.
func writeStatus(w http.ResponseWriter, code int, st *status.Status) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/json")
	header.Set("Content-Language", "en")
	if code == http.StatusUnauthorized {
		header.Set("Www-Authenticate", challenge)
	}
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
	_, _ = w.Write(body) //nolint:gosec // JSON; a caller who left is no concern
}
