package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// serverTLS copies a new certificate of authority to files that a test may replace.
func serverTLS(t testing.TB, authority *accesstest.Authority) server.TLS {
	t.Helper()
	dir := t.TempDir()
	files := server.TLS{CertificateFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	authority.Server(t).CopyTo(t, files.CertificateFile, files.KeyFile)
	return files
}

// reloaded makes the server read its files, and returns when they are in use or
// refused.
func reloaded(t *testing.T, run *servertest.Running, want string) {
	t.Helper()
	run.Server.Reload()
	for entry := range run.Logged {
		if strings.HasPrefix(entry.Message, "files ") {
			if !strings.HasPrefix(entry.Message, want) {
				t.Fatalf("%s; want %s", entry.Message, want)
			}
			return
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Clean(from))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil { //nolint:gosec // a test names it
		t.Fatal(err)
	}
}

// hosts returns the addresses of both listeners.
func hosts(run *servertest.Running) map[string]string {
	_, rest, _ := strings.Cut(run.REST, "://")
	return map[string]string{"grpc": run.Conn.Target(), "rest": rest}
}

// asks sends one request over a new connection, and returns how the server presented
// itself. A client that the server refuses learns it with its first read.
func asks(t *testing.T, transport, address string, cfg *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	cfg = cfg.Clone()
	if transport == "rest" {
		dialled, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer func() { _ = dialled.Close() }()
		if _, err := io.WriteString(dialled, "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
			return tls.ConnectionState{}, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(dialled), nil)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		conn, _ := dialled.(*tls.Conn)
		return conn.ConnectionState(), err
	}
	var state tls.ConnectionState
	cfg.VerifyConnection = func(seen tls.ConnectionState) error {
		state = seen
		return nil
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		return state, err
	}
	defer func() { _ = conn.Close() }()
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), new(healthv1.HealthCheckRequest))
	return state, err
}

func TestTLSServesBothTransports(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	client := authority.ClientTLS(nil)
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), Server: server.Config{TLS: serverTLS(t, authority)}, ClientTLS: client})
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
		t.Errorf("over grpc: %v", err)
	}
	if got := run.Get(t, apitest.CustomerA, ""); got.StatusCode != http.StatusOK || got.ProtoMajor != 2 {
		t.Errorf("over h2: %s %s", got.Proto, got.Status)
	}
	older := client.Clone()
	older.MaxVersion = tls.VersionTLS12
	oldest := client.Clone()
	oldest.MinVersion, oldest.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for transport, address := range hosts(run) {
		if state, err := asks(t, transport, address, older); err != nil || state.Version != tls.VersionTLS12 {
			t.Errorf("%s with TLS 1.2: %x, %v", transport, state.Version, err)
		}
		if _, err := asks(t, transport, address, oldest); err == nil {
			t.Errorf("%s with TLS 1.1: no error", transport)
		}
	}
	for name, protocols := range map[string][]string{"no ALPN": nil, "http/1.1": {"http/1.1"}, "h3": {"h3"}} {
		cfg := client.Clone()
		cfg.NextProtos = protocols
		conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", hosts(run)["grpc"])
		if err != nil {
			continue
		}
		if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("gRPC with %s is served: %d bytes, %v", name, n, err)
		}
		_ = conn.Close()
	}
}

// A client in plain text gets nothing but a refusal, and one record.
func TestTLSServesNoPlainText(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	run := servertest.Start(t, servertest.Setup{Server: server.Config{TLS: serverTLS(t, authority)}, ClientTLS: authority.ClientTLS(nil)})
	for transport, address := range hosts(run) {
		for _, greeting := range []string{"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, greeting)
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(conn)
			_ = conn.Close()
			if err, timeout := err.(net.Error); timeout && err.Timeout() { //nolint:errorlint // a bare one
				t.Errorf("%s, %q: the connection stays open", transport, greeting)
			}
			if len(answer) > 0 && answer[0] != 21 && !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") { // 21 is a TLS alert
				t.Errorf("%s, %q: %q", transport, greeting, answer)
			}
		}
	}
}

