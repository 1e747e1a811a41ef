package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// authority issues certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string // PEM of cert
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.key = key
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes a certificate, which change may alter before it is signed, and its
// key.
func (a *authority) issue(name string, change func(*x509.Certificate)) (certFile, keyFile string, pair tls.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = a.write(name+".pem", "CERTIFICATE", der), a.write(name+"-key.pem", "PRIVATE KEY", private)
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		a.t.Fatal(err)
	}
	return certFile, keyFile, pair
}

// serveTLS serves batches over TLS.
func serveTLS(t *testing.T, cfg *tls.Config, batches batchServer) (address string) {
	t.Helper()
	return serveGRPC(t, batches, grpc.Creds(credentials.NewTLS(cfg)))
}

func serveGRPC(t *testing.T, batches batchServer, options ...grpc.ServerOption) (address string) {
	t.Helper()
	return serveService(t, func(to *grpc.Server) { eligibilityv1.RegisterEligibilityServiceServer(to, batches) }, options...)
}

// serveService serves what register registers.
func serveService(t *testing.T, register func(to *grpc.Server), options ...grpc.ServerOption) (address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	register(server)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func willing() batchServer { return batchServer{fault: func() error { return nil }} }

// serveRaw answers each connection with these bytes, or not at all if they are nil,
// and closes it when the client does.
func serveRaw(t *testing.T, answer []byte, closes bool) (address string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = conn.Write(answer)
				for buf := make([]byte, 512); !closes; {
					if _, err := conn.Read(buf); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	return listener.Addr().String()
}

func withReason(t *testing.T, code codes.Code, info *errdetails.ErrorInfo) error {
	t.Helper()
	st, err := status.New(code, "m").WithDetails(info)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

// secretToken is what must not be printed.
const secretToken = "secret-0123456789-0123456789-0123456789"

// Every way in which a connection or its credentials can be wrong is one sentence
// with what to do.
func TestCheckExplainsWhyItHasNoAnswer(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	_, _, pair := ca.issue("server", nil)
	_, _, expired := ca.issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	_, _, elsewhere := ca.issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"gate.example"} })
	_, _, nameless := ca.issue("nameless", func(c *x509.Certificate) { c.IPAddresses = nil })
	_, _, forClients := ca.issue("forclients", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	ours, ourKey, _ := ca.issue("ours", nil)
	foreign, foreignKey, _ := other.issue("foreign", nil)
	past, pastKey, _ := ca.issue("past", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	over := func(cert tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{cert}} }
	mutual := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, willing())
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(secretToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	notFound := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
	})
	restTLS := func(h2 bool) string {
		rest := httptest.NewUnstartedServer(notFound)
		rest.TLS, rest.EnableHTTP2 = over(pair), h2
		rest.StartTLS()
		t.Cleanup(rest.Close)
		return rest.Listener.Addr().String()
	}
	plain := startDev(t)
	refusing := func(err error) string {
		return serveBatches(t, func() error { return err })
	}
	unauthenticated := refusing(withReason(t, codes.Unauthenticated, &errdetails.ErrorInfo{Reason: "UNAUTHENTICATED", Domain: "eligibility"}))
	for name, row := range map[string]struct {
		address string
		args    []string
		want    []string
	}{
		"nobody listens":               {address: "127.0.0.1:1", want: []string{"refused", "start the service", "--address"}},
		"no such host":                 {address: "nobody.invalid:9090", want: []string{"resolved", "--address"}},
		"REST port":                    {address: plain.HTTP, want: []string{"REST port", "9090"}},
		"admin port":                   {address: plain.Admin, want: []string{"REST port", "9090"}},
		"REST port, over TLS":          {address: restTLS(true), args: []string{"--ca-file", ca.file}, want: []string{"REST port"}},
		"HTTP/1 server, over TLS":      {address: restTLS(false), args: []string{"--ca-file", ca.file}, want: []string{"REST port"}},
		"REST port has TLS, we do not": {address: restTLS(true), want: []string{"TLS", "--tls", "--ca-file"}},
		"TLS to the plain REST port":   {address: plain.HTTP, args: []string{"--tls"}, want: []string{"REST port"}},
		"it has TLS, we do not":        {address: serveTLS(t, over(pair), willing()), want: []string{"expects TLS", "--tls", "--ca-file"}},
		"we have TLS, it does not":     {address: plain.GRPC, args: []string{"--tls"}, want: []string{"no TLS", "server.tls", "--tls"}},
		"unknown authority":            {address: serveTLS(t, over(pair), willing()), args: []string{"--tls"}, want: []string{"authority", "--ca-file"}},
		"another authority":            {address: serveTLS(t, over(pair), willing()), args: []string{"--ca-file", other.file}, want: []string{"authority", "--ca-file"}},
		"another name":                 {address: serveTLS(t, over(elsewhere), willing()), args: []string{"--ca-file", ca.file}, want: []string{`"gate.example"`, `"127.0.0.1"`, "--server-name"}},
		"no name":                      {address: serveTLS(t, over(nameless), willing()), args: []string{"--ca-file", ca.file}, want: []string{"SAN"}},
		"expired":                      {address: serveTLS(t, over(expired), willing()), args: []string{"--ca-file", ca.file}, want: []string{expired.Leaf.NotAfter.UTC().Format(time.DateTime), "clock", "renew"}},
		"a certificate for clients":    {address: serveTLS(t, over(forClients), willing()), args: []string{"--ca-file", ca.file}, want: []string{"serverAuth"}},
		"certificate required":         {address: mutual, args: []string{"--ca-file", ca.file}, want: []string{"requires a client certificate", "--cert-file", "--key-file"}},
		"certificate of another":       {address: mutual, args: []string{"--ca-file", ca.file, "--cert-file", foreign, "--key-file", foreignKey}, want: []string{"client_ca_file"}},
		"certificate that has expired": {address: mutual, args: []string{"--ca-file", ca.file, "--cert-file", past, "--key-file", pastKey}, want: []string{"--cert-file", "expired"}},
		"no credentials":               {address: unauthenticated, want: []string{"requires credentials", "--token-file"}},
		"bad token":                    {address: unauthenticated, args: []string{"--token-file", token}, want: []string{"does not accept the token", "--token-file"}},
		"certificate of nobody": {
			address: serveTLS(t, over(pair), batchServer{fault: func() error { return status.Error(codes.Unauthenticated, "m") }}),
			args:    []string{"--ca-file", ca.file, "--cert-file", ours, "--key-file", ourKey}, want: []string{"auth.certificates"},
		},
		"without the right": {
			address: refusing(withReason(t, codes.PermissionDenied, &errdetails.ErrorInfo{Reason: "PERMISSION_DENIED", Domain: "eligibility", Metadata: map[string]string{"right": "batch"}})),
			want:    []string{`"batch"`, "auth.callers"},
		},
		"another gRPC service": {address: refusing(status.Error(codes.Unimplemented, "unknown service")), want: []string{"no eligibilityd"}},
		"silence":              {address: serveRaw(t, nil, false), args: []string{"--timeout", "1s"}, want: []string{"does not answer", "--address"}},
		"silence over TLS":     {address: serveRaw(t, nil, false), args: []string{"--timeout", "1s", "--tls"}, want: []string{"does not answer", "--address"}},
		"closed at once":       {address: serveRaw(t, nil, true), want: []string{"closes the connection", "server.grpc"}},
		"a TLS alert":          {address: serveRaw(t, []byte("\x15\x03\x03\x00\x02\x02\x46"), false), want: []string{"--tls"}},
		"garbage over TLS":     {address: serveRaw(t, []byte("220 mail.example ESMTP\r\n"), false), args: []string{"--tls"}, want: []string{"no TLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"check", "--address", row.address}, row.args...)
			code, out, errOut := runCommand(t, strings.Repeat(allowedID+"\n", 150), append(args, "--json", "--retry-for", "0", "-")...)
			if code != exitUndecided || strings.Count(out, "\n") != 150 {
				t.Errorf("exit code %d, %d lines", code, strings.Count(out, "\n"))
			}
			for _, want := range append(row.want, row.address+": 150 of 150 customers were not answered: ") {
				if !strings.Contains(errOut, want) {
					t.Errorf("no %q in: %s", want, errOut)
				}
			}
			if strings.Count(errOut, "\n") != 1 || strings.Contains(errOut, "rpc error") || strings.Contains(errOut+out, secretToken) {
				t.Errorf("not one sentence of ours: %s", errOut)
			}
		})
	}
}

