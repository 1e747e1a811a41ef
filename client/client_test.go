package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestTheZeroVerdictPermitsNoSale(t *testing.T) {
	t.Parallel()
	var v Verdict
	if v.Allowed() || v.Outcome() != Undecided || v.Err() == nil || v.Response() != nil || v.Reasons() != nil || !v.EvidenceTime().IsZero() || !v.RecheckTime().IsZero() {
		t.Errorf("%+v", v)
	}
}

// Nothing but a known decision about the customer that was asked about decides.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		asked    string
		response *eligibilityv1.CheckEligibilityResponse
		failure  *Error
		want     Outcome
	}{
		"allowed":                {contoso, allowed(contoso), nil, Allowed},
		"another form of the id": {" {" + strings.ToUpper(strings.ReplaceAll(contoso, "-", "")) + "}\t", allowed(contoso), nil, Allowed},
		"blocked":                {contoso, answer(contoso, eligibilityv1.Decision_DECISION_BLOCKED), nil, Blocked},
		"no answer":              {contoso, nil, nil, Undecided},
		"an empty answer":        {contoso, new(eligibilityv1.CheckEligibilityResponse), nil, Undecided},
		"no decision":            {contoso, answer(contoso, eligibilityv1.Decision_DECISION_UNSPECIFIED), nil, Undecided},
		"a newer decision":       {contoso, answer(contoso, 3), nil, Undecided},
		"another customer":       {contoso, allowed(fabrikam), nil, Undecided},
		"no customer":            {"", allowed(""), nil, Undecided},
		"an answer and an error": {contoso, allowed(contoso), invalid("no"), Undecided},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verdictOf(row.asked, row.response, row.failure)
			if v.Outcome() != row.want || v.Allowed() != (row.want == Allowed) || (v.Err() == nil) != (row.want != Undecided) || (v.Response() == nil) != (row.want == Undecided) {
				t.Errorf("%v, %v", v.Outcome(), v.Err())
			}
		})
	}
}