// h2c: neither prior knowledge nor an upgrade makes the REST listener speak HTTP/2
// in plain text.
func TestRESTSpeaksNoH2C(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	for _, greeting := range []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"GET /docs HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", hosts(run)["rest"])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, greeting); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		_ = conn.Close()
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 ") || strings.HasPrefix(line, "HTTP/1.1 101") {
			t.Errorf("%.20q: %q, %v", greeting, line, err)
		}
	}
}

// presented is an Authenticator that notes the certificates that it is given.
type presented struct {
	mu   sync.Mutex
	seen []*access.Certificate
}

func (p *presented) Authenticate(given access.Credentials) (*access.Caller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, given.Certificate)
	return access.Anonymous, nil
}

func (p *presented) take() []*access.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.seen
	p.seen = nil
	return seen
}

func TestClientCertificatesAreVerifiedAndIdentifiedOnceForEachConnection(t *testing.T) {
	t.Parallel()
	authority, foreign := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	pair := authority.Client(t, "spiffe://shop.example/checkout")
	serverOnly := authority.Issue(t, "server-only", x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	expired := authority.Issue(t, "expired", x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	for _, required := range []bool{false, true} {
		files := serverTLS(t, authority)
		files.ClientCAFile, files.RequireClientCertificate = authority.File, required
		known, identified := new(access.Certificate), new(atomic.Int64)
		callers := new(presented)
		run := servertest.Start(t, servertest.Setup{
			Source: apitest.Approved(), API: api.Config{Access: callers}, ClientTLS: authority.ClientTLS(pair),
			Server: server.Config{TLS: files, Certificate: func(leaf *x509.Certificate) *access.Certificate {
				identified.Add(1)
				if leaf.Equal(pair.Leaf) {
					return known
				}
				return nil
			}},
		})
		for range 3 {
			if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
				t.Fatal(err)
			}
			if got := run.Get(t, apitest.CustomerA, ""); got.StatusCode != http.StatusOK {
				t.Fatal(got.Status)
			}
		}
		if seen := callers.take(); !slices.Equal(seen, slices.Repeat([]*access.Certificate{known}, 6)) {
			t.Errorf("the certificates of 6 requests: %v", seen)
		}
		if got := identified.Load(); got != 2 {
			t.Errorf("certificates were identified %d times over 2 connections", got)
		}
		for transport, address := range hosts(run) {
			for name, row := range map[string]struct {
				cfg     *tls.Config
				refused bool
			}{
				"its own":                  {authority.ClientTLS(pair), false},
				"none":                     {authority.ClientTLS(nil), required},
				"one for servers":          {authority.ClientTLS(serverOnly), true},
				"an expired one":           {authority.ClientTLS(expired), true},
				"one of another authority": {presents(authority.ClientTLS(nil), foreign.Client(t, "spiffe://shop.example/checkout")), true},
			} {
				if _, err := asks(t, transport, address, row.cfg); (err != nil) != row.refused {
					t.Errorf("%s, required %v, a client with %s: %v", transport, required, name, err)
				}
			}
		}
		if seen := callers.take(); slices.Contains(seen, known) && len(seen) > 2 {
			t.Errorf("refused clients reached authentication: %v", seen)
		}
	}
}

// presents returns cfg with a certificate that is sent whatever the server asks for.
func presents(cfg *tls.Config, pair *accesstest.Pair) *tls.Config {
	certificate := pair.TLS()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	return cfg
}

func TestReloadReplacesCertificatesOrKeepsThem(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	files := serverTLS(t, authority)
	files.ClientCAFile = filepath.Join(t.TempDir(), "ca.pem")
	copyFile(t, authority.File, files.ClientCAFile)
	client := authority.ClientTLS(nil)
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), Server: server.Config{TLS: files}, ClientTLS: client})
	open := func() { // requests on connections that are open already
		t.Helper()
		if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
			t.Errorf("over grpc: %v", err)
		}
		if got := run.Get(t, apitest.CustomerA, ""); got.StatusCode != http.StatusOK {
			t.Errorf("over rest: %s", got.Status)
		}
	}
	serves := func(want *x509.Certificate) {
		t.Helper()
		for transport, address := range hosts(run) {
			state, err := asks(t, transport, address, client)
			if err != nil || !state.PeerCertificates[0].Equal(want) {
				t.Errorf("%s: %v, or another certificate", transport, err)
			}
		}
		open()
	}
	failures := func(want string) {
		t.Helper()
		if got := run.Scrape(t, "eligibility_tls_reload_failures_total"); !slices.Equal(got, []string{"eligibility_tls_reload_failures_total " + want}) {
			t.Errorf("%q, want %s", got, want)
		}
	}
	open()
	second := authority.Server(t)
	second.CopyTo(t, files.CertificateFile, files.KeyFile)
	reloaded(t, run, "files reloaded")
	serves(second.Leaf)
	failures("0")

	third := authority.Server(t)
	copyFile(t, third.CertificateFile, files.CertificateFile) // without its key
	reloaded(t, run, "files not reloaded")
	serves(second.Leaf)
	failures("1")
	copyFile(t, third.KeyFile, files.KeyFile)
	content, err := os.ReadFile(authority.File)
	if err != nil {
		t.Fatal(err)
	}
	for i, broken := range []string{"", "no PEM", string(content) + string(content[:len(content)/2])} {
		if err := os.WriteFile(files.ClientCAFile, []byte(broken), 0o600); err != nil { //nolint:gosec // a file of the test
			t.Fatal(err)
		}
		reloaded(t, run, "files not reloaded") // the pair that fits waits for the authorities
		serves(second.Leaf)
		failures(string(rune('2' + i)))
	}
	for _, file := range []string{files.CertificateFile, files.KeyFile, files.ClientCAFile} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	reloaded(t, run, "files not reloaded")
	serves(second.Leaf) // and not plain text
	third.CopyTo(t, files.CertificateFile, files.KeyFile)
	copyFile(t, authority.File, files.ClientCAFile)
	reloaded(t, run, "files reloaded")
	serves(third.Leaf)

	if got := run.Scrape(t, "eligibility_tls_certificate_expires_in_seconds"); len(got) != 1 ||
		!strings.HasPrefix(got[0], "eligibility_tls_certificate_expires_in_seconds 3") { // within an hour
		t.Errorf("%q", got)
	}
	key, err := os.ReadFile(third.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(string(key), "\n")[1]
	for _, entry := range run.Logs.All() {
		for _, value := range entry.ContextMap() {
			if text, ok := value.(string); ok && strings.Contains(text, secret) {
				t.Errorf("the key is in the log: %v", entry)
			}
		}
	}
}

