package rest

import (
	"net/http"
)

// statusWriter remembers the status of a response for its span.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status and sends it.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets net/http find what the writer below can do.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
