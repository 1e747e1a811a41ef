package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/reload"
)

// Idle connections beyond the limit of open files leave probes and operators, and
// what the service itself opens, their descriptors.
func TestFewDescriptorsLeaveProbesAnAnswer(t *testing.T) {
	t.Parallel()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := launchFile(t, "/bin/sh", nil, anyPort("ELIGIBILITY_SERVER__PROBE__ADDRESS=127.0.0.1:0", "ELIGIBILITY_SERVER__LIMITS__FIRST_REQUEST=1h"),
		"-c", `ulimit -n 256 && exec "$0" "$@"`, name, "dev", "--control-address", "127.0.0.1:0")
	var idle []net.Conn
	for _, address := range []string{p.GRPC, p.HTTP, p.GRPC, p.Probe, p.Admin} {
		for range 200 {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, conn)
		}
	}
	for _, address := range []string{p.Probe, p.Admin} {
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			eventually(t, address+path, func() bool {
				status, _, _ := get(t, "http://"+address+path)
				return status == http.StatusOK
			})
		}
	}
	for _, conn := range idle {
		_ = conn.Close()
	}
	p.answers(t, 10)
}

// SIGHUP reloads the certificate. When the files are gone, the old one stays in use.
func TestSIGHUPReloadsTheCertificate(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	dir := t.TempDir()
	certificate, key := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	first, second := authority.Server(t), authority.Server(t)
	first.CopyTo(t, certificate, key)
	p := launch(t, nil, anyPort("ELIGIBILITY_SERVER__TLS__CERTIFICATE_FILE="+certificate, "ELIGIBILITY_SERVER__TLS__KEY_FILE="+key),
		"dev", "--control-address", "127.0.0.1:0")
	serves := func(want *accesstest.Pair) {
		t.Helper()
		for address, protocol := range map[string]string{p.GRPC: "h2", p.HTTP: "http/1.1"} {
			cfg := authority.ClientTLS(nil)
			cfg.NextProtos = []string{protocol}
			conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			client, _ := conn.(*tls.Conn)
			if seen := client.ConnectionState(); !seen.PeerCertificates[0].Equal(want.Leaf) || seen.NegotiatedProtocol != protocol {
				t.Errorf("%s: another certificate, or %s", protocol, seen.NegotiatedProtocol)
			}
			_ = conn.Close()
		}
	}
	serves(first)
	second.CopyTo(t, certificate, key)
	signalled := time.Now()
	p.signal(t, syscall.SIGHUP)
	p.await(t, `"msg":"files reloaded"`)
	if took := time.Since(signalled); took > reload.Interval/2 {
		t.Errorf("reloaded after %v", took)
	}
	serves(second)
	for _, file := range []string{certificate, key} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(t, syscall.SIGHUP)
	p.await(t, `"msg":"files not reloaded`)
	serves(second)
}
