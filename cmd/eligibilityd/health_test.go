package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// healthServer answers health checks by check.
type healthServer struct {
	healthv1.UnimplementedHealthServer

	check func(context.Context) (healthv1.HealthCheckResponse_ServingStatus, error)
}

func (s healthServer) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	state, err := s.check(ctx)
	return &healthv1.HealthCheckResponse{Status: state}, err
}

func serveHealth(t *testing.T, server healthv1.HealthServer, options ...grpc.ServerOption) (address string) {
	t.Helper()
	return serveService(t, func(to *grpc.Server) { healthv1.RegisterHealthServer(to, server) }, options...)
}

// answersHealth returns the address of a server that answers each health check alike.
func answersHealth(t *testing.T, state healthv1.HealthCheckResponse_ServingStatus, err error) (address string) {
	t.Helper()
	return serveHealth(t, healthServer{check: func(context.Context) (healthv1.HealthCheckResponse_ServingStatus, error) { return state, err }})
}

func TestHealthOfAServiceThatServes(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, _, pair := ca.issue("server", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"gate.example"} })
	cert, key, _ := ca.issue("client", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(secretToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mutual := serveHealth(t, grpchealth.NewServer(), bearer(func() string { return secretToken }), grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})))
	guarded, guardedCA, _ := startGuarded(t)
	for name, args := range map[string][]string{
		"plain text":                   {"--address", startDev(t).GRPC},
		"one service":                  {"--address", startDev(t).GRPC, "--service", "eligibility.v1.EligibilityService"},
		"TLS, and callers have tokens": {"--address", guarded.GRPC, "--ca-file", guardedCA},
		"client certificate and token": {"--address", mutual, "--ca-file", ca.file, "--server-name", "gate.example", "--cert-file", cert, "--key-file", key, "--token-file", token},
		"token in plain text":          {"--address", serveHealth(t, grpchealth.NewServer(), bearer(func() string { return secretToken })), "--token-file", token},
	} {
		var code int
		var out, errOut string
		eventually(t, "an answer but NOT_SERVING", func() bool { // it listens before it is ready
			code, out, errOut = runCommand(t, "", append([]string{"health"}, args...)...)
			return !strings.Contains(errOut, "NOT_SERVING")
		})
		if code != 0 || out != "SERVING\n" || errOut != "" {
			t.Errorf("%s: exit code %d, %s%s", name, code, out, errOut)
		}
	}
}

// Everything but SERVING is exit code 1 and one sentence: Docker reserves 2.
func TestHealthOfAServiceThatDoesNotServe(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, _, pair := ca.issue("server", nil)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(secretToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dev := startDev(t)
	ends := make(chan struct{})
	t.Cleanup(func() { close(ends) })
	hanging := serveHealth(t, healthServer{check: func(context.Context) (healthv1.HealthCheckResponse_ServingStatus, error) {
		<-ends // and not when the call's time is over, which may be earlier here than at the caller
		return healthv1.HealthCheckResponse_SERVING, nil
	}})
	shutDown := grpchealth.NewServer()
	shutDown.Shutdown()
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"shutting down":            {[]string{"--address", serveHealth(t, shutDown)}, "NOT_SERVING: it is starting or shutting down"},
		"a state of the future":    {[]string{"--address", answersHealth(t, 42, nil)}, "it answers 42, not SERVING"},
		"no state":                 {[]string{"--address", answersHealth(t, 0, nil)}, "it answers UNKNOWN, not SERVING"},
		"unknown service":          {[]string{"--address", dev.GRPC, "--service", "eligibility.v2.EligibilityService"}, `no service "eligibility.v2.EligibilityService"; leave out --service`},
		"hostile name":             {[]string{"--address", dev.GRPC, "--service", "a\x1b[2J\nb"}, `no service "a\x1b[2J\nb"`},
		"name that is no text":     {[]string{"--address", dev.GRPC, "--service", "\xff"}, "UTF-8"},
		"nobody listens":           {[]string{"--address", "127.0.0.1:1"}, "refused"},
		"no such host":             {[]string{"--address", "nobody.invalid:9090"}, "resolved"},
		"accepts and hangs":        {[]string{"--address", serveRaw(t, nil, false), "--timeout", "100ms"}, "does not answer"},
		"hangs over TLS":           {[]string{"--address", serveRaw(t, nil, false), "--timeout", "100ms", "--tls"}, "does not answer"},
		"hangs in the call":        {[]string{"--address", hanging, "--timeout", "2s"}, "no answer within 2s"},
		"closes at once":           {[]string{"--address", serveRaw(t, nil, true)}, "closes the connection"},
		"REST port":                {[]string{"--address", dev.HTTP}, "REST port"},
		"it has TLS, we do not":    {[]string{"--address", serveHealth(t, grpchealth.NewServer(), grpc.Creds(credentials.NewServerTLSFromCert(&pair)))}, "--ca-file"},
		"we have TLS, it does not": {[]string{"--address", dev.GRPC, "--tls"}, "no TLS"},
		"another authority":        {[]string{"--address", serveHealth(t, grpchealth.NewServer(), grpc.Creds(credentials.NewServerTLSFromCert(&pair))), "--ca-file", newAuthority(t).file}, "--ca-file"},
		"no health service":        {[]string{"--address", serveGRPC(t, willing())}, "no eligibilityd"},
		"token refused":            {[]string{"--address", answersHealth(t, 0, status.Error(codes.Unauthenticated, "m")), "--token-file", token}, "does not accept the token"},
		"hostile error":            {[]string{"--address", answersHealth(t, 0, status.Error(codes.Internal, "\x1b[2J\n"+strings.Repeat("x", 5000)))}, `Internal: \x1b[2J\nxx`},
		"unknown flag":             {[]string{"--adress", dev.GRPC}, "unknown flag: --adress; see eligibilityd health --help"},
		"argument":                 {[]string{dev.GRPC}, "unknown command"},
		"no port":                  {[]string{"--address", "gate.example"}, "write --address gate.example:9090"},
		"token to another machine": {[]string{"--address", "gate.example:9090", "--token-file", token}, "add --tls"},
		"no timeout":               {[]string{"--address", dev.GRPC, "--timeout", "0"}, "--timeout must be more than 0"},
		"no token file":            {[]string{"--address", dev.GRPC, "--token-file", token + ".none"}, "--token-file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errOut := runCommand(t, "", append([]string{"health"}, row.args...)...)
			if code != exitFailure || out != "" || !strings.Contains(errOut, row.want) {
				t.Errorf("exit code %d, %s%s, want %q", code, out, errOut, row.want)
			}
			if strings.Count(errOut, "\n") != 1 || len(errOut) > 400 || strings.Contains(errOut, "rpc error") || strings.Contains(errOut, secretToken) {
				t.Errorf("not one sentence of ours: %s", errOut)
			}
		})
	}
}

// A caller who is interrupted gets no answer, and does not wait for the timeout.
func TestHealthEndsIfInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	address := serveHealth(t, healthServer{check: func(ctx context.Context) (healthv1.HealthCheckResponse_ServingStatus, error) {
		cancel()
		<-ctx.Done()
		return healthv1.HealthCheckResponse_SERVING, nil
	}})
	root := newRootCommand()
	root.SetArgs([]string{"health", "--address", address, "--timeout", time.Hour.String()})
	var printed output
	root.SetOut(&printed)
	root.SetErr(&printed)
	if code := run(ctx, root); code != exitFailure || !strings.Contains(printed.String(), "Canceled") {
		t.Errorf("exit code %d, %s", code, printed.String())
	}
}
