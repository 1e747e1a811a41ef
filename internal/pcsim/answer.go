package pcsim

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"time"
)

// answer is one HTTP answer before it is sent.
type answer struct {
	status  int
	headers map[string]string // besides, or in place of, those already set
	body    []byte
}

const jsonType = "application/json; charset=utf-8"

// jsonAnswer encodes a body without the HTML escapes that Go adds by default.
// The body must always marshal.
func jsonAnswer(status int, body any) answer {
	return answer{status: status, body: marshal(body)}
}

func (r Raw) answer() answer {
	body, _ := r.body() // validated
	return answer{status: r.Status, headers: r.Headers, body: body}
}

// faultBody is the documented error schema in the form that real traces have.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/error-codes
// (read 2026-11-21)
type faultBody struct {
	Code        int      `json:"code"`
	Description string   `json:"description"`
	Data        []string `json:"data"`
	Source      string   `json:"source"`
}

func fault(status, code int, description string) answer {
	return jsonAnswer(status, faultBody{
		Code: code, Description: description, Data: []string{}, Source: "PartnerApiServiceControllers",
	})
}

// noStatus is the only 404 that lets a customer buy.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/retrieve-validation-status
// (read 2026-11-21)
func noStatus(id string) answer {
	text := "Account Status for the customer, " + id + " was not found."
	return jsonAnswer(http.StatusNotFound, struct {
		Code                 int    `json:"code"`
		Message              string `json:"message"`
		Description          string `json:"description"`
		ErrorName            string `json:"errorName"`
		IsRetryable          bool   `json:"isRetryable"`
		ErrorMessageExtended string `json:"errorMessageExtended"`
	}{600074, text, text, "AccountStatusNotFound", false, "InternalErrorCode=600074"})
}

// throttled is the gateway's answer, whose schema differs.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/api-throttling-guidance
// (read 2026-11-21)
func throttled(wait time.Duration) answer {
	seconds := strconv.Itoa(int((wait + time.Second - 1) / time.Second))
	a := jsonAnswer(http.StatusTooManyRequests, struct {
		StatusCode int    `json:"statusCode"`
		Message    string `json:"message"`
	}{http.StatusTooManyRequests, "Rate limit is exceeded. Try again in " + seconds + " seconds."})
	a.headers = map[string]string{"Retry-After": seconds}
	return a
}

func marshal(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		return nil // unreachable: every body here is plain data
	}
	return body
}

// perform waits for a step's latency, then fails as scripted or sends the
// answer. It calls sending just before the first byte is sent.
func (s *Server) perform(w http.ResponseWriter, r *http.Request, step Step, a answer, sending func()) {
	if step.Latency > 0 && !s.pause(r, step.Latency) {
		drop(w)
		return
	}
	switch step.Failure {
	case FailureReset:
		drop(w)
	case FailureHang:
		s.hang(r)
		drop(w)
	case FailureResetBody, FailureHangBody:
		sending()
		send(w, a, len(a.body)/2)
		// A flush fails only if the client has disconnected; then dropping the
		// connection is right too.
		_ = http.NewResponseController(w).Flush()
		if step.Failure == FailureHangBody {
			s.hang(r)
		}
		drop(w)
	default:
		sending()
		send(w, a, len(a.body))
	}
}

// send writes an answer, or only the first bytes of its body.
func send(w http.ResponseWriter, a answer, bodyBytes int) {
	h := w.Header()
	if len(a.body) > 0 {
		h.Set("Content-Type", jsonType)
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	for name, value := range a.headers {
		h.Set(name, value)
	}
	w.WriteHeader(a.status)
	// An error means that the client has disconnected.
	_, _ = w.Write(a.body[:bodyBytes])
}

// pause waits for d. It returns false if the client disconnects or the server
// closes before.
func (s *Server) pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-s.closed:
	}
	return false
}

func (s *Server) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.closed:
	}
}

// drop ends the connection without another byte; if it is TCP, with a reset.
func drop(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		// HTTP/2 and wrapped writers: net/http aborts the stream.
		panic(http.ErrAbortHandler)
	}
	raw := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		raw = t.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // if this fails, the close still breaks the answer
	}
	_ = raw.Close() // closed in any case
}