// Files that load at a reload are looked at as those of the start are.
func TestFilesThatNeedAttentionAreWarnedOf(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	files := serverTLS(t, authority)
	if err := os.Chmod(files.KeyFile, 0o640); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved(), Server: server.Config{TLS: files}, ClientTLS: authority.ClientTLS(nil)})
	warnings := func() (readable, expired int) {
		return run.Logs.FilterMessageSnippet("key_file can be accessed by others").Len(), run.Logs.FilterMessageSnippet("has expired; clients will refuse it").Len()
	}
	if readable, expired := warnings(); readable != 0 || expired != 0 {
		t.Errorf("at the start: %d and %d warnings", readable, expired)
	}
	ended := authority.Issue(t, "ended", x509.Certificate{
		DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	ended.CopyTo(t, files.CertificateFile, files.KeyFile)
	if err := os.Chmod(files.KeyFile, 0o644); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	reloaded(t, run, "files reloaded")
	if readable, expired := warnings(); readable != 1 || expired != 1 {
		t.Errorf("at the reload: %d and %d warnings, want one of each", readable, expired)
	}
}

// A session that began before an authority was removed cannot be resumed after.
func TestNoSessionOutlivesItsAuthority(t *testing.T) {
	t.Parallel()
	authority, removed := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	files := serverTLS(t, authority)
	files.ClientCAFile, files.RequireClientCertificate = filepath.Join(t.TempDir(), "ca.pem"), true
	copyFile(t, removed.File, files.ClientCAFile)
	run := servertest.Start(t, servertest.Setup{Server: server.Config{TLS: files}, ClientTLS: authority.ClientTLS(nil)})
	clients := make(map[string]*tls.Config)
	for transport, address := range hosts(run) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			cfg := presents(authority.ClientTLS(nil), removed.Client(t, "spiffe://shop.example/removed"))
			cfg.ClientSessionCache, cfg.MaxVersion = tls.NewLRUClientSessionCache(8), version
			name := transport + " " + tls.VersionName(version)
			clients[name] = cfg
			for i := range 2 {
				state, err := asks(t, transport, address, cfg)
				if err != nil || state.DidResume != (i == 1) {
					t.Errorf("%s, connection %d: resumed %v, %v", name, i, state.DidResume, err)
				}
			}
		}
	}
	copyFile(t, authority.File, files.ClientCAFile)
	reloaded(t, run, "files reloaded")
	for name, cfg := range clients {
		transport, _, _ := strings.Cut(name, " ")
		if state, err := asks(t, transport, hosts(run)[transport], cfg); err == nil {
			t.Errorf("%s: the client is still trusted; resumed %v", name, state.DidResume)
		}
	}
}

