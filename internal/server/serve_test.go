package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func TestHealthStartsNotServingAndFollowsTheServer(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	health := healthv1.NewHealthClient(run.Conn)
	services := []string{"", "eligibility.v1.EligibilityService"}
	watches := make(map[string]healthv1.Health_WatchClient)
	for _, service := range services {
		watch, err := health.Watch(t.Context(), &healthv1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		watches[service] = watch
	}
	verify := func(want healthv1.HealthCheckResponse_ServingStatus) {
		for _, service := range services {
			seen, err := watches[service].Recv()
			if err != nil || seen.GetStatus() != want {
				t.Errorf("watch of %q: %v, %v; want %v", service, seen, err, want)
			}
		}
	}
	check := func(want healthv1.HealthCheckResponse_ServingStatus) {
		for _, service := range services {
			got, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != want {
				t.Errorf("check of %q: %v, %v; want %v", service, got, err, want)
			}
		}
	}
	verify(healthv1.HealthCheckResponse_NOT_SERVING)
	check(healthv1.HealthCheckResponse_NOT_SERVING)
	if got := run.Ready(t); got != `Service Unavailable {"status":"starting"}` {
		t.Errorf("/readyz: %s", got)
	}

	run.Server.SetReady()
	verify(healthv1.HealthCheckResponse_SERVING)
	check(healthv1.HealthCheckResponse_SERVING)
	if got := run.Ready(t); got != `OK {"status":"ready"}` {
		t.Errorf("/readyz: %s", got)
	}
	if got := run.Do(t, http.MethodGet, run.Admin+"/healthz", ""); got.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %d", got.StatusCode)
	}
	if _, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "other"}); status.Code(err) != codes.NotFound {
		t.Errorf("check of an unknown service: %v", err)
	}

	begun := time.Now()
	run.Stop()
	verify(healthv1.HealthCheckResponse_NOT_SERVING)
	for _, service := range services {
		if _, err := watches[service].Recv(); err == nil {
			t.Errorf("the watch of %q goes on", service)
		}
	}
	if err := <-run.Ended; err != nil {
		t.Errorf("served until %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("watchers held the end up for %v", took)
	}
	run.Server.SetReady() // too late
	if !run.Server.Stopping() {
		t.Error("a server that has stopped became ready")
	}
	if records := run.Logs.FilterMessage("rpc handled").All(); len(records) != 0 {
		t.Errorf("health checks are logged: %v", records)
	}
}

func TestTheServerDescribesItself(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	stream, err := reflectionv1.NewServerReflectionClient(run.Conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	seen, err := stream.Recv()
	if err != nil || !strings.Contains(seen.String(), "eligibility.v1.EligibilityService") {
		t.Errorf("v1: %v, %v", seen, err)
	}
	older, err := reflectionv1alpha.NewServerReflectionClient(run.Conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := older.Send(&reflectionv1alpha.ServerReflectionRequest{ //nolint:staticcheck // older clients speak it
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	if seen, err := older.Recv(); err != nil || !strings.Contains(seen.String(), "eligibility.v1.EligibilityService") {
		t.Errorf("v1alpha: %v, %v", seen, err)
	}
}

func TestShutdownLetsRequestsInProgressEnd(t *testing.T) {
	t.Parallel()
	started, answer := make(chan struct{}, 4), make(chan struct{})
	run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		select {
		case <-answer:
		case <-ctx.Done():
		}
		return apitest.Approved()(ctx, id, facet)
	}), API: api.Config{DefaultTimeout: 20 * time.Second}})
	run.Server.SetReady()
	grpcAnswer, restAnswer := make(chan error), make(chan int)
	go func() {
		_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA))
		grpcAnswer <- err
	}()
	go func() { restAnswer <- run.Get(t, apitest.CustomerB, "").StatusCode }()
	for range 4 {
		<-started
	}
	run.Stop()
	for entry := range run.Logged {
		if entry.Message == "shutting down" {
			break
		}
	}
	close(answer)
	if err := <-grpcAnswer; err != nil {
		t.Errorf("over grpc: %v", err)
	}
	if code := <-restAnswer; code != http.StatusOK {
		t.Errorf("over rest: %d", code)
	}
	if err := <-run.Ended; err != nil {
		t.Errorf("served until %v", err)
	}
}

