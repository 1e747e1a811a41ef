// Package servertest starts the API on real sockets over an in-memory source and
// store. It is for tests only.
package servertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Setup is what a test's server is made of; the zero value is a silent
// source and defaults, but for times that a busy machine could exceed.
type Setup struct {
	Source apitest.Source
	// Partners are the sources of several partners, by name, in place of Source, and
	// DefaultPartner is who is meant by a request that names none.
	Partners       map[string]apitest.Source
	DefaultPartner string
	Service        evidence.Config
	API            api.Config
	REST           rest.Config
	Server         server.Config

	// Feeds are the feeds of changes of partners, by name; a partner without one has no
	// streams of changes.
	Feeds map[string]changes.Feed

	// ClientTLS is how the clients connect if Server.TLS is set.
	ClientTLS *tls.Config

	Services  []api.Service // beside the API's
	Registers []rest.Register
}

// Running is a server on real sockets.
type Running struct {
	Chain    *api.Chain
	Handler  *rest.Handler
	Server   *server.Server
	Service  *evidence.Service         // of the only partner
	Store    *apitest.Store            // of the only partner
	Stores   map[string]*apitest.Store // by partner
	Logs     *observer.ObservedLogs
	Logged   chan zapcore.Entry // each entry, once it is in logs
	Registry *prometheus.Registry
	Conn     *grpc.ClientConn
	Client   eligibilityv1.EligibilityServiceClient
	REST     string // base URL
	Admin    string // base URL
	Probe    string // base URL

	HTTP  *http.Transport
	Stop  context.CancelFunc
	Ended chan error // what Serve returned
}

