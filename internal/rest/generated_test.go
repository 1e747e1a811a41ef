package rest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	echov1 "github.com/eligibilityd/eligibilityd/internal/rest/testdata/echo/v1"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// echoes is a service that nobody wrote a REST handler for.
type echoes struct {
	echov1.UnimplementedEchoServiceServer

	echo  func(ctx context.Context, req *echov1.EchoRequest) (*echov1.EchoResponse, error)
	watch func(req *echov1.EchoRequest, stream grpc.ServerStreamingServer[echov1.EchoResponse]) error
}

func (e *echoes) Echo(ctx context.Context, req *echov1.EchoRequest) (*echov1.EchoResponse, error) {
	return e.echo(ctx, req)
}

func (e *echoes) PostEcho(ctx context.Context, req *echov1.EchoRequest) (*echov1.EchoResponse, error) {
	return e.echo(ctx, req)
}

func (e *echoes) WatchEcho(req *echov1.EchoRequest, stream grpc.ServerStreamingServer[echov1.EchoResponse]) error {
	return e.watch(req, stream)
}

// startEchoes starts a server with the service beside the API.
func startEchoes(t *testing.T, e *echoes, with servertest.Setup) *servertest.Running {
	t.Helper()
	with.Services = []api.Service{{
		Desc: &echov1.EchoService_ServiceDesc, Impl: e,
		Needs: map[string]access.Rights{"Echo": access.Check, "PostEcho": access.Check, "WatchEcho": access.Watch},
	}}
	with.Registers = []rest.Register{func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
		return echov1.RegisterEchoServiceHandlerClient(ctx, mux, echov1.NewEchoServiceClient(conn))
	}}
	return servertest.Start(t, with)
}

func repeat(_ context.Context, req *echov1.EchoRequest) (*echov1.EchoResponse, error) {
	return &echov1.EchoResponse{Text: strings.Repeat(req.GetText(), int(req.GetCount()))}, nil
}

func TestGeneratedHandlersServeAUnaryRPC(t *testing.T) {
	t.Parallel()
	run := startEchoes(t, &echoes{echo: repeat}, servertest.Setup{})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	for name, got := range map[string]servertest.Reply{
		"path and query": run.Do(t, http.MethodGet, run.REST+"/v1/echoes/ab?count=2", "", "X-Request-Id", "mine", "Traceparent", trace),
		"body":           run.Do(t, http.MethodPost, run.REST+"/v1/echoes", `{"text":"ab","count":2}`, "X-Request-Id", "mine", "Traceparent", trace),
	} {
		// Every field is there, also those with their default.
		if got.StatusCode != http.StatusOK || string(got.Body) != `{"text":"abab","place":0}` {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.Body)
		}
		for header, want := range map[string]string{
			"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"X-Request-Id": "mine", "Traceparent": trace,
		} {
			if got.Header.Get(header) != want {
				t.Errorf("%s: %s is %q, not %q", name, header, got.Header.Get(header), want)
			}
		}
		for header := range got.Header {
			if strings.HasPrefix(header, "Grpc-") {
				t.Errorf("%s: header %s", name, header)
			}
		}
	}
	records := run.Logs.FilterMessage("rpc handled").All()
	if len(records) != 2 || records[0].ContextMap()["via"] != "rest" || records[0].ContextMap()["request_id"] != "mine" {
		t.Errorf("records %v", records)
	}
}