// What is wrong with flags and their files is reported before any connection.
func TestCheckExplainsWrongFlags(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key, _ := ca.issue("client", nil)
	_, otherKey, _ := ca.issue("other", nil)
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file(secretToken)
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"no port":             {[]string{"--address", "gate.example"}, "write --address gate.example:9090"},
		"no port, IPv6":       {[]string{"--address", "::1"}, "write --address [::1]:9090"},
		"no port, brackets":   {[]string{"--address", "[::1]"}, "write --address [::1]:9090"},
		"scheme":              {[]string{"--address", "http://gate.example:9090/v1"}, "write --address gate.example:9090;"},
		"scheme with TLS":     {[]string{"--address", "https://gate.example:9090"}, "write --address gate.example:9090 --tls"},
		"gRPC's own scheme":   {[]string{"--address", "dns://gate.example:9090"}, "has a scheme"},
		"path":                {[]string{"--address", "gate.example/v1"}, "HOST:PORT"},
		"empty":               {[]string{"--address", ""}, "HOST:PORT"},
		"port of a name":      {[]string{"--address", "gate.example:https"}, "no port from 1 to 65535"},
		"port zero":           {[]string{"--address", "gate.example:0"}, "no port from 1 to 65535"},
		"token in plain text": {[]string{"--address", "gate.example:9090", "--token-file", good}, "add --tls"},
		"token to 0.0.0.0":    {[]string{"--address", "0.0.0.0:9090", "--token-file", good}, "add --tls"},
		"no token file":       {[]string{"--token-file", "/nowhere/token"}, "--token-file"},
		"token, no file":      {[]string{"--token-file", secretToken}, "--token-file: the file cannot be read: no such file"},
		"long token, no file": {[]string{"--token-file", strings.Repeat(secretToken, 50)}, "--token-file: the file cannot be read: file name too long"},
		"empty token file":    {[]string{"--token-file", file(" \n")}, "is empty"},
		"two tokens":          {[]string{"--token-file", file(secretToken + "\n" + secretToken)}, "more than a token"},
		"Bearer":              {[]string{"--token-file", file("Bearer " + secretToken)}, "more than a token"},
		"endless token file":  {[]string{"--token-file", "/dev/zero"}, "larger than 16384 bytes"},
		"no authority":        {[]string{"--ca-file", good}, "no certificate in PEM"},
		"certificate alone":   {[]string{"--cert-file", cert}, "--key-file belong together"},
		"key alone":           {[]string{"--key-file", key}, "--key-file belong together"},
		"no pair":             {[]string{"--cert-file", cert, "--key-file", otherKey}, "are no pair"},
		"key that is none":    {[]string{"--cert-file", cert, "--key-file", good}, "are no pair"},
	} {
		code, out, errOut := runCommand(t, "", append(append([]string{"check"}, row.args...), allowedID)...)
		if code != exitUsage || out != "" || !strings.Contains(errOut, row.want) || strings.Contains(errOut, secretToken) {
			t.Errorf("%s: exit code %d, %s%s, want %q", name, code, out, errOut, row.want)
		}
	}
}

