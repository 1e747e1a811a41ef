package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// bound is how long anything here may take on a busy machine.
const bound = 30 * time.Second

// preface is how a client over HTTP/2 begins, with empty settings.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// held answers once answer is closed.
func held(answer <-chan struct{}) apitest.Source {
	return func(ctx context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
		select {
		case <-answer:
		case <-ctx.Done():
		}
		return apitest.Approved()(ctx, id, facet)
	}
}

func connect(t *testing.T, address string, cfg *tls.Config) net.Conn {
	t.Helper()
	var conn net.Conn
	var err error
	if cfg == nil {
		conn, err = new(net.Dialer).DialContext(t.Context(), "tcp", address)
	} else {
		conn, err = (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", address)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ends returns when the server has closed conn, and for how long it was open.
func ends(t *testing.T, conn net.Conn) time.Duration {
	t.Helper()
	begun := time.Now()
	_ = conn.SetReadDeadline(begun.Add(bound))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was open for %v", bound)
	}
	return time.Since(begun)
}

// A connection that does not send its first request in time is closed, at whatever
// point it stops; one that has sent it is not.
func TestConnectionsWithoutARequestAreClosed(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Second
	authority := accesstest.NewAuthority(t)
	h2 := authority.ClientTLS(nil)
	h2.NextProtos = []string{"h2"}
	limits := server.Limits{FirstRequest: within}
	plain := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), Server: server.Config{Limits: limits}})
	secure := servertest.Start(t, servertest.Setup{
		Source: apitest.Approved(), Server: server.Config{Limits: limits, TLS: serverTLS(t, authority)}, ClientTLS: authority.ClientTLS(nil),
	})
	for name, row := range map[string]struct {
		address string
		cfg     *tls.Config
		sends   string
		drips   string // again and again
	}{
		"grpc, nothing":                {hosts(plain)["grpc"], nil, "", ""},
		"grpc, a preface":              {hosts(plain)["grpc"], nil, preface, ""},
		"grpc, settings":               {hosts(plain)["grpc"], nil, preface, "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		"grpc, a header that drips":    {hosts(plain)["grpc"], nil, preface + "\x00\x00\x00\x01\x00\x00\x00\x00\x01", "\x00\x00\x00\x09\x00\x00\x00\x00\x01"},
		"rest, nothing":                {hosts(plain)["rest"], nil, "", ""},
		"rest, a header that drips":    {hosts(plain)["rest"], nil, "GET /docs HTTP/1.1\r\nHost: localhost\r\n", "A: b\r\n"},
		"grpc, no handshake":           {hosts(secure)["grpc"], nil, "", ""},
		"grpc, half a handshake":       {hosts(secure)["grpc"], nil, "\x16\x03\x01", ""},
		"grpc, a secure preface":       {hosts(secure)["grpc"], h2, preface, ""},
		"rest, no handshake":           {hosts(secure)["rest"], nil, "", ""},
		"rest, a handshake":            {hosts(secure)["rest"], authority.ClientTLS(nil), "", ""},
		"rest, a preface":              {hosts(secure)["rest"], h2, preface, ""},
		"rest, settings":               {hosts(secure)["rest"], h2, preface, "\x00\x00\x00\x04\x00\x00\x00\x00\x00"},
		"rest, an h2 header that drip": {hosts(secure)["rest"], h2, preface + "\x00\x00\x00\x01\x00\x00\x00\x00\x01", "\x00\x00\x00\x09\x00\x00\x00\x00\x01"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			conn := connect(t, row.address, row.cfg)
			_, _ = io.WriteString(conn, row.sends)
			if row.drips != "" {
				go func() {
					ticker := time.NewTicker(100 * time.Millisecond)
					defer ticker.Stop()
					for range ticker.C {
						if _, err := io.WriteString(conn, row.drips); err != nil {
							return
						}
					}
				}()
			}
			ends(t, conn)
			if took := time.Since(begun); took > within+bound/2 {
				t.Errorf("it was open for %v", took)
			}
		})
	}
	// Connections that have sent a request stay.
	for _, run := range []*servertest.Running{plain, secure} {
		if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*within, func() { run.Server.SetReady() }) // seen by the watch below, long after
		watch, err := healthv1.NewHealthClient(run.Conn).Watch(t.Context(), new(healthv1.HealthCheckRequest))
		for range 2 {
			if err == nil {
				_, err = watch.Recv()
			}
		}
		if err != nil || run.Conn.GetState() != connectivity.Ready {
			t.Errorf("a connection with a request: %v, %v", err, run.Conn.GetState())
		}
	}
}