// Each failure of a generated handler is compared with the same failure over
// gRPC, and with the form that hand-made handlers give it.
func TestGeneratedHandlersMapErrors(t *testing.T) {
	t.Parallel()
	for _, kind := range eligibility.Kinds() {
		failure := &eligibility.Error{Kind: kind, RetryAfter: 7 * time.Second, Err: errors.New("secret cause")}
		run := startEchoes(t, &echoes{
			echo: func(context.Context, *echov1.EchoRequest) (*echov1.EchoResponse, error) { return nil, failure },
			watch: func(*echov1.EchoRequest, grpc.ServerStreamingServer[echov1.EchoResponse]) error {
				return failure
			},
		}, servertest.Setup{Source: apitest.Fails(*failure)})
		_, err := echov1.NewEchoServiceClient(run.Conn).Echo(t.Context(), &echov1.EchoRequest{Text: "x"})
		want := status.Convert(err)
		// The same error, written by hand.
		byHand := newRecorder()
		rest.WriteError(byHand, want.Err())
		for _, path := range []string{"/v1/echoes/x", "/v1/echoes/x:watch"} {
			got := run.Do(t, http.MethodGet, run.REST+path, "", "X-Request-Id", "mine")
			if got.StatusCode != byHand.code || got.Failure(t).Reason() != api.FaultOf(kind).Reason || got.Failure(t).Code != int(want.Code()) {
				t.Errorf("%s, %s: %d %s, not %d %s", kind, path, got.StatusCode, got.Body, byHand.code, byHand.body)
			}
			for _, header := range []string{"Content-Type", "Cache-Control", "Retry-After"} {
				if got.Header.Get(header) != byHand.header.Get(header) {
					t.Errorf("%s, %s: %s is %q, not %q", kind, path, header, got.Header.Get(header), byHand.header.Get(header))
				}
			}
			if got.Header.Get("X-Request-Id") != "mine" || strings.Contains(string(got.Body), "secret") {
				t.Errorf("%s, %s: %v %s", kind, path, got.Header, got.Body)
			}
		}
	}
}

// recorder is a ResponseWriter that keeps what is written.
type recorder struct {
	header http.Header
	code   int
	body   []byte
}

func newRecorder() *recorder { return &recorder{header: make(http.Header)} }

func (r *recorder) Header() http.Header  { return r.header }
func (r *recorder) WriteHeader(code int) { r.code = code }
func (r *recorder) Write(p []byte) (int, error) {
	r.body = append(r.body, p...)
	return len(p), nil
}

