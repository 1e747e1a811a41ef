package server

import (
	"bytes"
	"context"
	"encoding/json"
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
	"google.golang.org/grpc/credentials/insecure"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// setup says what a test's server is made of; the zero value is a silent
// source and defaults, but for times that a busy machine could exceed.
type setup struct {
	source  source
	service evidence.Config
	api     ChainConfig
	server  Config

	services  []Service // beside the API's
	registers []Register
}

// running is a server on real sockets.
type running struct {
	chain    *Chain
	handler  *Handler
	server   *Server
	service  *evidence.Service
	store    *store
	logs     *observer.ObservedLogs
	logged   chan zapcore.Entry // each entry, once it is in logs
	registry *prometheus.Registry
	conn     *grpc.ClientConn
	client   eligibilityv1.EligibilityServiceClient
	rest     string // base URL
	admin    string // base URL

	http  *http.Transport
	stop  context.CancelFunc
	ended chan error // what Serve returned
}

func start(t testing.TB, with setup) *running {
	t.Helper()
	if with.source == nil {
		with.source = silent()
	}
	if with.api.DefaultTimeout == 0 {
		with.api.DefaultTimeout = 20 * time.Second
	}
	if with.service.QualificationsGrace == 0 {
		with.service.QualificationsGrace = 10 * time.Second
	}
	run := &running{store: &store{held: make(map[eligibility.Key]*eligibility.Evidence)}, ended: make(chan error, 1), http: new(http.Transport)}
	service, err := evidence.New(with.source, run.store, with.service)
	if err != nil {
		t.Fatal(err)
	}
	run.service = service
	core, logs := observer.New(zapcore.DebugLevel)
	run.logs, run.registry = logs, prometheus.NewRegistry()
	run.logged = make(chan zapcore.Entry, 1000)
	if with.api.Logger == nil {
		with.api.Logger = zap.New(core, zap.Hooks(func(entry zapcore.Entry) error {
			run.logged <- entry
			return nil
		}))
	}
	with.api.Registerer = run.registry
	with.server.Logger, with.server.Registerer, with.server.Gatherer = with.api.Logger, run.registry, run.registry
	run.chain, err = NewChain(service, with.api, with.services...)
	if err != nil {
		t.Fatal(err)
	}
	run.handler, err = NewREST(run.chain, with.registers...)
	if err != nil {
		t.Fatal(err)
	}
	run.server, err = New(run.chain, run.handler, with.server)
	if err != nil {
		t.Fatal(err)
	}
	listeners := Listeners{GRPC: listen(t), HTTP: listen(t), Admin: listen(t)}
	run.rest = "http://" + listeners.HTTP.Addr().String()
	run.admin = "http://" + listeners.Admin.Addr().String()
	run.conn, err = grpc.NewClient(listeners.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	run.client = eligibilityv1.NewEligibilityServiceClient(run.conn)

	// Not t's context, which ends before its clean-up: the server ends first.
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	fetches, endFetches := context.WithCancel(context.WithoutCancel(t.Context()))
	run.stop = stop
	var serving, fetching sync.WaitGroup
	fetching.Go(func() { _ = service.Run(fetches) })
	serving.Go(func() { run.ended <- run.server.Serve(ctx, listeners) })
	t.Cleanup(func() {
		_ = run.conn.Close()
		run.http.CloseIdleConnections()
		stop()
		serving.Wait()
		endFetches()
		fetching.Wait()
	})
	return run
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// reply is an HTTP answer with its body read.
type reply struct {
	*http.Response
	body []byte
}

// do sends an HTTP request; headers are name and value in turn.
func (r *running) do(t testing.TB, method, url, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: r.http, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{Response: resp, body: data}
}

// get asks for the eligibility of a customer, with a query.
func (r *running) get(t testing.TB, customer, query string, headers ...string) reply {
	t.Helper()
	return r.do(t, http.MethodGet, r.rest+"/v1/customers/"+customer+"/eligibility"+query, "", headers...)
}

// post asks about a batch.
func (r *running) post(t testing.TB, body string, headers ...string) reply {
	t.Helper()
	return r.do(t, http.MethodPost, r.rest+"/v1/customers:batchCheckEligibility", body, headers...)
}

// json reads the body as one JSON object.
func (r reply) json(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(r.body))
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("body is no JSON object: %v: %q", err, r.body)
	}
	return object
}

// restStatus is a google.rpc.Status as REST carries it.
type restStatus struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type            string          `json:"@type"`
		Reason          string          `json:"reason"`
		Domain          string          `json:"domain"`
		RetryDelay      string          `json:"retryDelay"`
		FieldViolations []restViolation `json:"fieldViolations"`
	} `json:"details"`
}

