package server_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// corpusCustomer is whom a case asks about, busyCustomer whose answer never
	// comes.
	corpusCustomer = "0a0a0a0a-0a0a-4a0a-8a0a-0a0a0a0a0a0a"
	busyCustomer   = "0b0b0b0b-0b0b-4b0b-8b0b-0b0b0b0b0b0b"
	audience       = "https://api.partnercenter.microsoft.com"
)

// allWords are the reasons of decisions and of errors that the API can give.
func allWords() []string {
	words := []string{
		"INVALID_ARGUMENT", "CUSTOMER_NOT_FOUND", "CUSTOMER_NOT_SERVED", "PARTNER_CENTER_UNAVAILABLE", "PARTNER_CENTER_THROTTLED",
		"PARTNER_CENTER_CREDENTIALS", "PARTNER_CENTER_INVALID_RESPONSE", "OVERLOADED", "DEADLINE_EXCEEDED",
	}
	for number, name := range eligibilityv1.ReasonCode_name {
		if number != 0 {
			words = append(words, strings.TrimPrefix(name, "REASON_CODE_"))
		}
	}
	return words
}

// stack is the whole service in one process: simulator, client, store, domain
// and server, on real sockets.
type stack struct {
	client eligibilityv1.EligibilityServiceClient
	rest   string
	http   *http.Client
}

func newStack(t *testing.T, c *corpusCase) *stack {
	t.Helper()
	accounts, byDefault := c.Partners, c.DefaultPartner
	if accounts == nil {
		accounts = map[string]steps{api.DefaultPartner: c.Account}
	}
	services := make(map[string]*evidence.Service)
	var called <-chan struct{}
	for name, account := range accounts {
		own := *c
		own.Account = account
		var partnerCenter string
		partnerCenter, called = simulate(t, &own)
		services[name] = newService(t, c, partnerCenter)
	}
	partners, err := api.NewPartners(services, byDefault)
	if err != nil {
		t.Fatal(err)
	}
	// A busy machine must not run out of time unless the case wants it. The reserve
	// is also the time in which a client with a deadline reads the answer.
	cfg := api.Config{DefaultTimeout: 20 * time.Second, Reserve: 5 * time.Second}
	if c.Busy {
		cfg.MaxConcurrent = 1
	}
	s := serve(t, partners, cfg)
	if c.Busy {
		ctx, leave := context.WithCancel(t.Context())
		var occupying sync.WaitGroup
		occupying.Go(func() {
			_, _ = s.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: busyCustomer})
		})
		<-called
		t.Cleanup(func() {
			leave()
			occupying.Wait()
		})
	}
	return s
}

// simulate plays Partner Center in the case. The channel is closed at the
// first call for the busy customer.
func simulate(t *testing.T, c *corpusCase) (address string, called <-chan struct{}) {
	t.Helper()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	allowed := pcsim.Step{Status: "Allowed"}
	for _, customer := range []pcsim.Customer{
		{ID: corpusCustomer, Account: c.Account.script(allowed), Qualifications: c.Qualifications.script()},
		{ID: busyCustomer, Account: []pcsim.Step{{Failure: pcsim.FailureHang}}},
	} {
		if err := sim.SetCustomer(customer); err != nil {
			t.Fatal(err)
		}
	}
	if err := sim.ScriptTokens(c.Token.script()...); err != nil {
		t.Fatal(err)
	}
	reached := make(chan struct{})
	var once sync.Once
	handler := sim.Handler()
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, busyCustomer) {
			once.Do(func() { close(reached) })
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		sim.Close()
		listener.Close()
	})
	return listener.URL, reached
}