func TestOldConnectionsAreAskedToClose(t *testing.T) {
	t.Parallel()
	const age, grace = time.Second, 2 * time.Second
	authority := accesstest.NewAuthority(t)
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Approved(), ClientTLS: authority.ClientTLS(nil),
		Server: server.Config{TLS: serverTLS(t, authority), Limits: server.Limits{ConnectionAge: age, ConnectionGrace: grace, FirstRequest: 4 * time.Second}},
	})
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
		t.Fatal(err)
	}
	if !run.Conn.WaitForStateChange(t.Context(), connectivity.Ready) {
		t.Error("the connection over grpc got no GOAWAY")
	}
	// HTTP/1.1: the response after the age has Connection: close, none before.
	conn := connect(t, hosts(run)["rest"], authority.ClientTLS(nil))
	begun, reader := time.Now(), bufio.NewReader(conn)
	for {
		sent := time.Now()
		if _, err := io.WriteString(conn, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.Close {
			if time.Since(begun) < age*9/10-100*time.Millisecond {
				t.Errorf("asked to close after %v", time.Since(begun))
			}
			break
		}
		if sent.Sub(begun) > age*11/10+bound/2 {
			t.Fatal("never asked to close")
		}
	}
	ends(t, conn)
	// HTTP/2: a GOAWAY, so that the client opens another connection.
	ports := make(map[string]bool)
	for deadline := time.Now().Add(bound); len(ports) < 2 && time.Now().Before(deadline); {
		got := run.Do(t, http.MethodGet, run.REST+"/nothing", "")
		if got.ProtoMajor != 2 {
			t.Fatal(got.Proto)
		}
		for _, line := range run.Scrape(t, `eligibility_connections{listener="http"}`) {
			ports[line] = true
		}
		if strings.HasSuffix(run.Scrape(t, `eligibility_connections{listener="http"}`)[0], " 2") {
			break // the old one, which is ending, and the new one
		}
	}
	if len(ports) < 2 {
		t.Error("the client over h2 opened no other connection")
	}
	// Without a request, it is closed after the grace.
	idle := connect(t, hosts(run)["rest"], authority.ClientTLS(nil))
	if _, err := io.WriteString(idle, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	ends(t, idle)
}

func TestLimitsOfConnectionsAndHeaders(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), Server: server.Config{
		Limits: server.Limits{Connections: 3, Together: 4, Idle: time.Second, HeaderBytes: 1024},
	}})
	// Three over REST, and one of four for gRPC: the next of both are closed at once.
	address := hosts(run)
	var open []net.Conn
	for range 3 {
		conn := connect(t, address["rest"], nil)
		if _, err := io.WriteString(conn, "GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(conn).ReadByte(); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	if took := ends(t, connect(t, address["rest"], nil)); took > bound/2 {
		t.Errorf("a connection too many was open for %v", took)
	}
	first := connect(t, address["grpc"], nil)
	if _, err := first.Read(make([]byte, 1)); err != nil { // the server's settings
		t.Errorf("gRPC has no room: %v", err)
	}
	if n, err := connect(t, address["grpc"], nil).Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("gRPC and REST have five connections together, want four")
	}
	for _, line := range []string{
		`eligibility_connections{listener="grpc"} 1`, `eligibility_connections{listener="http"} 3`,
		`eligibility_connections_refused_total{listener="grpc"} 1`, `eligibility_connections_refused_total{listener="http"} 1`,
	} {
		if got := run.Scrape(t, line); len(got) != 1 {
			t.Errorf("no metric %s", line)
		}
	}
	for _, conn := range open { // they are idle
		ends(t, conn)
	}
	_ = first.Close()
	for len(run.Scrape(t, `eligibility_connections{listener="grpc"} 0`)) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the connection stays counted")
		}
	}
	large := connect(t, address["rest"], nil)
	if _, err := io.WriteString(large, "GET /nothing HTTP/1.1\r\nHost: localhost\r\nX-Large: "+strings.Repeat("x", 5<<10)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(large).ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("a large header over rest: %q, %v", line, err)
	}
	huge := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", 2<<10))
	if _, err := healthv1.NewHealthClient(run.Conn).Check(huge, new(healthv1.HealthCheckRequest)); err == nil {
		t.Error("a large header over grpc is read")
	}
	if _, err := healthv1.NewHealthClient(run.Conn).Check(t.Context(), new(healthv1.HealthCheckRequest)); err != nil {
		t.Errorf("a small header: %v", err)
	}
}