// bearer returns an interceptor that keeps the authorization of the newest call and
// accepts only wanted.
func bearer(wanted func() string) grpc.ServerOption {
	return grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if got := metadata.ValueFromIncomingContext(ctx, "authorization"); len(got) != 1 || got[0] != "Bearer "+wanted() {
			return nil, status.Error(codes.Unauthenticated, "m")
		}
		return handle(ctx, req)
	})
}

// A client certificate and a token reach the service, also under another name and
// in plain text on loopback.
func TestCheckUsesTLSAndSendsAToken(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	_, _, pair := ca.issue("server", func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"gate.example"} })
	cert, key, _ := ca.issue("client", nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("\ufeff "+secretToken+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	accepts := bearer(func() string { return secretToken })
	overTLS := serveGRPC(t, willing(), accepts, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})))
	if code, out, errOut := runCommand(t, "", "check", "--address", overTLS, "--server-name", "gate.example",
		"--ca-file", ca.file, "--cert-file", cert, "--key-file", key, "--token-file", token, allowedID); code != 0 {
		t.Errorf("over TLS: exit code %d, %s%s", code, out, errOut)
	}
	if code, out, errOut := runCommand(t, "", "check", "--address", serveGRPC(t, willing(), accepts), "--token-file", token, allowedID); code != 0 {
		t.Errorf("on loopback: exit code %d, %s%s", code, out, errOut)
	}
}