type restViolation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

func (r reply) status(t testing.TB) restStatus {
	t.Helper()
	var st restStatus
	if err := json.Unmarshal(r.body, &st); err != nil {
		t.Fatalf("body is no status: %v: %q", err, r.body)
	}
	return st
}

func (s restStatus) reason() string {
	for _, detail := range s.Details {
		if strings.HasSuffix(detail.Type, "ErrorInfo") {
			return detail.Reason
		}
	}
	return ""
}

func (s restStatus) fields() []string {
	var fields []string
	for _, detail := range s.Details {
		for _, violation := range detail.FieldViolations {
			fields = append(fields, violation.Field)
		}
	}
	return fields
}

// violations lists what was wrong, as "field: description".
func (s restStatus) violations() string {
	var all []string
	for _, detail := range s.Details {
		for _, violation := range detail.FieldViolations {
			all = append(all, violation.Field+": "+violation.Description)
		}
	}
	return strings.Join(all, "; ")
}

// startWarm starts a server that has fresh evidence for customerA and writes
// its log nowhere.
func startWarm(tb testing.TB, cfg ChainConfig) *running {
	tb.Helper()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	cfg.Logger = zap.New(zapcore.NewCore(encoder, zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	run := start(tb, setup{source: approved(), api: cfg})
	now := time.Now().Add(-time.Second)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, now)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{
		Qualifications: []eligibility.Qualification{{Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingApproved}},
	}, now)
	return run
}

// asked returns a function that asks about customerA as the gRPC server does
// between reading the request and writing the response, without a transport.
func (r *running) asked(segment eligibility.Segment) func(testing.TB) {
	info := &grpc.UnaryServerInfo{FullMethod: eligibilityv1.EligibilityService_CheckEligibility_FullMethodName}
	req := ask(customerA)
	if segment == eligibility.SegmentEducation {
		req.Segment = eligibilityv1.Segment_SEGMENT_EDUCATION
	}
	encode := NewCodec()
	handle := func(ctx context.Context, _ any) (any, error) { return r.chain.Answers().CheckEligibility(ctx, req) }
	ctx := context.Background()
	return func(tb testing.TB) {
		tb.Helper()
		resp, err := r.chain.Intercept(ctx, req, info, handle)
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := encode.Marshal(resp); err != nil {
			tb.Fatal(err)
		}
	}
}

// warm is a server that holds evidence of an age about customerA, and cannot
// get newer.
func warm(t *testing.T, age time.Duration) *running {
	t.Helper()
	run := start(t, setup{source: fails(eligibility.Error{Kind: eligibility.KindUnavailable})})
	at := time.Now().Add(-age)
	run.store.put(customerA, eligibility.FacetAccount, eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, at)
	run.store.put(customerA, eligibility.FacetQualifications, eligibility.Evidence{}, at)
	return run
}

// record returns the one record of the RPC that went before.
func (r *running) record(t *testing.T) map[string]any {
	t.Helper()
	for entry := range r.logged {
		if entry.Message == "rpc handled" {
			break
		}
	}
	records := slices.DeleteFunc(r.logs.TakeAll(), func(entry observer.LoggedEntry) bool { return entry.Message != "rpc handled" })
	if len(records) != 1 {
		t.Fatalf("%d records of one RPC", len(records))
	}
	fields := records[0].ContextMap()
	fields["level"] = records[0].Level
	return fields
}

// scrape returns the lines of /metrics that begin so.
func (r *running) scrape(t *testing.T, prefix string) []string {
	t.Helper()
	got := r.do(t, http.MethodGet, r.admin+"/metrics", "")
	if got.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %d", got.StatusCode)
	}
	var lines []string
	for line := range strings.Lines(string(got.body)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// ready says what /readyz says.
func (r *running) ready(t *testing.T) string {
	t.Helper()
	got := r.do(t, http.MethodGet, r.admin+"/readyz", "")
	return strings.TrimSpace(http.StatusText(got.StatusCode) + " " + string(got.body))
}

// open begins a request and returns once its header has arrived.
func (r *running) open(t *testing.T, ctx context.Context, path string) *http.Response { //nolint:revive // t first, as everywhere
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.rest+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: r.http}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}
