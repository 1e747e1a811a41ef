package console

import (
	"fmt"
	"net/http"
	"runtime/debug"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// problem is the data of templates/error.html.
type problem struct {
	Status int
	// Title and Text are sentences for the user.
	Title, Text string
	// Right is the right that the user lacks; empty if that is not the problem.
	Right string
	// Retry is a path that may succeed when opened again; empty if there is none.
	Retry, RetryText string
	// Partners lead to the same page for other partners.
	Partners []partnerLink
}

// fail answers a request with a page about a problem.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, u *user, status int, text string) {
	h.failWith(w, r, u, problem{Status: status, Text: text})
}

func (h *Handler) failWith(w http.ResponseWriter, r *http.Request, u *user, p problem) {
	if p.Title == "" {
		p.Title = titleOf(p.Status)
	}
	h.page(w, r, u, p.Status, "error", p)
}

func titleOf(status int) string {
	switch status {
	case http.StatusBadRequest:
		return "This request cannot be answered"
	case http.StatusUnauthorized:
		return "Your session has ended"
	case http.StatusForbidden:
		return "You may not do this"
	case http.StatusNotFound:
		return "There is no such page"
	case http.StatusMethodNotAllowed:
		return "This page cannot be used that way"
	case http.StatusTooManyRequests:
		return "Too many requests"
	case http.StatusServiceUnavailable:
		return "Not available at the moment"
	default:
		return "Something went wrong"
	}
}

// failAPI answers a request whose call of the API failed with err.
func (h *Handler) failAPI(w http.ResponseWriter, r *http.Request, u *user, err error) {
	h.failWith(w, r, u, problemOf(err))
}

// problemOf is the problem that an error of the API is.
func problemOf(err error) problem {
	st := status.Convert(err)
	code := http.StatusInternalServerError
	switch st.Code() { //nolint:exhaustive // the others are our faults
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		code = http.StatusBadRequest
	case codes.PermissionDenied:
		code = http.StatusForbidden
	case codes.NotFound:
		code = http.StatusNotFound
	case codes.ResourceExhausted:
		code = http.StatusTooManyRequests
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		code = http.StatusServiceUnavailable
	}
	return problem{Status: code, Text: st.Message()}
}

// lacks answers a request of a user who lacks a right.
func (h *Handler) lacks(w http.ResponseWriter, r *http.Request, u *user, right access.Rights) {
	h.refused(r, u, "lacks the right "+right.String())
	h.failWith(w, r, u, problem{Status: http.StatusForbidden, Right: right.String()})
}

// refused records that a request of a user was refused.
func (h *Handler) refused(r *http.Request, u *user, cause string) {
	h.refusals.Warn("request to the console refused", zap.String("person", u.caller.Person), zap.String("page", r.Pattern), zap.String("cause", cause))
}

// notFound answers requests for pages that do not exist, or not for the method.
func (h *Handler) notFound(w http.ResponseWriter, r *http.Request) {
	u := h.session(r)
	probe := &probeWriter{header: http.Header{}}
	h.mux.ServeHTTP(probe, r) // it has no handler for r, but knows other methods
	if probe.status != http.StatusMethodNotAllowed {
		h.fail(w, r, u, http.StatusNotFound, "The address is mistyped, or from another version of the console.")
		return
	}
	w.Header()["Allow"] = probe.header["Allow"]
	h.fail(w, r, u, http.StatusMethodNotAllowed, "Open it by a link or a form of the console.")
}

// probeWriter notes the status of a response that is not sent.
type probeWriter struct {
	header http.Header
	status int
}

// Header returns the header of the response.
func (w *probeWriter) Header() http.Header { return w.header }

// WriteHeader notes the status.
func (w *probeWriter) WriteHeader(status int) { w.status = status }

// Write drops p.
func (w *probeWriter) Write(p []byte) (int, error) { return len(p), nil }

// notedWriter notes whether the header was sent.
type notedWriter struct {
	http.ResponseWriter
	sent bool
}

// WriteHeader sends the header.
func (w *notedWriter) WriteHeader(status int) {
	w.sent = true
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the body.
func (w *notedWriter) Write(p []byte) (int, error) {
	w.sent = true
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // an http.ResponseWriter
}

// Unwrap returns the writer beneath, for [http.ResponseController].
func (w *notedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// recovered answers a request whose handler panics with cause. The panic's text is logged with its
// stack and goes nowhere else. If the page about it panics too, or the header was sent,
// the connection ends.
func (h *Handler) recovered(cause any, w *notedWriter, r *http.Request) {
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { //nolint:errorlint // it is passed as it is
		panic(cause)
	}
	h.cfg.Logger.Error("page panicked", zap.String("method", r.Method), zap.String("pattern", r.Pattern),
		zap.String("panic", fmt.Sprint(cause)), zap.ByteString("stack", debug.Stack()))
	defer func() {
		if recover() != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	if w.sent {
		panic(http.ErrAbortHandler)
	}
	h.fail(w, r, nil, http.StatusInternalServerError, "The log of the service has the cause. Try again; if it happens again, ask the operators.")
}
