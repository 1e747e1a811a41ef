package rest

import (
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// compressFrom is from which size on a body is compressed: a smaller one fits into
// one packet as it is.
const compressFrom = 1 << 10

// newCompressor returns a *gzip.Writer at its fastest level: bodies repeat themselves,
// so the others gain little.
func newCompressor() any {
	compressor, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // it fails only for a level that does not exist
	return compressor
}

// acceptsGzip reports whether a request with these values of Accept-Encoding accepts
// gzip: named, or by a wildcard, and not with a weight of zero.
//
// Source: https://www.rfc-editor.org/rfc/rfc9110#name-accept-encoding
func acceptsGzip(values []string) bool {
	named, wildcard := -1, -1 // 1 if accepted, 0 if refused
	for _, value := range values {
		for coding := range strings.SplitSeq(value, ",") {
			name, parameters, _ := strings.Cut(coding, ";")
			accepted := 1
			if q, ok := strings.CutPrefix(strings.ToLower(strings.ReplaceAll(parameters, " ", "")), "q="); ok {
				if weight, err := strconv.ParseFloat(q, 64); err != nil || !(weight > 0) {
					accepted = 0
				}
			}
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"):
				named = max(named, accepted)
			case name == "*":
				wildcard = accepted
			}
		}
	}
	return named == 1 || named < 0 && wildcard == 1
}

// compressible reports whether a body of this type gains by compression and is sent
// whole: a stream is not, for its messages must not wait for one another.
func compressible(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	switch media {
	case "application/json", "text/html", "text/css", "text/javascript", "application/javascript":
		return true
	default:
		return false
	}
}

// compressWriter compresses the body of a response whose request accepts gzip,
// if its first write has compressFrom bytes or more: handlers write a body at once.
// The tags of responses are weak, so one of them stands for both forms.
type compressWriter struct {
	http.ResponseWriter

	compressors *sync.Pool // of *gzip.Writer
	compressor  *gzip.Writer
	status      int // of the header that the first write sends; 0: 200
	isHead      bool
	decided     bool // the header was sent
}

// WriteHeader keeps the status until it is known whether the body is compressed. A
// response without a body is not.
func (w *compressWriter) WriteHeader(status int) {
	switch {
	case w.decided || w.status != 0:
	case status < http.StatusOK || status == http.StatusNoContent || status == http.StatusNotModified:
		w.decided = status >= http.StatusOK
		w.ResponseWriter.WriteHeader(status)
	default:
		w.status = status
	}
}

// Write sends a part of the body.
func (w *compressWriter) Write(p []byte) (int, error) {
	if !w.decided {
		w.decide(len(p))
	}
	if w.compressor != nil {
		return w.compressor.Write(p) //nolint:wrapcheck // of an http.ResponseWriter
	}
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // an http.ResponseWriter
}

// decide sends the header before the first write, which has size bytes.
func (w *compressWriter) decide(size int) {
	w.decided = true
	header := w.Header()
	if size >= compressFrom && len(header["Content-Encoding"]) == 0 && len(header["Content-Range"]) == 0 && compressible(header.Get("Content-Type")) {
		header.Set("Content-Encoding", "gzip")
		header.Del("Content-Length")
		header.Del("Accept-Ranges")
		w.compressor, _ = w.compressors.Get().(*gzip.Writer)
		w.compressor.Reset(w.ResponseWriter)
	}
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
}

// FlushError sends what was written. It is for streams, which are not compressed.
func (w *compressWriter) FlushError() error {
	if !w.decided {
		w.decide(0)
	}
	return http.NewResponseController(w.ResponseWriter).Flush() //nolint:wrapcheck // of an http.ResponseWriter
}

// Unwrap returns the writer beneath, for [http.ResponseController].
func (w *compressWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// end ends the body.
func (w *compressWriter) end() {
	if !w.decided {
		if w.isHead { // the length would be that of another form
			w.Header().Del("Content-Length")
		}
		w.decide(0)
	}
	if w.compressor == nil {
		return
	}
	if err := w.compressor.Close(); err == nil { // else, HTTP/2 may still be reading its buffers
		w.compressor.Reset(nil)
		w.compressors.Put(w.compressor)
	}
	w.compressor = nil
}