// A request that a generated handler refuses never reaches the RPC's handler, but
// is answered, logged and counted like one that did.
func TestGeneratedHandlersRefuseWhatTheyCannotRead(t *testing.T) {
	t.Parallel()
	run := startEchoes(t, &echoes{echo: repeat}, servertest.Setup{})
	for name, c := range map[string]struct {
		method, path, body, says string
		headers                  []string
		code                     int
		reason                   string
	}{
		"unknown parameter":    {path: "/v1/echoes/x?cuont=2", says: "cuont: is no query parameter of this method"},
		"parameter twice":      {path: "/v1/echoes/x?count=2&count=3", says: `field "count"`},
		"parameter of path":    {path: "/v1/echoes/x?text=y", says: "text: is no query parameter of this method"},
		"malformed parameter":  {path: "/v1/echoes/x?count=two", says: "count"},
		"malformed query":      {path: "/v1/echoes/x?count=%zz", says: "URL escape"},
		"unknown member":       {method: http.MethodPost, path: "/v1/echoes", body: `{"txet":"x"}`, says: "txet"},
		"member twice":         {method: http.MethodPost, path: "/v1/echoes", body: `{"text":"x","text":"y"}`, says: "duplicate"},
		"two values":           {method: http.MethodPost, path: "/v1/echoes", body: `{"text":"x"} {}`, says: "one JSON value"},
		"no JSON":              {method: http.MethodPost, path: "/v1/echoes", body: `text`, says: "one JSON value"},
		"large body":           {method: http.MethodPost, path: "/v1/echoes", body: `{"text":"` + strings.Repeat("x", 2<<20) + `"}`, says: "must fit into 2097152 bytes"},
		"malformed timeout":    {path: "/v1/echoes/x", headers: []string{"Grpc-Timeout", "soon"}, says: "up to 8 digits"},
		"timeout of a stream":  {path: "/v1/echoes/x:watch", headers: []string{"Grpc-Timeout", "soon"}, says: "up to 8 digits"},
		"parameter, streaming": {path: "/v1/echoes/x:watch?cuont=2", says: "cuont: is no query parameter"},
		"media type":           {method: http.MethodPost, path: "/v1/echoes", headers: []string{"Content-Type", "text/xml"}, code: http.StatusUnsupportedMediaType, reason: "UNSUPPORTED_MEDIA_TYPE"},
		"method":               {method: http.MethodDelete, path: "/v1/echoes", code: http.StatusMethodNotAllowed, reason: "METHOD_NOT_ALLOWED"},
	} {
		if c.method == "" {
			c.method = http.MethodGet
		}
		before := len(run.Logs.FilterMessage("rpc handled").All())
		got := run.Do(t, c.method, run.REST+c.path, c.body, c.headers...)
		after := run.Logs.FilterMessage("rpc handled").All()[before:]
		if c.code != 0 { // a fault of HTTP alone is no RPC
			if got.StatusCode != c.code || got.Failure(t).Reason() != c.reason || len(after) != 0 {
				t.Errorf("%s: %d %s, %d records", name, got.StatusCode, got.Body, len(after))
			}
			continue
		}
		if got.StatusCode != http.StatusBadRequest || got.Failure(t).Reason() != "INVALID_ARGUMENT" || !strings.Contains(got.Failure(t).Violations(), c.says) {
			t.Errorf("%s: %d %s", name, got.StatusCode, got.Body)
		}
		if len(after) != 1 || after[0].ContextMap()["code"] != "INVALID_ARGUMENT" {
			t.Errorf("%s: records %v", name, after)
		}
	}
	got := run.Do(t, http.MethodDelete, run.REST+"/v1/echoes/x", "")
	if got.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", got.Header.Get("Allow"))
	}
}

func TestGeneratedHandlersKeepLimitsAndDeadlines(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	e := &echoes{
		echo: func(ctx context.Context, req *echov1.EchoRequest) (*echov1.EchoResponse, error) {
			if req.GetText() == "panic" {
				panic("in the handler")
			}
			if req.GetText() == "occupy" {
				close(entered)
				<-leave
				return new(echov1.EchoResponse), nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		},
		watch: func(_ *echov1.EchoRequest, stream grpc.ServerStreamingServer[echov1.EchoResponse]) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		},
	}
	run := startEchoes(t, e, servertest.Setup{API: api.Config{MaxConcurrent: 1}})
	for _, path := range []string{"/v1/echoes/x", "/v1/echoes/x:watch"} {
		got := run.Do(t, http.MethodGet, run.REST+path, "", "Grpc-Timeout", "50m")
		if got.StatusCode != http.StatusGatewayTimeout || got.Failure(t).Reason() != "DEADLINE_EXCEEDED" || got.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, got.StatusCode, got.Body)
		}
	}
	if got := run.Do(t, http.MethodGet, run.REST+"/v1/echoes/panic", ""); got.StatusCode != http.StatusInternalServerError || got.Failure(t).Reason() != "INTERNAL" {
		t.Errorf("a panic: %d %s", got.StatusCode, got.Body)
	}
	occupied := make(chan error, 1)
	go func() {
		_, err := echov1.NewEchoServiceClient(run.Conn).Echo(t.Context(), &echov1.EchoRequest{Text: "occupy"})
		occupied <- err
	}()
	<-entered
	got := run.Do(t, http.MethodGet, run.REST+"/v1/echoes/x", "")
	if got.StatusCode != http.StatusTooManyRequests || got.Failure(t).Reason() != "OVERLOADED" || got.Header.Get("Retry-After") != "1" {
		t.Errorf("beyond the limit: %d %s", got.StatusCode, got.Body)
	}
	close(leave)
	if err := <-occupied; err != nil {
		t.Error(err)
	}
}