func TestWhatDoesNotLoadEndsTheStart(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	one, other := authority.Server(t), authority.Server(t)
	broken := filepath.Join(t.TempDir(), "broken.pem")
	if err := os.WriteFile(broken, []byte("-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHNlY3JldA==\n-----END PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		files server.TLS
		want  []string
	}{
		"no certificate": {server.TLS{CertificateFile: "/nowhere/tls.crt", KeyFile: one.KeyFile}, []string{"/nowhere/tls.crt"}},
		"no key":         {server.TLS{CertificateFile: one.CertificateFile, KeyFile: "/nowhere/tls.key"}, []string{"/nowhere/tls.key"}},
		"another's key":  {server.TLS{CertificateFile: one.CertificateFile, KeyFile: other.KeyFile}, []string{one.CertificateFile, other.KeyFile, "the key must belong to it"}},
		"swapped":        {server.TLS{CertificateFile: one.KeyFile, KeyFile: one.CertificateFile}, []string{one.KeyFile, "it must be PEM"}},
		"a broken key":   {server.TLS{CertificateFile: one.CertificateFile, KeyFile: broken}, []string{broken}},
		"no authorities": {server.TLS{CertificateFile: one.CertificateFile, KeyFile: one.KeyFile, ClientCAFile: broken}, []string{broken, "must be one or more certificates"}},
	} {
		_, err := newServer(t, server.Config{TLS: row.files})
		for _, want := range row.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v does not have %q", name, err, want)
			}
		}
		if err != nil && (strings.Contains(err.Error(), "c2VjcmV0") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: error %v has contents of a file", name, err)
		}
	}
}

// Many clients that fail to prove themselves cost few records.
func TestFailedHandshakesAreLoggedAtALimitedRate(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Approved(), Server: server.Config{TLS: serverTLS(t, authority), FailureRecords: 2}, ClientTLS: authority.ClientTLS(nil),
	})
	begun := time.Now()
	for range 200 {
		for _, address := range hosts(run) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	}
	most := 2 * (int(time.Since(begun)/time.Second) + 2)
	records := 0
	for _, entry := range run.Logs.All() {
		if strings.Contains(strings.ToLower(entry.Message), "tls handshake") {
			records++
		}
	}
	if records == 0 || records > most {
		t.Errorf("%d records of 400 failed handshakes in %v, want 1 to %d", records, time.Since(begun), most)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := run.Client.CheckEligibility(ctx, apitest.Ask(apitest.CustomerA)); status.Code(err) != codes.OK {
		t.Errorf("another caller: %v", err)
	}
}