// A long list survives the replacement of the token, of the client's certificate and
// of the service with its authority.
func TestCheckSurvivesTheReplacementOfItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Error(err)
		}
		return path
	}
	read := func(path string) []byte {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		return text
	}
	generation := 0
	tokenOf := func() string { return fmt.Sprintf("%s-%d", secretToken, generation) }
	authorities := []*authority{newAuthority(t), newAuthority(t)}
	var servers []tls.Config
	replaceAll := func() {
		ca := authorities[generation]
		cert, key, _ := ca.issue("client", nil)
		put("token", []byte(tokenOf()))
		put("ca.pem", bytes.Join([][]byte{read(authorities[0].file), read(authorities[1].file)}, nil))
		put("cert.pem", read(cert))
		put("key.pem", read(key))
	}
	for _, ca := range authorities {
		_, _, pair := ca.issue("server", nil)
		pool := x509.NewCertPool()
		pool.AddCert(ca.cert)
		servers = append(servers, tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	}
	replaceAll()
	put("ca.pem", read(authorities[0].file))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	calls := 0
	var mu sync.Mutex
	start := func(listener net.Listener, cfg *tls.Config, batches batchServer) *grpc.Server {
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(cfg)), bearer(func() string {
			mu.Lock()
			defer mu.Unlock()
			return tokenOf()
		}))
		eligibilityv1.RegisterEligibilityServiceServer(server, batches)
		go func() { _ = server.Serve(listener) }()
		t.Cleanup(server.Stop)
		return server
	}
	var first *grpc.Server
	restarted := make(chan struct{})
	first = start(listener, &servers[0], batchServer{fault: func() error {
		calls++
		if calls == 2 {
			go func() {
				defer close(restarted)
				first.Stop()
				mu.Lock()
				generation = 1
				replaceAll()
				mu.Unlock()
				again, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				start(again, &servers[1], willing())
			}()
		}
		return nil
	}})
	code, out, errOut := runCommand(t, strings.Join(nightly(350), "\n"), "check", "--json", "--address", address,
		"--ca-file", filepath.Join(dir, "ca.pem"), "--cert-file", filepath.Join(dir, "cert.pem"), "--key-file", filepath.Join(dir, "key.pem"),
		"--token-file", filepath.Join(dir, "token"), "-")
	<-restarted
	if code != 0 || errOut != "" || strings.Count(out, "DECISION_ALLOWED") != 350 {
		t.Errorf("exit code %d, %d allowed, %s", code, strings.Count(out, "DECISION_ALLOWED"), errOut)
	}
}