// A stream's header and each of its messages reach the caller before the next is
// made, for as long as the stream lasts: the connection's timeouts do not end it.
func TestGeneratedHandlersStream(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	e := &echoes{watch: func(req *echov1.EchoRequest, stream grpc.ServerStreamingServer[echov1.EchoResponse]) error {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
		for place := int32(0); ; place++ {
			text, more := <-next
			switch {
			case !more:
				return nil
			case text == "fail":
				return &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: 9 * time.Second}
			}
			if err := stream.Send(&echov1.EchoResponse{Text: req.GetText() + text, Place: place}); err != nil {
				return err
			}
		}
	}}
	const timeout = 100 * time.Millisecond
	run := startEchoes(t, e, servertest.Setup{})
	impatient := httptest.NewUnstartedServer(run.Handler)
	impatient.Config.ReadTimeout, impatient.Config.WriteTimeout = timeout, timeout
	impatient.Start()
	defer impatient.Close()
	run.REST = impatient.URL
	for _, end := range []string{"", "fail"} {
		resp := run.Open(t, t.Context(), "/v1/echoes/x:watch") //nolint:bodyclose // open does
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" || resp.Header.Get("X-Request-Id") == "" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		lines := bufio.NewReader(resp.Body)
		for place, text := range []string{"a", "b"} {
			<-time.After(2 * timeout) // not to wait for anything: to be idle for longer than the timeouts
			next <- text
			line, err := lines.ReadString('\n')
			if want := fmt.Sprintf("{\"text\":\"x%s\",\"place\":%d}\n", text, place); err != nil || line != want {
				t.Fatalf("%q, %v; want %q", line, err, want)
			}
		}
		if end == "" {
			next <- "last"
			if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "xlast") {
				t.Errorf("%q, %v", line, err)
			}
			break
		}
		next <- end
		rest, err := io.ReadAll(lines)
		var late struct{ Error json.RawMessage }
		if err != nil || json.Unmarshal(rest, &late) != nil {
			t.Fatalf("%q, %v", rest, err)
		}
		if got := (servertest.Reply{Body: late.Error}).Failure(t); got.Reason() != "PARTNER_CENTER_THROTTLED" || got.Code != int(codes.Unavailable) {
			t.Errorf("the late error is %s", rest)
		}
	}
	close(next)
}

// A stream ends when its caller leaves or the server stops, and is logged and
// counted once.
func TestGeneratedHandlersEndStreams(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	e := &echoes{watch: func(_ *echov1.EchoRequest, stream grpc.ServerStreamingServer[echov1.EchoResponse]) error {
		if err := stream.Send(new(echov1.EchoResponse)); err != nil {
			return err
		}
		<-stream.Context().Done()
		ended <- stream.Context().Err()
		return stream.Context().Err()
	}}
	run := startEchoes(t, e, servertest.Setup{})
	ctx, leave := context.WithCancel(t.Context())
	resp := run.Open(t, ctx, "/v1/echoes/x:watch") //nolint:bodyclose // open does
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller left: %v", err)
	}
	stream, err := echov1.NewEchoServiceClient(run.Conn).WatchEcho(t.Context(), new(echov1.EchoRequest))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	run.Stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the server stopped: %v", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("over gRPC: %v", err)
	}
	for records := 0; records < 2; {
		if entry := <-run.Logged; entry.Message == "rpc handled" {
			records++
		}
	}
	var via []any
	for _, record := range run.Logs.FilterMessage("rpc handled").All() {
		if record.ContextMap()["rpc"] != "WatchEcho" || record.ContextMap()["code"] != "CANCELLED" {
			t.Errorf("record %v", record.ContextMap())
		}
		via = append(via, record.ContextMap()["via"])
	}
	if !slices.Equal(via, []any{"rest", "grpc"}) {
		t.Errorf("records of %v", via)
	}
}