func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 4)
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Noticed(started, apitest.Silent()),
		API:    api.Config{DefaultTimeout: 20 * time.Second},
		Server: server.Config{ShutdownTimeout: 50 * time.Millisecond},
	})
	cut := make(chan error, 2)
	go func() {
		_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA))
		cut <- err
	}()
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, run.REST+"/v1/customers/"+apitest.CustomerB+"/eligibility", http.NoBody)
		if err != nil {
			cut <- err
			return
		}
		resp, err := run.HTTP.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		cut <- err
	}()
	for range 4 {
		<-started
	}
	begun := time.Now()
	run.Stop()
	err := <-run.Ended
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	for _, want := range []string{"stop http: ", "stop grpc: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	for range 2 {
		if err := <-cut; err == nil {
			t.Error("a request that could not be answered was")
		}
	}
}

// A slow call over one transport delays the end of the other by nothing: idle
// connections over gRPC get their GOAWAY although a call over REST is in progress,
// and the other way round.
func TestBothTransportsStopAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, slow := range []string{"rest", "grpc"} {
		t.Run("slow over "+slow, func(t *testing.T) {
			t.Parallel()
			started, answer := make(chan struct{}, 2), make(chan struct{})
			run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
				<-answer
				return apitest.Approved()(ctx, id, facet)
			}), Server: server.Config{ShutdownTimeout: time.Minute}})
			run.Server.SetReady()
			idle, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(run.REST, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = idle.Close() }()
			if _, err := io.WriteString(idle, "HEAD /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			idleReader := bufio.NewReader(idle)
			if _, err := http.ReadResponse(idleReader, &http.Request{Method: http.MethodHead}); err != nil { //nolint:bodyclose // HEAD has none
				t.Fatal(err)
			}
			if _, err := healthv1.NewHealthClient(run.Conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
				t.Fatal(err) // the connection over gRPC is up
			}
			ended := make(chan error, 1)
			if slow == "rest" {
				go func() {
					if got := run.Get(t, apitest.CustomerA, ""); got.StatusCode != http.StatusOK {
						ended <- errors.New(got.Status)
						return
					}
					ended <- nil
				}()
			} else {
				go func() {
					_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA))
					ended <- err
				}()
			}
			<-started
			<-started
			run.Stop()
			if slow == "rest" {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if !run.Conn.WaitForStateChange(ctx, connectivity.Ready) {
					t.Error("the connection over gRPC got no GOAWAY while a call over REST was in progress")
				}
			} else {
				_ = idle.SetReadDeadline(time.Now().Add(20 * time.Second))
				if _, err := idleReader.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("the connection over REST was not closed while an RPC was in progress: %v", err)
				}
			}
			close(answer)
			if err := <-ended; err != nil {
				t.Errorf("the slow call: %v", err)
			}
			if err := <-run.Ended; err != nil {
				t.Errorf("served until %v", err)
			}
		})
	}
}

// During the drain every response over REST ends its connection, also one to a
// request that came before.
func TestTheDrainClosesConnectionsOverREST(t *testing.T) {
	t.Parallel()
	started, answer := make(chan struct{}, 2), make(chan struct{})
	run := servertest.Start(t, servertest.Setup{Source: apitest.Noticed(started, func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		<-answer
		return apitest.Approved()(ctx, id, facet)
	}), Server: server.Config{DrainPause: time.Hour}})
	run.Server.SetReady()
	if got := run.Get(t, "no-guid", ""); got.Close {
		t.Error("a response before the drain ends its connection")
	}
	before := make(chan servertest.Reply, 1)
	go func() { before <- run.Get(t, apitest.CustomerA, "") }()
	<-started
	<-started
	run.Stop()
	for entry := range run.Logged {
		if entry.Message == "draining" {
			break
		}
	}
	close(answer)
	if got := <-before; got.StatusCode != http.StatusOK || !got.Close {
		t.Errorf("a request from before the drain: %s, close %v", got.Status, got.Close)
	}
	for _, path := range []string{"/v1/customers/no-guid/eligibility", "/v1/customers/" + apitest.CustomerA + "/eligibility", "/openapi.json", "/nothing"} {
		if got := run.Do(t, http.MethodGet, run.REST+path, ""); !got.Close {
			t.Errorf("%s: %s does not end its connection", path, got.Status)
		}
	}
	run.Server.EndDrain()
	if err := <-run.Ended; err != nil {
		t.Errorf("served until %v", err)
	}
}

