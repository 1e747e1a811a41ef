package rest

import (
	"net/http"
	"slices"
)

// What a page of a permitted origin may send, read and remember. It may send no
// cookie and no client certificate: a browser sends these only with credentials,
// which are not permitted.
const (
	corsMethods  = "GET, HEAD, POST, PUT, PATCH, DELETE"
	corsHeaders  = "Accept-Language, Authorization, Cache-Control, Content-Type, Grpc-Timeout, If-None-Match, Last-Event-Id, Traceparent, Tracestate, X-Request-Id"
	corsExposed  = "Age, Etag, Retry-After, Traceparent, Www-Authenticate, X-Request-Id"
	corsRemember = "600" // seconds
)

// cors adds to an answer what a browser needs to show it to a page, if the origin of
// the request is one that is configured. It reports whether it is, and whether the
// request was a browser's question before another request, which is answered then:
// browsers send no token with it.
func (r *Handler) cors(w http.ResponseWriter, req *http.Request) (permitted, answered bool) {
	if len(r.cfg.Origins) == 0 {
		return false, false
	}
	header := w.Header()
	header.Add("Vary", "Origin")
	origins := req.Header["Origin"]
	if len(origins) != 1 || !slices.Contains(r.cfg.Origins, origins[0]) {
		return false, false
	}
	header.Set("Access-Control-Allow-Origin", origins[0])
	if req.Method != http.MethodOptions || req.Header.Get("Access-Control-Request-Method") == "" {
		header.Set("Access-Control-Expose-Headers", corsExposed)
		return true, false
	}
	header.Set("Access-Control-Allow-Methods", corsMethods)
	header.Set("Access-Control-Allow-Headers", corsHeaders)
	header.Set("Access-Control-Max-Age", corsRemember)
	leaveBody(w, req)
	w.WriteHeader(http.StatusNoContent)
	return true, true
}