// Start starts a server that stops when the test ends.
func Start(t testing.TB, with Setup) *Running { //nolint:funlen // one thing after another
	t.Helper()
	if with.Source == nil {
		with.Source = apitest.Silent()
	}
	if with.API.DefaultTimeout == 0 {
		with.API.DefaultTimeout = 20 * time.Second
	}
	if with.Service.QualificationsGrace == 0 {
		with.Service.QualificationsGrace = 10 * time.Second
	}
	if with.Partners == nil {
		with.Partners = map[string]apitest.Source{api.DefaultPartner: with.Source}
	}
	run := &Running{Stores: make(map[string]*apitest.Store), Ended: make(chan error, 1), HTTP: new(http.Transport)}
	services := make(map[string]*evidence.Service)
	for name, source := range with.Partners {
		run.Store = &apitest.Store{Held: make(map[eligibility.Key]*eligibility.Evidence)}
		service, err := evidence.New(source, run.Store, with.Service)
		if err != nil {
			t.Fatal(err)
		}
		run.Service, run.Stores[name], services[name] = service, run.Store, service
	}
	partners, err := api.NewPartners(services, with.DefaultPartner)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	run.Logs, run.Registry = logs, prometheus.NewRegistry()
	run.Logged = make(chan zapcore.Entry, 1000)
	if with.API.Logger == nil {
		with.API.Logger = zap.New(core, zap.Hooks(func(entry zapcore.Entry) error {
			run.Logged <- entry
			return nil
		}))
	}
	with.API.Registerer = run.Registry
	with.Server.Logger, with.Server.Registerer, with.Server.Gatherer = with.API.Logger, run.Registry, run.Registry
	following := make(map[string]*changes.Log)
	for name, feed := range with.Feeds {
		if following[name], err = changes.NewLog(feed, changes.LogConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	with.API.Logs = following
	run.Chain, err = api.New(partners, with.API, with.Services...)
	if err != nil {
		t.Fatal(err)
	}
	run.Handler, err = rest.New(run.Chain, with.REST, with.Registers...)
	if err != nil {
		t.Fatal(err)
	}
	run.Server, err = server.New(run.Chain, run.Handler, with.Server)
	if err != nil {
		t.Fatal(err)
	}
	listeners := server.Listeners{GRPC: Listen(t), HTTP: Listen(t), Admin: Listen(t), Probe: Listen(t)}
	run.REST = "http://" + listeners.HTTP.Addr().String()
	run.Admin = "http://" + listeners.Admin.Addr().String()
	run.Probe = "http://" + listeners.Probe.Addr().String()
	transport := insecure.NewCredentials()
	if with.Server.TLS.CertificateFile != "" {
		run.REST = "https://" + listeners.HTTP.Addr().String()
		run.HTTP.TLSClientConfig, run.HTTP.ForceAttemptHTTP2 = with.ClientTLS.Clone(), true
		transport = credentials.NewTLS(with.ClientTLS.Clone())
	}
	run.Conn, err = grpc.NewClient(listeners.GRPC.Addr().String(), grpc.WithTransportCredentials(transport))
	if err != nil {
		t.Fatal(err)
	}
	run.Client = eligibilityv1.NewEligibilityServiceClient(run.Conn)

	// Not t's context, which ends before its clean-up: the server ends first.
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	fetches, endFetches := context.WithCancel(context.WithoutCancel(t.Context()))
	run.Stop = stop
	var serving, fetching sync.WaitGroup
	for _, service := range services {
		fetching.Go(func() { _ = service.Run(fetches) })
	}
	for _, log := range following {
		fetching.Go(func() { _ = log.Run(fetches) })
	}
	serving.Go(func() { run.Ended <- run.Server.Serve(ctx, listeners) })
	t.Cleanup(func() {
		_ = run.Conn.Close()
		run.HTTP.CloseIdleConnections()
		stop()
		serving.Wait()
		endFetches()
		fetching.Wait()
	})
	return run
}

// Partners returns one partner, api.DefaultPartner, with that service.
func Partners(t testing.TB, service *evidence.Service) api.Partners {
	t.Helper()
	partners, err := api.NewPartners(map[string]*evidence.Service{api.DefaultPartner: service}, "")
	if err != nil {
		t.Fatal(err)
	}
	return partners
}

// Listen listens on a free port of loopback.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// Reply is an HTTP answer with its body read.
type Reply struct {
	*http.Response
	Body []byte
}

// Do sends an HTTP request; headers are name and value in turn.
func (r *Running) Do(t testing.TB, method, url, body string, headers ...string) Reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: r.HTTP, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return Reply{Response: resp, Body: data}
}

// Get asks for the eligibility of a customer, with a query.
func (r *Running) Get(t testing.TB, customer, query string, headers ...string) Reply {
	t.Helper()
	return r.Do(t, http.MethodGet, r.REST+"/v1/customers/"+customer+"/eligibility"+query, "", headers...)
}

// Post asks about a batch.
func (r *Running) Post(t testing.TB, body string, headers ...string) Reply {
	t.Helper()
	return r.Do(t, http.MethodPost, r.REST+"/v1/customers:batchCheckEligibility", body, headers...)
}

// JSON reads the body as one JSON object.
func (r Reply) JSON(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(r.Body))
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("body is no JSON object: %v: %q", err, r.Body)
	}
	return object
}

// Status is a google.rpc.Status as REST carries it.
type Status struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type            string            `json:"@type"`
		Reason          string            `json:"reason"`
		Domain          string            `json:"domain"`
		RetryDelay      string            `json:"retryDelay"`
		Metadata        map[string]string `json:"metadata"`
		FieldViolations []Violation       `json:"fieldViolations"`
	} `json:"details"`
}

// Violation is one field violation of a [Status].
type Violation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

// Failure reads the body as a [Status].
func (r Reply) Failure(t testing.TB) Status {
	t.Helper()
	var st Status
	if err := json.Unmarshal(r.Body, &st); err != nil {
		t.Fatalf("body is no status: %v: %q", err, r.Body)
	}
	return st
}

// Reason returns the reason of the ErrorInfo, or nothing if there is none.
func (s Status) Reason() string {
	for _, detail := range s.Details {
		if strings.HasSuffix(detail.Type, "ErrorInfo") {
			return detail.Reason
		}
	}
	return ""
}

// Right returns the right that the ErrorInfo names, or nothing if it names none.
func (s Status) Right() string {
	for _, detail := range s.Details {
		if right := detail.Metadata["right"]; right != "" {
			return right
		}
	}
	return ""
}

// Fields lists the fields of the violations.
func (s Status) Fields() []string {
	var fields []string
	for _, detail := range s.Details {
		for _, violation := range detail.FieldViolations {
			fields = append(fields, violation.Field)
		}
	}
	return fields
}