func TestAServerThatWasNeverReadyDoesNotDrain(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Server: server.Config{DrainPause: time.Hour}})
	run.Stop()
	if err := <-run.Ended; err != nil {
		t.Errorf("served until %v", err)
	}
	if n := run.Logs.FilterMessage("draining").Len(); n != 0 {
		t.Error("it drained")
	}
}

func TestTheDrainPauseGoesOnServing(t *testing.T) {
	t.Parallel()
	const pause = 2 * time.Second // long enough for what follows, on a busy machine
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), Server: server.Config{DrainPause: pause}})
	run.Server.SetReady()
	begun := time.Now()
	run.Stop()
	for entry := range run.Logged {
		if entry.Message == "draining" {
			break
		}
	}
	if got := run.Ready(t); got != `Service Unavailable {"status":"stopping"}` {
		t.Errorf("/readyz: %s", got)
	}
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
		t.Errorf("over grpc: %v", err)
	}
	if got := run.Get(t, apitest.CustomerA, ""); got.StatusCode != http.StatusOK {
		t.Errorf("over rest: %d", got.StatusCode)
	}
	if err := <-run.Ended; err != nil || time.Since(begun) < pause {
		t.Errorf("ended after %v with %v", time.Since(begun), err)
	}
}

func TestAFailingListenerEndsTheServer(t *testing.T) {
	t.Parallel()
	for name, breaks := range map[string]func(*server.Listeners) net.Listener{
		"grpc":  func(l *server.Listeners) net.Listener { return l.GRPC },
		"http":  func(l *server.Listeners) net.Listener { return l.HTTP },
		"admin": func(l *server.Listeners) net.Listener { return l.Admin },
	} {
		built, err := newServer(t, server.Config{DrainPause: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		listeners := server.Listeners{GRPC: servertest.Listen(t), HTTP: servertest.Listen(t), Admin: servertest.Listen(t)}
		if err := breaks(&listeners).Close(); err != nil {
			t.Fatal(err)
		}
		if err := built.Serve(t.Context(), listeners); err == nil || !strings.Contains(err.Error(), "serve "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	built, err := newServer(t, server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := built.Serve(t.Context(), server.Listeners{}); err == nil {
		t.Error("served without listeners")
	}
}

func TestAnEndBeforeTheBeginningIsOrderly(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	end()
	for range 10 { // the servers race with their end
		built, err := newServer(t, server.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := built.Serve(ctx, server.Listeners{GRPC: servertest.Listen(t), HTTP: servertest.Listen(t), Admin: servertest.Listen(t)}); err != nil {
			t.Errorf("served until %v", err)
		}
	}
}

// newServer builds a server whose customers Partner Center is silent about.
func newServer(t *testing.T, cfg server.Config) (*server.Server, error) {
	t.Helper()
	chain, handler := newChain(t)
	return server.New(chain, handler, cfg)
}

func newChain(t *testing.T) (*api.Chain, *rest.Handler) {
	t.Helper()
	service, err := evidence.New(apitest.Silent(), &apitest.Store{}, evidence.Config{})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := api.New(servertest.Partners(t, service), api.Config{})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := rest.New(chain, rest.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return chain, handler
}

func TestWhatNewRefuses(t *testing.T) {
	t.Parallel()
	if _, err := server.New(nil, nil, server.Config{}); err == nil {
		t.Error("a server without a chain")
	}
	_, err := newServer(t, server.Config{DrainPause: -1, ShutdownTimeout: -1, FailureRecords: -1, Registerer: prometheus.NewRegistry()})
	for _, want := range []string{"drain pause", "shutdown timeout", "failure records", "registerer and gatherer"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	registry := prometheus.NewRegistry()
	for i := range 2 {
		_, err := newServer(t, server.Config{Registerer: registry, Gatherer: registry})
		if (err != nil) != (i == 1) {
			t.Errorf("server %d on one registry: %v", i, err)
		}
	}
}

// TestAMessageTooLargeForUsIsRefused holds the bound that grpc-go itself keeps;
// codec_test.go has ours, below it.
func TestAMessageTooLargeForUsIsRefused(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	_, err := run.Client.CheckEligibility(t.Context(), &eligibilityv1.CheckEligibilityRequest{CustomerId: strings.Repeat("x", 4<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

func TestAdminServesProfiles(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1"} {
		if got := run.Do(t, http.MethodGet, run.Admin+path, ""); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, got.StatusCode)
		}
		if got := run.Do(t, http.MethodGet, run.REST+path, ""); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s on the REST listener: %d", path, got.StatusCode)
		}
	}
}