// Probes and operators are answered although gRPC, REST and their own listener are
// full.
func TestProbesAreAnsweredWhateverOthersDo(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Server: server.Config{Limits: server.Limits{Connections: 2}}})
	address := hosts(run)
	for _, full := range []string{address["grpc"], address["rest"], strings.TrimPrefix(run.Probe, "http://"), strings.TrimPrefix(run.Admin, "http://")} {
		for range 100 {
			connect(t, full, nil)
		}
	}
	for _, base := range []string{run.Probe, run.Admin} {
		for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/metrics": 200} {
			if got := run.Do(t, http.MethodGet, base+path, ""); got.StatusCode != want {
				t.Errorf("%s: %s", path, got.Status)
			}
			if got := run.Do(t, http.MethodHead, base+path, ""); got.StatusCode != want {
				t.Errorf("HEAD %s: %s", path, got.Status)
			}
		}
	}
	if got := run.Scrape(t, `eligibility_connections{listener="probe"}`); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestTheProbeListenerServesNothingElse(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	for _, path := range []string{"/", "/debug/pprof/", "/debug/pprof/heap", "/docs", "/openapi.json", "/v1/customers/" + apitest.CustomerA + "/eligibility"} {
		if got := run.Do(t, http.MethodGet, run.Probe+path, ""); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, got.Status)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace} {
			if got := run.Do(t, method, run.Probe+path, ""); got.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %s", method, path, got.Status)
			}
		}
	}
}

// A request in progress on an old connection gets the grace from its own start.
func TestAnOldConnectionIsNotCutUnderAYoungRequest(t *testing.T) {
	t.Parallel()
	started, answer := make(chan struct{}, 2), make(chan struct{})
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Noticed(started, held(answer)),
		Server: server.Config{Limits: server.Limits{ConnectionAge: 3 * time.Second, ConnectionGrace: 12 * time.Second, FirstRequest: 5 * time.Second}},
	})
	conn := connect(t, hosts(run)["rest"], nil)
	begun, reader := time.Now(), bufio.NewReader(conn)
	ask := func(path string) (*http.Response, error) {
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return nil, err
		}
		return http.ReadResponse(reader, nil)
	}
	resp, err := ask("/nothing")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	// It begins when the connection is old, and ends after the connection's grace. A busy
	// machine has 5 s until it would be cut itself.
	<-time.After(time.Until(begun.Add(10 * time.Second)))
	time.AfterFunc(time.Until(begun.Add(16*time.Second)), func() { close(answer) })
	resp, err = ask("/v1/customers/" + apitest.CustomerA + "/eligibility")
	if err != nil {
		t.Fatalf("cut: %v", err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%s, close %v, %v", resp.Status, resp.Close, err)
	}
	_ = resp.Body.Close()
}

func TestAStreamTooManyWaitsForAnother(t *testing.T) {
	t.Parallel()
	started, answer := make(chan struct{}, 64), make(chan struct{})
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Noticed(started, held(answer)), Server: server.Config{Limits: server.Limits{StreamsPerConnection: 2}},
	})
	done := make(chan error, 3)
	for _, customer := range []string{apitest.CustomerA, apitest.CustomerB} {
		go func() {
			_, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(customer))
			done <- err
		}()
	}
	for range 4 {
		<-started
	}
	go func() {
		_, err := healthv1.NewHealthClient(run.Conn).Check(t.Context(), new(healthv1.HealthCheckRequest))
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("a third call did not wait: %v", status.Code(err))
	case <-time.After(100 * time.Millisecond):
	}
	close(answer)
	for range 3 {
		if err := <-done; status.Code(err) != codes.OK {
			t.Error(err)
		}
	}
}