// Violations lists what was wrong, as "field: description".
func (s Status) Violations() string {
	var all []string
	for _, detail := range s.Details {
		for _, violation := range detail.FieldViolations {
			all = append(all, violation.Field+": "+violation.Description)
		}
	}
	return strings.Join(all, "; ")
}

// StartWarm starts a server that has fresh evidence for CustomerA and writes
// its log nowhere.
func StartWarm(tb testing.TB, cfg api.Config) *Running {
	tb.Helper()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	cfg.Logger = zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	run := Start(tb, Setup{Source: apitest.Approved(), API: cfg})
	now := time.Now().Add(-time.Second)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{
		Qualifications: []eligibility.Qualification{{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved}},
	}, now)
	return run
}

// Asked returns a function that answers the bytes of req, a request of the method
// name, as the gRPC server does between reading and writing them, without a transport.
func (r *Running) Asked(ctx context.Context, name string, req proto.Message) func(testing.TB) {
	wire, failure := proto.Marshal(req)
	data, codec := mem.BufferSlice{mem.SliceBuffer(wire)}, r.Chain.Codec()
	receive := func(v any) error { return codec.Unmarshal(data, v) }
	desc := r.Chain.WithoutMessages(eligibilityv1.EligibilityService_ServiceDesc)
	handle := desc.Methods[slices.IndexFunc(desc.Methods, func(m grpc.MethodDesc) bool { return m.MethodName == name })].Handler
	method := "/" + desc.ServiceName + "/" + name
	ctx = grpc.NewContextWithServerTransportStream(ctx, discardStream{})
	return func(tb testing.TB) {
		tb.Helper()
		begun, err := r.Chain.Begin(ctx, method)
		if err = errors.Join(failure, err); err != nil {
			tb.Fatal(err)
		}
		resp, err := handle(nil, begun, receive, nil)
		if err != nil {
			tb.Fatal(err)
		}
		encoded, err := codec.Marshal(resp)
		if err != nil {
			tb.Fatal(err)
		}
		encoded.Free()
	}
}

// discardStream is a transport that takes no header.
type discardStream struct{}

func (discardStream) Method() string               { return "" }
func (discardStream) SetHeader(metadata.MD) error  { return nil }
func (discardStream) SendHeader(metadata.MD) error { return nil }
func (discardStream) SetTrailer(metadata.MD) error { return nil }

// StartAged starts a server that holds evidence of that age about CustomerA and
// cannot fetch any.
func StartAged(t *testing.T, age time.Duration) *Running {
	t.Helper()
	run := Start(t, Setup{Source: apitest.Fails(eligibility.Error{Kind: eligibility.KindUnavailable})})
	at := time.Now().Add(-age)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, at)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	return run
}

// Record returns the one record of the RPC that went before.
func (r *Running) Record(t *testing.T) map[string]any {
	t.Helper()
	for entry := range r.Logged {
		if entry.Message == "rpc handled" {
			break
		}
	}
	records := slices.DeleteFunc(r.Logs.TakeAll(), func(entry observer.LoggedEntry) bool { return entry.Message != "rpc handled" })
	if len(records) != 1 {
		t.Fatalf("%d records of one RPC", len(records))
	}
	fields := records[0].ContextMap()
	fields["level"] = records[0].Level
	return fields
}

// Scrape returns the lines of /metrics that begin so.
func (r *Running) Scrape(t *testing.T, prefix string) []string {
	t.Helper()
	got := r.Do(t, http.MethodGet, r.Admin+"/metrics", "")
	if got.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %d", got.StatusCode)
	}
	var lines []string
	for line := range strings.Lines(string(got.Body)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// Ready returns the status and body of /readyz.
func (r *Running) Ready(t *testing.T) string {
	t.Helper()
	got := r.Do(t, http.MethodGet, r.Admin+"/readyz", "")
	return strings.TrimSpace(http.StatusText(got.StatusCode) + " " + string(got.Body))
}

// Open begins a request and returns once its header has arrived.
func (r *Running) Open(t *testing.T, ctx context.Context, path string) *http.Response { //nolint:revive // t first, as everywhere
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.REST+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: r.HTTP}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}
