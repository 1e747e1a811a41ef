package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/api"
)

// streamSendTimeout is how long one write to the caller of a stream may block before
// the connection is of no more use. It is longer than the handler of a stream waits
// for a caller who does not receive, so that such a caller can still receive why the
// stream ends.
const streamSendTimeout = 2 * time.Minute

// generated prepares a request for a handler that grpc-gateway has generated: it
// bounds the body, and keeps the connection's timeouts from ending a stream.
func (r *Handler) generated(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request, path map[string]string) {
		inbound, _ := req.Context().Value(requestKey{}).(*request)
		defer inbound.wait() // next has cancelled the context of the stream
		w.Header()["Cache-Control"] = r.noStore
		if req.Header.Get("Grpc-Timeout") != "" { // the context has the deadline
			req = req.Clone(req.Context())
			req.Header.Del("Grpc-Timeout")
		}
		if req.Body != nil {
			req.Body = http.MaxBytesReader(w, req.Body, int64(r.cfg.BodyBytes))
		}
		if inbound.method == http.MethodHead {
			// A stream ends once its header was sent.
			ctx, leave := context.WithCancel(req.Context())
			defer leave()
			inbound.leave, req = leave, req.WithContext(ctx)
		}
		inbound.events = prefersEvents(req.Header["Accept"])
		req.Header = req.Header.Clone()
		req.Header.Del("Accept")
		if inbound.events {
			req.Header.Set("Accept", eventsContentType)
		}
		inbound.query, inbound.path = req.URL.Query(), path // the gateway refuses one that is malformed
		next(&generatedWriter{ResponseWriter: w, inbound: inbound}, req, path)
	}
}

// beginGenerated begins the RPC of a generated handler, which calls it before it
// reads the body. If the RPC is refused, the body cannot be read, and writeGenerated
// answers. It adds no metadata.
func (r *Handler) beginGenerated(ctx context.Context, req *http.Request) metadata.MD {
	inbound, _ := ctx.Value(requestKey{}).(*request)
	method, ok := runtime.RPCMethod(ctx)
	if !ok {
		return nil
	}
	if inbound.refused = r.chain.BeginREST(ctx, method, &inbound.Inbound); inbound.refused == nil && inbound.unread {
		inbound.refused = errUnsupported
	}
	if inbound.refused != nil {
		req.Body = refusedBody{req.Body}
		return nil
	}
	if rpc := descriptorOf(method); rpc != nil {
		rewriteQuery(req, inbound, rpc.Input().Fields())
	}
	return nil
}

// errUnsupported refuses a request whose body has a form that is not accepted.
var errUnsupported = errors.New("the body has a form that is not accepted")

// refusedBody is the body of a request that was refused: nothing reads it.
type refusedBody struct{ io.ReadCloser }

// Read fails.
func (refusedBody) Read([]byte) (int, error) { return 0, errors.New("the request was refused") }

// generatedWriter is the writer of a response of a generated handler. The gateway
// writes the header of a stream again if an error follows; only the first counts.
type generatedWriter struct {
	http.ResponseWriter
	inbound *request
	wrote   bool
}

// WriteHeader sends the header, once.
func (w *generatedWriter) WriteHeader(code int) {
	if !w.wrote {
		w.wrote = true
		w.ResponseWriter.WriteHeader(code)
	}
}

// Write sends a part of the body. In a stream, it has streamSendTimeout.
func (w *generatedWriter) Write(p []byte) (int, error) {
	w.wrote = true
	if w.inbound.stream != nil {
		if err := http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(streamSendTimeout)); err != nil {
			return 0, fmt.Errorf("set write deadline: %w", err)
		}
	}
	return w.ResponseWriter.Write(p) //nolint:wrapcheck // an http.ResponseWriter
}