func TestWhatIsRetried(t *testing.T) {
	t.Parallel()
	const soon, late = time.Millisecond, time.Hour
	for name, row := range map[string]struct {
		failure error
		calls   int64
	}{
		"INVALID_ARGUMENT":    {refusal(codes.InvalidArgument, "INVALID_ARGUMENT"), 1},
		"UNAUTHENTICATED":     {refusal(codes.Unauthenticated, "UNAUTHENTICATED"), 1},
		"PERMISSION_DENIED":   {refusal(codes.PermissionDenied, "PERMISSION_DENIED"), 1},
		"CUSTOMER_NOT_FOUND":  {refusal(codes.NotFound, "CUSTOMER_NOT_FOUND"), 1},
		"CUSTOMER_NOT_SERVED": {refusal(codes.FailedPrecondition, "CUSTOMER_NOT_SERVED"), 1},
		"INTERNAL":            {refusal(codes.Internal, "INTERNAL"), 1},
		"credentials":         {refusal(codes.Unavailable, "PARTNER_CENTER_CREDENTIALS"), 1},
		"invalid response":    {refusal(codes.Unavailable, "PARTNER_CENTER_INVALID_RESPONSE"), 1},
		"unavailable":         {refusal(codes.Unavailable, "PARTNER_CENTER_UNAVAILABLE", soon), 2},
		"throttled":           {refusal(codes.Unavailable, "PARTNER_CENTER_THROTTLED", soon), 2},
		"overloaded":          {refusal(codes.ResourceExhausted, "OVERLOADED", soon), 2},
		"caller limited":      {refusal(codes.ResourceExhausted, "CALLER_LIMITED", soon), 2},
		"a shorter deadline":  {refusal(codes.DeadlineExceeded, "DEADLINE_EXCEEDED", soon), 2},
		"throttled for long":  {refusal(codes.Unavailable, "PARTNER_CENTER_THROTTLED", late), 1},
		"throttled for ever":  {refusal(codes.Unavailable, "PARTNER_CENTER_THROTTLED", math.MaxInt64), 1},
		"a negative pause":    {refusal(codes.ResourceExhausted, "OVERLOADED", -late), 2},
		"the way to it":       {status.Error(codes.Unavailable, "connection reset"), 2},
		"a proxy's reset":     {status.Error(codes.Canceled, "stream reset"), 2},
		"another server":      {status.Error(codes.Unimplemented, "no such method"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			c := dial(t, serve(t, far{check: func(_ context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
				if calls.Add(1) == 1 {
					return nil, row.failure
				}
				return allowed(request.GetCustomerId()), nil
			}}).address, Config{Timeout: patience})
			v := c.Check(t.Context(), Request{CustomerID: contoso})
			if calls.Load() != row.calls || v.Allowed() != (row.calls > 1) {
				t.Errorf("%d calls, %v, %v", calls.Load(), v.Outcome(), v.Err())
			}
			if row.calls > 1 {
				return
			}
			failure, _ := errors.AsType[*Error](v.Err())
			if failure == nil || failure.Code != status.Code(row.failure) || status.Code(v.Err()) != status.Code(row.failure) || failure.Reason == "" {
				t.Errorf("%+v", failure)
			}
		})
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	on := serve(t, far{check: func(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		calls.Add(1)
		return nil, status.Error(codes.Unavailable, "connection reset")
	}})
	for attempts, want := range map[int]int64{0: 6, 1: 1, 3: 3} {
		calls.Store(0)
		v := dial(t, on.address, Config{Attempts: attempts, Timeout: patience}).Check(t.Context(), Request{CustomerID: contoso})
		if v.Outcome() != Undecided || calls.Load() != want {
			t.Errorf("Attempts %d: %d calls, %v", attempts, calls.Load(), v.Outcome())
		}
	}
}

// A call that fails because its replica dies is made again at another one.
func TestACallOutlivesItsReplica(t *testing.T) {
	t.Parallel()
	asked := make(chan *replica, 1)
	var replicas [2]*replica
	var first sync.Once
	for i := range replicas {
		replicas[i] = serve(t, far{check: func(ctx context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
			dies := false
			first.Do(func() { dies = true })
			if dies {
				asked <- replicas[i]
				<-ctx.Done()
			}
			return allowed(request.GetCustomerId()), nil
		}})
	}
	c := dial(t, replicas[0].address+", "+replicas[1].address, Config{Timeout: patience})
	go func() { (<-asked).Stop() }()
	if v := c.Check(t.Context(), Request{CustomerID: contoso}); !v.Allowed() {
		t.Error(v.Err())
	}
}

// A replica that reports that it does not serve gets no calls.
func TestUnhealthyReplicasAreLeftOut(t *testing.T) {
	t.Parallel()
	var calls [2]atomic.Int64
	var replicas [2]*replica
	for i := range replicas {
		replicas[i] = serve(t, far{check: func(_ context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
			calls[i].Add(1)
			return allowed(request.GetCustomerId()), nil
		}})
	}
	replicas[0].report(healthv1.HealthCheckResponse_NOT_SERVING)
	c := dial(t, replicas[0].address+","+replicas[1].address, Config{Timeout: patience})
	ask := func() {
		if v := c.Check(t.Context(), Request{CustomerID: contoso}); !v.Allowed() {
			t.Fatal(v.Err())
		}
	}
	for range 50 {
		ask()
	}
	if calls[0].Load() != 0 || calls[1].Load() != 50 {
		t.Errorf("%d calls of the one that does not serve, %d of the other", calls[0].Load(), calls[1].Load())
	}
	replicas[0].report(healthv1.HealthCheckResponse_SERVING)
	for deadline := time.Now().Add(patience); calls[0].Load() == 0; {
		ask()
		if time.Now().After(deadline) {
			t.Fatal("a replica that serves again gets no calls")
		}
	}
}

// While no replica serves, calls wait for one in place of failing.
func TestCallsWaitForAReplica(t *testing.T) {
	t.Parallel()
	on := serve(t, far{check: func(_ context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		return allowed(request.GetCustomerId()), nil
	}})
	on.report(healthv1.HealthCheckResponse_NOT_SERVING)
	c := dial(t, on.address, Config{Attempts: 1, Timeout: patience})
	for state := c.conn.GetState(); state != connectivity.TransientFailure; state = c.conn.GetState() {
		c.conn.Connect()
		c.conn.WaitForStateChange(t.Context(), state)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if v := c.Check(ctx, Request{CustomerID: contoso}); status.Code(v.Err()) != codes.DeadlineExceeded {
		t.Error(v.Err())
	}
	on.report(healthv1.HealthCheckResponse_SERVING)
	if v := c.Check(t.Context(), Request{CustomerID: contoso}); !v.Allowed() {
		t.Error(v.Err())
	}
}

func TestDefaultsAndRequests(t *testing.T) {
	t.Parallel()
	type seen struct {
		request  *eligibilityv1.CheckEligibilityRequest
		left     time.Duration
		language []string
		agent    []string
	}
	requests := make(chan seen, 1)
	address := serve(t, far{check: func(ctx context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		deadline, _ := ctx.Deadline()
		sent, _ := metadata.FromIncomingContext(ctx)
		requests <- seen{request, time.Until(deadline), sent.Get("accept-language"), sent.Get("user-agent")}
		return allowed(request.GetCustomerId()), nil
	}}).address
	c := dial(t, address, Config{Language: "de"})
	at := time.Date(2026, 11, 28, 12, 0, 0, 5e6, time.UTC)
	if v := c.Check(t.Context(), Request{
		CustomerID: contoso, Segment: eligibilityv1.Segment_SEGMENT_EDUCATION, Operation: eligibilityv1.Operation_OPERATION_RENEWAL,
		Partner: "eu", MaxAge: new(time.Duration), MinEvidenceTime: at,
	}); !v.Allowed() {
		t.Fatal(v.Err())
	}
	got := <-requests
	if got.left <= 0 || got.left > 2*time.Second || len(got.language) != 1 || got.language[0] != "de" || !strings.HasPrefix(got.agent[0], "eligibilityd-client/") {
		t.Errorf("%+v", got)
	}
	if r := got.request; r.GetSegment() != eligibilityv1.Segment_SEGMENT_EDUCATION || r.GetOperation() != eligibilityv1.Operation_OPERATION_RENEWAL || r.GetPartner() != "eu" || r.GetMaxAge() == nil || r.GetMaxAge().AsDuration() != 0 || !r.GetMinEvidenceTime().AsTime().Equal(at) {
		t.Errorf("%v", r)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "accept-language", "fr"), time.Hour)
	defer cancel()
	if v := c.Check(ctx, Request{CustomerID: contoso}); !v.Allowed() {
		t.Fatal(v.Err())
	}
	got = <-requests
	if got.left < time.Minute || len(got.language) != 1 || got.language[0] != "fr" || got.request.GetMaxAge() != nil || got.request.GetMinEvidenceTime() != nil {
		t.Errorf("%+v", got)
	}
}

func TestImpossibleConfigurations(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		target string
		cfg    Config
	}{
		"plain text and TLS":         {"localhost:9090", Config{Insecure: true, TLS: new(tls.Config)}},
		"a token in plain text":      {"localhost:9090", Config{Insecure: true, Token: StaticToken("secret")}},
		"a negative timeout":         {"localhost:9090", Config{Timeout: -1}},
		"negative attempts":          {"localhost:9090", Config{Attempts: -1}},
		"a replica without a port":   {"localhost:9090,localhost", Config{}},
		"a target that is no target": {"dns://%zz/", Config{}},
	} {
		if c, err := New(row.target, row.cfg); err == nil {
			t.Errorf("%s is accepted", name)
			_ = c.Close()
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// securely returns options of a server with a certificate, and the configuration of a
// client that trusts it.
func securely(t *testing.T) (grpc.ServerOption, *tls.Config) {
	t.Helper()
	issuer := httptest.NewTLSServer(nil)
	t.Cleanup(issuer.Close)
	trusted := x509.NewCertPool()
	trusted.AddCert(issuer.Certificate())
	return grpc.Creds(credentials.NewServerTLSFromCert(&issuer.TLS.Certificates[0])), &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trusted}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	server, trusting := securely(t)
	sent := make(chan string, 1)
	address := serve(t, far{check: func(ctx context.Context, request *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		got, _ := metadata.FromIncomingContext(ctx)
		sent <- strings.Join(got.Get("authorization"), " and ")
		return allowed(request.GetCustomerId()), nil
	}}, server).address
	path := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := dial(t, address, Config{TLS: trusting, Token: TokenFile(path), Timeout: patience})
	for _, token := range []string{"first", "second"} {
		put("\ufeff " + token + "\r\n")
		if v := c.Check(t.Context(), Request{CustomerID: contoso}); !v.Allowed() {
			t.Fatal(v.Err())
		}
		if got := <-sent; got != "Bearer "+token {
			t.Errorf("sent %q", got)
		}
	}
	// A token that cannot be had fails the call at once, and not the health checks.
	broken := errors.New("the vault is away")
	for name, source := range map[string]func(context.Context) (string, error){
		"no file": TokenFile(path + "x"), "no token": StaticToken(""), "a line break": StaticToken("secret\n"),
		"no vault": func(context.Context) (string, error) { return "secret", broken },
	} {
		v := dial(t, address, Config{TLS: trusting, Token: source, Timeout: patience}).Check(t.Context(), Request{CustomerID: contoso})
		if status.Code(v.Err()) != codes.Unauthenticated || strings.Contains(v.Err().Error(), "secret") {
			t.Errorf("%s: %v", name, v.Err())
		}
	}
}

// Without Insecure, nothing is sent in plain text, and not to a server that is not
// trusted.
func TestPlainTextMustBeAskedFor(t *testing.T) {
	t.Parallel()
	server, _ := securely(t)
	for name, options := range map[string][]grpc.ServerOption{"plain text": nil, "another authority": {server}} {
		address := serve(t, far{check: func(context.Context, *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
			t.Errorf("%s: asked", name)
			return allowed(contoso), nil
		}}, options...).address
		c, err := New(address, Config{Timeout: 300 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		var v Verdict
		for deadline := time.Now().Add(patience); ; { // the error of a connection comes before that of a call, sooner or later
			v = c.Check(t.Context(), Request{CustomerID: contoso})
			if v.Outcome() != Undecided || strings.Contains(v.Err().Error(), "tls") || time.Now().After(deadline) {
				break
			}
		}
		if v.Outcome() != Undecided || !strings.Contains(v.Err().Error(), "tls") {
			t.Errorf("%s: %v", name, v.Err())
		}
		_ = c.Close()
	}
}

// A caller that leaves gets its own end, and no retry.
func TestACallerThatLeaves(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	var calls atomic.Int64
	c := dial(t, serve(t, far{check: func(ctx context.Context, _ *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
		calls.Add(1)
		leave()
		<-ctx.Done()
		return nil, ctx.Err()
	}}).address, Config{})
	v := c.Check(ctx, Request{CustomerID: contoso})
	if failure, _ := errors.AsType[*Error](v.Err()); failure == nil || failure.Reason != "CANCELLED" || calls.Load() != 1 {
		t.Errorf("%v after %d calls", v.Err(), calls.Load())
	}
}