// A service that refuses the caller is not asked about the rest of a list; one that
// has accepted it before is, because its token may be in replacement.
func TestCheckEndsIfTheCallerIsRefused(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented} {
		calls := 0
		address := serveBatches(t, func() error { calls++; return status.Error(code, "m") })
		exit, out, _ := runCommand(t, strings.Join(nightly(350), "\n"), "check", "--json", "--address", address, "-")
		if exit != exitUndecided || calls != 1 || strings.Count(out, "\n") != 350 {
			t.Errorf("%v: exit code %d, %d calls, %d lines", code, exit, calls, strings.Count(out, "\n"))
		}
	}
	calls := 0
	address := serveBatches(t, func() error {
		calls++
		if calls == 2 {
			return status.Error(codes.Unauthenticated, "m")
		}
		return nil
	})
	if exit, out, errOut := runCommand(t, strings.Join(nightly(350), "\n"), "check", "--json", "--address", address, "-"); exit != 0 || strings.Count(out, "DECISION_ALLOWED") != 350 {
		t.Errorf("exit code %d, %s", exit, errOut)
	}
}

// A caller's own limit is waited for as the budget is, of an item and of a call.
func TestCheckWaitsForTheLimitOfItsCaller(t *testing.T) {
	t.Parallel()
	limited, err := status.New(codes.ResourceExhausted, "m").WithDetails(
		&errdetails.ErrorInfo{Reason: "CALLER_LIMITED", Domain: "eligibility"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	customers := &firstAsked{asked: make(map[string]int), first: func(_ string, place int) *eligibilityv1.BatchCheckEligibilityResult {
		if place%100 == 7 {
			return refusing(codes.ResourceExhausted, "CALLER_LIMITED", time.Second)
		}
		return nil
	}}
	address := serveBatchesOf(t, batchServer{answer: customers.answer, fault: func() error {
		calls++
		if calls == 2 {
			return limited.Err()
		}
		return nil
	}})
	began := time.Now()
	ids := nightly(250)
	code, out, errOut := runCommand(t, strings.Join(ids, "\n"), "check", "--json", "--address", address, "-")
	if code != 0 || errOut != "" || strings.Count(out, "DECISION_ALLOWED") != 250 {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if waited := time.Since(began); waited < time.Second || customers.asked[ids[7]] != 2 || customers.asked[ids[8]] != 1 {
		t.Errorf("after %v, asked %d and %d times", waited, customers.asked[ids[7]], customers.asked[ids[8]])
	}
}

// The service itself answers as the tests above assume.
func TestCheckAsksAServiceThatAuthenticates(t *testing.T) {
	t.Parallel()
	p, ca, issuer := startGuarded(t)
	file := filepath.Join(t.TempDir(), "token")
	check := func(address, token string) (code int, out, errOut string) {
		args := []string{"check", "--address", address, "--ca-file", ca}
		if token != "" {
			if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--token-file", file)
		}
		return runCommand(t, "", append(args, allowedID)...)
	}
	token := func(rights ...any) string { return issuer.Token(t, "shop", map[string]any{"roles": rights}) }
	eventually(t, "the issuer's keys to be fetched", func() bool {
		code, _, _ := check(p.GRPC, token("check", "batch"))
		return code == 0
	})
	for name, row := range map[string]struct {
		address, token string
		want           string
	}{
		"no token":             {p.GRPC, "", "requires credentials"},
		"unknown token":        {p.GRPC, secretToken, "does not accept the token"},
		"another audience":     {p.GRPC, issuer.Token(t, "shop", map[string]any{"roles": []any{"batch"}, "aud": "api://another"}), "does not accept the token"},
		"another right":        {p.GRPC, token("check"), `lacks the right "batch"`},
		"REST port":            {p.HTTP, token("batch"), "REST port"},
		"REST port, no token":  {p.HTTP, "", "REST port"},
		"admin port, over TLS": {p.Admin, token("batch"), "REST port"},
	} {
		code, out, errOut := check(row.address, row.token)
		if code != exitUndecided || !strings.Contains(errOut, row.want) || strings.Contains(errOut, "rpc error") || row.token != "" && strings.Contains(errOut+out, row.token) {
			t.Errorf("%s: exit code %d, %s, want %q", name, code, errOut, row.want)
		}
	}
}
