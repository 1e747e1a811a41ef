package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// Customers that the tests ask about.
const (
	customerA = "11111111-1111-4111-8111-111111111111"
	customerB = "22222222-2222-4222-8222-222222222222"
)

// source is an in-memory evidence.Source: a function.
type source func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error)

func (f source) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	query.Started()
	return f(ctx, query.CustomerID, query.Facet)
}

// says is a source that says the same of every customer.
func says(status eligibility.AccountStatus, word string, held ...eligibility.Qualification) source {
	return func(_ context.Context, _ eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		call := eligibility.Call{Attempts: 1, Status: 200, CorrelationID: "correlation", RequestID: "request"}
		if facet == eligibility.FacetQualifications {
			return eligibility.Evidence{Qualifications: held}, call, nil
		}
		return eligibility.Evidence{Status: status, StatusText: word, CorrelationID: "correlation"}, call, nil
	}
}

// fails is a source that fails the same way for every customer.
func fails(failure eligibility.Error) source {
	return func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return eligibility.Evidence{}, failure.Call, &failure
	}
}

// absent is a source that knows no customer.
func absent(why eligibility.Absence) source {
	return func(context.Context, eligibility.CustomerID, eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		return eligibility.Evidence{Absence: why}, eligibility.Call{}, nil
	}
}

// silent is a source that never answers.
func silent() source {
	return func(ctx context.Context, _ eligibility.CustomerID, _ eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		<-ctx.Done()
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindUnavailable, Err: ctx.Err()}
	}
}

// noticed tells started of each fetch that next makes.
func noticed(started chan<- struct{}, next source) source {
	return func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		started <- struct{}{}
		return next(ctx, id, facet)
	}
}

// store is an in-memory evidence.Store without a shared tier.
type store struct {
	mu     sync.Mutex
	held   map[eligibility.Key]*eligibility.Evidence
	broken bool // Peek panics
}

func (s *store) Peek(key eligibility.Key, _ time.Time) evidence.Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken {
		panic("store is broken")
	}
	return evidence.Found{Evidence: s.held[key], Tier: eligibility.TierLocal}
}

func (s *store) Load(_ context.Context, keys []eligibility.Key) []evidence.Found {
	return make([]evidence.Found, len(keys))
}

func (s *store) LoadWithin(ctx context.Context, keys []eligibility.Key) []evidence.Found {
	return s.Load(ctx, keys)
}

func (s *store) Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[key] = evidence
	return evidence
}

func (s *store) Acquire(context.Context, evidence.Claim) evidence.Acquisition {
	return evidence.Acquisition{}
}

func (s *store) Release(context.Context, eligibility.Key, error) {}

func (s *store) Share(context.Context, eligibility.Key, *eligibility.Evidence, time.Time) {}

// put keeps evidence as if it had been fetched at a time.
func (s *store) put(id string, facet eligibility.Facet, evidence eligibility.Evidence, at time.Time) {
	customer, err := eligibility.ParseCustomerID(id)
	if err != nil {
		panic(err)
	}
	evidence.Facet, evidence.FetchTime = facet, at
	s.Put(eligibility.Key{CustomerID: customer, Facet: facet}, &evidence)
}

// setup says what a test's server is made of; the zero value is a silent
// source and defaults, but for times that a busy machine could exceed.
type setup struct {
	source  source
	service evidence.Config
	api     ChainConfig
	server  Config
	tune    func(*Server) // before it serves

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
	if with.tune != nil {
		with.tune(run.server)
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