// newService builds the domain on the real client and the real store.
func newService(t *testing.T, c *corpusCase, partnerCenter string) *evidence.Service {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	calls, err := budget.New(budget.Config{PerMinute: c.BudgetPerMinute})
	if err != nil {
		t.Fatal(err)
	}
	cfg := pcclient.Config{
		Budget:  calls,
		BaseURL: partnerCenter, Authority: partnerCenter, Audience: audience,
		TenantID: pcsim.DefaultTenantID, ClientID: pcsim.DefaultClientID, ClientSecret: pcsim.DefaultClientSecret,
		RefreshTokenFile: filepath.Join(t.TempDir(), "refresh-token"),
		AttemptTimeout:   10 * time.Second,
		Transport:        transport,
	}
	if c.Flow == "app_only" {
		cfg.Flow = pcclient.FlowAppOnly
	}
	if err := os.WriteFile(cfg.RefreshTokenFile, []byte(pcsim.DefaultRefreshToken), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := pcclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	store, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	grace := c.Policy.QualificationsGrace
	if grace == 0 {
		grace = 10 * time.Second // the default is less than a busy machine may take
	}
	service, err := evidence.New(pcclient.NewSource(client), store, evidence.Config{
		Policy: eligibility.Policy{
			NotReadyAllowed:  c.Policy.NotReady == "allow",
			AllowReducing:    c.Policy.UnderReview == "allow_reducing",
			BlockUndecidable: c.Policy.WhenUndecidable == "block",
		},
		QualificationsGrace: grace,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = service.Run(ctx) })
	t.Cleanup(func() {
		end()
		running.Wait()
		client.Close()
		_ = store.Close()
	})
	return service
}

// serve puts the services of partners on sockets.
func serve(t testing.TB, partners api.Partners, cfg api.Config) *stack {
	t.Helper()
	chain, err := api.New(partners, cfg)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := rest.New(chain, rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	built, err := server.New(chain, handler, server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	listeners := server.Listeners{GRPC: Listen(t), HTTP: Listen(t), Admin: Listen(t)}
	conn, err := grpc.NewClient(listeners.GRPC.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = built.Serve(ctx, listeners) })
	t.Cleanup(func() {
		_ = conn.Close()
		transport.CloseIdleConnections()
		stop()
		running.Wait()
	})
	return &stack{
		client: eligibilityv1.NewEligibilityServiceClient(conn),
		rest:   "http://" + listeners.HTTP.Addr().String(),
		http:   &http.Client{Transport: transport},
	}
}

func Listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// questions is what the case asks in a batch; nil if it asks no batch.
func (c *corpusCase) questions() []question {
	switch {
	case c.Oversized:
		return make([]question, 1001)
	case c.Batch != nil:
		return *c.Batch
	default:
		return nil
	}
}

// id and since are the question's fields with what their absence means.
func (q question) id() string {
	if q.CustomerID == "" {
		return corpusCustomer
	}
	return q.CustomerID
}

func (q question) since() string {
	if q.MinEvidenceTime == "now" {
		return time.Now().UTC().Format(time.RFC3339Nano)
	}
	return q.MinEvidenceTime
}

// overGRPC asks the case over gRPC.
func (s *stack) overGRPC(t *testing.T, c *corpusCase) want {
	t.Helper()
	ctx := t.Context()
	if c.Deadline > 0 {
		bounded, cancel := context.WithTimeout(ctx, c.Deadline)
		defer cancel()
		ctx = bounded
	}
	if questions := c.questions(); questions != nil {
		batch := new(eligibilityv1.BatchCheckEligibilityRequest)
		for _, q := range questions {
			batch.Requests = append(batch.Requests, q.message(t))
		}
		resp, err := s.client.BatchCheckEligibility(ctx, batch)
		return seenBatch(resp, status.Convert(err))
	}
	resp, err := s.client.CheckEligibility(ctx, c.Request.message(t))
	return seenAnswer(t, resp, status.Convert(err))
}

// message is the question as a caller over gRPC sends it.
func (q question) message(t *testing.T) *eligibilityv1.CheckEligibilityRequest {
	t.Helper()
	message := &eligibilityv1.CheckEligibilityRequest{CustomerId: q.id()}
	if number, err := strconv.ParseInt(q.Segment, 10, 32); err == nil {
		message.Segment = eligibilityv1.Segment(number)
	} else if q.Segment != "" {
		message.Segment = eligibilityv1.Segment(eligibilityv1.Segment_value["SEGMENT_"+q.Segment])
	}
	message.Partner = q.Partner
	if number, err := strconv.ParseInt(q.Operation, 10, 32); err == nil {
		message.Operation = eligibilityv1.Operation(number)
	} else if q.Operation != "" {
		message.Operation = eligibilityv1.Operation(eligibilityv1.Operation_value["OPERATION_"+strings.ToUpper(q.Operation)])
	}
	if q.MaxAge != "" {
		age, err := time.ParseDuration(q.MaxAge)
		if err != nil {
			t.Fatal(err)
		}
		message.MaxAge = durationpb.New(age)
	}
	if q.MinEvidenceTime != "" {
		at, err := time.Parse(time.RFC3339Nano, q.since())
		if err != nil {
			t.Fatal(err)
		}
		message.MinEvidenceTime = timestamppb.New(at)
	}
	return message
}

// overREST asks the case over REST.
func (s *stack) overREST(t *testing.T, c *corpusCase) want {
	t.Helper()
	method, address, body := http.MethodGet, s.rest+"/v1/customers/"+url.PathEscape(c.Request.id())+"/eligibility", ""
	if questions := c.questions(); questions != nil {
		method, address = http.MethodPost, s.rest+"/v1/customers:batchCheckEligibility"
		var items []string
		for _, q := range questions {
			items = append(items, q.json())
		}
		body = `{"requests":[` + strings.Join(items, ",") + `]}`
	} else {
		query := make(url.Values)
		for name, value := range map[string]string{
			"segment": c.Request.Segment, "max_age": c.Request.MaxAge, "min_evidence_time": c.Request.since(),
			"partner": c.Request.Partner, "operation": c.Request.Operation,
		} {
			if value != "" {
				query.Set(name, value)
			}
		}
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if c.Deadline > 0 {
		req.Header.Set("Grpc-Timeout", strconv.FormatInt(c.Deadline.Milliseconds(), 10)+"m")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return seenREST(t, resp, data, method == http.MethodPost)
}

// json is the question as an item of a batch over REST.
func (q question) json() string {
	var members []string
	for _, member := range [][2]string{
		{"customerId", q.id()},
		{"segment", q.Segment},
		{"maxAge", q.MaxAge},
		{"minEvidenceTime", q.since()},
		{"partner", q.Partner},
		{"operation", q.Operation},
	} {
		switch name, value := member[0], member[1]; {
		case value == "":
		case (name == "segment" || name == "operation") && strings.Trim(value, "0123456789") == "":
			members = append(members, fmt.Sprintf("%q:%s", name, value))
		default:
			members = append(members, fmt.Sprintf("%q:%q", name, value))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}