// Unwrap returns the writer beneath, for [http.ResponseController].
func (w *generatedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// forward is called before each message of a generated handler, and with a nil
// message before the first of a stream: it then sends the header at once.
func (r *Handler) forward(ctx context.Context, w http.ResponseWriter, message proto.Message) error {
	inbound, _ := ctx.Value(requestKey{}).(*request)
	if inbound.stream != nil && message != nil { // not the first
		return nil
	}
	w.Header()["Content-Language"] = r.languages[inbound.Language]
	if inbound.stream == nil {
		return nil
	}
	w.Header().Set("Content-Type", streamContentType)
	w.Header().Set("X-Accel-Buffering", "no") // proxies must pass each message on
	if inbound.events {
		w.Header().Set("Content-Type", eventsContentType)
	}
	control := http.NewResponseController(w)
	if err := control.SetWriteDeadline(time.Now().Add(streamSendTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	w.WriteHeader(http.StatusOK)
	if inbound.events && inbound.leave == nil {
		if _, err := w.Write([]byte(eventsRetry)); err != nil {
			return fmt.Errorf("send header: %w", err)
		}
	}
	if err := control.Flush(); err != nil {
		return fmt.Errorf("send header: %w", err)
	}
	if inbound.leave != nil {
		inbound.leave()
	}
	return nil
}

// writeGenerated answers a request whose generated handler failed. If the
// handler refused the request before it called the RPC, the RPC fails with that,
// so that it is logged, counted and answered like any other refused request.
func (r *Handler) writeGenerated(ctx context.Context, mux *runtime.ServeMux, marshaler runtime.Marshaler, w http.ResponseWriter, req *http.Request, err error) {
	inbound, _ := ctx.Value(requestKey{}).(*request)
	method, ok := runtime.RPCMethod(ctx)
	switch {
	case !ok:
	case errors.Is(inbound.refused, errUnsupported):
		writeUnsupported(w, req)
		return
	case inbound.refused != nil:
		leaveBody(w, req)
		err = inbound.refused
	case !inbound.called:
		inbound.Violations.Add("request", legible(status.Convert(err).Message()))
		info := &grpc.UnaryServerInfo{FullMethod: method}
		_, err = r.chain.Intercept(ctx, nil, info, func(context.Context, any) (any, error) { return nil, inbound.Violations.Err() })
	default:
		if _, isStatus := status.FromError(err); !isStatus { // of writing the response
			err = api.StatusOf(err).Err()
		}
	}
	writeError(ctx, mux, marshaler, w, req, err)
}

// legible makes a complaint of the gateway about a request fit to be returned.
func legible(complaint string) string {
	spaces := func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' ' // protojson varies its own
		}
		return r
	}
	return printable(strings.Map(spaces, strings.TrimPrefix(complaint, "proto: ")), 200)
}

// streamContentType is the media type of a stream of messages, one on each line.
const streamContentType = "application/x-ndjson"

// marshaler reads and writes the bodies of generated handlers: as strictly as the
// hand-made ones, and every field that is always present.
type marshaler struct{ runtime.JSONPb }

func newMarshaler() *marshaler {
	return &marshaler{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true}}}
}

// StreamContentType returns the media type of a stream.
func (*marshaler) StreamContentType(any) string { return streamContentType }

// Marshal writes a message. A message of a stream comes as the member "result" of
// a map, which is left out.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	if wrapped, ok := v.(map[string]any); ok {
		v = wrapped["result"]
	}
	if message, ok := v.(proto.Message); ok {
		if _, encoded := encodedIn(message); encoded != nil {
			return encoded, nil
		}
	}
	written, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write %T: %w", v, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, written); err != nil { // protojson puts in blanks at random
		return nil, fmt.Errorf("write %T: %w", v, err)
	}
	return compact.Bytes(), nil
}

// NewDecoder returns a decoder of one body, which must be one value without
// members that the message does not have. An empty body is an empty message.
func (m *marshaler) NewDecoder(body io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(body)
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return fmt.Errorf("the body must fit into %d bytes", tooLarge.Limit)
		case err != nil:
			return errors.New("the body could not be read to its end")
		case len(data) == 0:
			return io.EOF
		case !json.Valid(data):
			return errors.New("the body must be one JSON value")
		}
		return m.Unmarshal(data, v) //nolint:wrapcheck // its text is returned to the caller
	})
}

// streamStatus is the status of an error that ends a stream after its header.
func streamStatus(_ context.Context, err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	return api.StatusOf(err) // of writing a message
}
