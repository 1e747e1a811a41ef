package server

import (
	"context"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// restAnswer is an answer as REST gives it: the body, and the headers that do
// not change with time.
type restAnswer struct {
	body              []byte
	tag, cacheControl []string
	evidenceTime      time.Time // zero where no evidence was used
}

func newRESTAnswer(message *eligibilityv1.CheckEligibilityResponse) restAnswer {
	answer := restAnswer{
		body:         appendAnswerJSON(make([]byte, 0, 1024), message),
		tag:          []string{entityTag(message)},
		cacheControl: []string{cacheControl(message)},
	}
	if at := message.GetEvidenceTime(); at != nil {
		answer.evidenceTime = at.AsTime()
	}
	return answer
}

// write writes an answer; a 304 where the caller holds it already.
func (r *rest) write(w http.ResponseWriter, said *restRequest, answer *restAnswer) {
	header := w.Header()
	header["Content-Type"] = r.json
	header["Cache-Control"] = answer.cacheControl
	if !answer.evidenceTime.IsZero() {
		age := max(r.now().Sub(answer.evidenceTime), 0)
		header["Age"] = []string{strconv.FormatInt(int64(age/time.Second), 10)}
	}
	header["Etag"] = answer.tag
	if len(said.ifNoneMatch) > 0 && matches(said.ifNoneMatch, answer.tag[0]) {
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

// entityTag names the decision and its evidence: two answers that differ only
// in where they came from and when to ask again are the same.
func entityTag(answer *eligibilityv1.CheckEligibilityResponse) string {
	said := make([]byte, 0, 512)
	// A length before each text keeps apart what would read the same in a row.
	text := func(s string) {
		said = append(strconv.AppendInt(said, int64(len(s)), 10), ':')
		said = append(append(said, s...), ';')
	}
	number := func(n int64) { said = append(strconv.AppendInt(said, n, 10), ';') }
	moment := func(t *timestamppb.Timestamp) {
		number(t.GetSeconds())
		number(int64(t.GetNanos()))
	}
	text(answer.GetCustomerId())
	number(int64(answer.GetDecision()))
	number(int64(len(answer.GetReasons())))
	for _, reason := range answer.GetReasons() {
		number(int64(reason.GetCode()))
	}
	number(int64(answer.GetAccountStatus()))
	text(answer.GetAccountStatusText())
	for _, held := range answer.GetQualifications() {
		number(int64(held.GetType()))
		text(held.GetTypeText())
		number(int64(held.GetVettingStatus()))
		text(held.GetVettingStatusText())
		text(held.GetVettingReason())
		moment(held.GetVettingCreatedTime())
	}
	text(strconv.FormatBool(answer.GetQualificationsKnown()))
	text(strconv.FormatBool(answer.GetStale()))
	moment(answer.GetEvidenceTime())
	hash := fnv.New64a()
	_, _ = hash.Write(said)
	return `W/"` + strconv.FormatUint(hash.Sum64(), 36) + `"`
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
func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, req *http.Request, code int) {
	switch {
	case code != http.StatusMethodNotAllowed:
		writeHTTPError(w, code)
	case strings.HasSuffix(req.URL.Path, ":batchCheckEligibility"):
		writeNotAllowed(w, http.MethodPost)
	default:
		writeNotAllowed(w, "GET, HEAD")
	}
}

// writeNotAllowed answers a request whose path takes only the methods allowed.
func writeNotAllowed(w http.ResponseWriter, allowed string) {
	w.Header().Set("Allow", allowed)
	writeHTTPError(w, http.StatusMethodNotAllowed)
}

// writeHTTPError answers a fault of HTTP alone, in the form of all other errors.
func writeHTTPError(w http.ResponseWriter, code int) {
	grpcCode, reason, message := codes.InvalidArgument, "INVALID_ARGUMENT", "The request is not valid."
	switch code {
	case http.StatusNotFound:
		grpcCode, reason, message = codes.NotFound, "PATH_NOT_FOUND", "There is nothing at this path."
	case http.StatusMethodNotAllowed:
		grpcCode, reason, message = codes.Unimplemented, "METHOD_NOT_ALLOWED", "This path does not take this method."
	case http.StatusUnsupportedMediaType:
		reason, message = "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json."
	}
	st := status.New(grpcCode, message)
	if detailed, err := st.WithDetails(&errdetails.ErrorInfo{Domain: errorDomain, Reason: reason}); err == nil {
		st = detailed
	}
	writeStatus(w, code, st)
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
		body = []byte(`{"code":13,"message":"The service failed."}`)
	}
	w.WriteHeader(code)
	_, _ = w.Write(body) // a caller who left is no concern
}
