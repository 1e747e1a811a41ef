package server

import (
	"net/http"
	"sync"

	"github.com/eligibilityd/eligibilityd/internal/api"
)

// closing makes every response that begins while the server is stopping, or on a
// connection that is old, carry Connection: close, so that clients and load balancers
// open their next connection elsewhere. Over HTTP/2, net/http sends a GOAWAY in its
// place. Idle connections stay open until the drain ends: a request may be on its way
// on any of them.
func (s *Server) closing(next http.Handler) http.Handler {
	writers := sync.Pool{New: func() any { return &closingWriter{server: s} }}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		closing, _ := writers.Get().(*closingWriter)
		closing.ResponseWriter, closing.old = w, false
		if conn, ok := req.Context().Value(api.ConnectionKey{}).(*connection); ok { // it is nothing else
			conn.identified.Do(func() { conn.certificate = s.certificateOf(req.TLS) })
			closing.old = conn.begin()
		}
		next.ServeHTTP(closing, req)
		closing.ResponseWriter = nil
		writers.Put(closing)
	})
}

// closingWriter is the writer of one response.
type closingWriter struct {
	http.ResponseWriter
	server *Server
	old    bool // the connection is
}

// Unwrap returns the writer beneath, for [http.ResponseController].
func (w *closingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader sends the header.
func (w *closingWriter) WriteHeader(code int) {
	w.mark()
	w.ResponseWriter.WriteHeader(code)
}

// Write sends a part of the body, after the header.
func (w *closingWriter) Write(p []byte) (int, error) {
	w.mark()
	return w.ResponseWriter.Write(p)
}

// mark has no effect once the header is sent.
func (w *closingWriter) mark() {
	if w.old || w.server.state.Load() == stateStopping {
		w.Header().Set("Connection", "close")
	}
}