// Failed handshakes are logged with their cause, and with no text of the client.
func TestFailedHandshakesAreLoggedWithoutTextOfTheClient(t *testing.T) {
	t.Parallel()
	const evil = "evil.example"
	authority, foreign := accesstest.NewAuthority(t), accesstest.NewAuthority(t)
	files := serverTLS(t, authority)
	files.ClientCAFile, files.RequireClientCertificate = authority.File, true
	pair := authority.Client(t, "spiffe://shop.example/checkout")
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Approved(), Server: server.Config{TLS: files, FailureRecords: 1000}, ClientTLS: authority.ClientTLS(pair),
	})
	client := x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	expired, serverOnly := client, client
	expired.NotBefore, expired.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	serverOnly.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	protocols, plain, old := authority.ClientTLS(pair), authority.ClientTLS(pair), authority.ClientTLS(pair)
	protocols.NextProtos = []string{evil}
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	plain.RootCAs = foreign.Pool()
	for cause, cfg := range map[string]*tls.Config{
		"certificate of an unknown authority":               presents(authority.ClientTLS(nil), foreign.Issue(t, evil, client)),
		"certificate has expired or is not valid yet":       presents(authority.ClientTLS(nil), authority.Issue(t, evil, expired)),
		"certificate is not for clients":                    presents(authority.ClientTLS(nil), authority.Issue(t, evil, serverOnly)),
		"client presents no certificate":                    authority.ClientTLS(nil),
		"client offers no protocol of the listener by ALPN": protocols,
		"client offers only unsupported versions of TLS":    old,
		"client rejects the handshake":                      plain,
	} {
		for transport, address := range hosts(run) {
			seen := run.Logs.Len()
			offered := cfg.Clone()
			if transport == "grpc" && len(offered.NextProtos) == 0 {
				offered.NextProtos = []string{"h2"}
			}
			// With TLS 1.3, the client's part ends before the server refuses it.
			if conn, err := (&tls.Dialer{Config: offered}).DialContext(t.Context(), "tcp", address); err == nil {
				ends(t, conn)
				_ = conn.Close()
			}
			listener := map[string]string{"grpc": "grpc", "rest": "http"}[transport]
			for deadline := time.Now().Add(bound); ; time.Sleep(time.Millisecond) {
				var records []map[string]any
				for _, entry := range run.Logs.All()[seen:] {
					if entry.Message == "tls handshake failed" {
						records = append(records, entry.ContextMap())
					}
				}
				if len(records) > 0 {
					if got := records[0]; got["cause"] != cause || got["listener"] != listener || got["from"] == "" {
						t.Errorf("%s: %s logs %v", cause, transport, got)
					}
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %s logs nothing", cause, transport)
				}
			}
		}
	}
	// A client of HTTP/2 that begins with something else.
	h2 := authority.ClientTLS(pair)
	h2.NextProtos = []string{"h2"}
	conn := connect(t, hosts(run)["rest"], h2)
	if _, err := io.WriteString(conn, strings.Repeat(evil, 10)); err != nil {
		t.Fatal(err)
	}
	ends(t, conn)
	for _, entry := range run.Logs.All() {
		if text := fmt.Sprint(entry.Message, entry.ContextMap()); strings.Contains(text, evil) || strings.Contains(text, "x509") {
			t.Errorf("the log has %s", text)
		}
	}
	if run.Logs.FilterMessageSnippet("error reading preface").Len() != 1 {
		t.Error("the preface is not logged")
	}
}
