package cachetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TLS is an authority with a certificate for servers at 127.0.0.1, also known
// as redis.example, and one for their clients, which the servers require.
// Its fields are names of PEM files.
type TLS struct {
	CA                string
	Certificate, Key  string // of the client
	server, serverKey string
}

// NewTLS makes all of them for one test.
func NewTLS(tb testing.TB) *TLS {
	tb.Helper()
	dir := tb.TempDir()
	ca := issue(tb, dir, "ca", nil, x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	server := issue(tb, dir, "server", ca, x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"redis.example"},
		// Replicas and nodes of a cluster are each other's clients.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	client := issue(tb, dir, "client", ca, x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return &TLS{
		CA: ca.file, Certificate: client.file, Key: client.keyFile, server: server.file, serverKey: server.keyFile,
	}
}

// StartRedis starts one server on a port, with TLS.
func (t *TLS) StartRedis(tb testing.TB) *Redis {
	tb.Helper()
	r := newRedis(tb)
	r.startOnPort(func(port string) []string { return t.args(port) })
	return r
}

// args are the arguments of a server that listens on a port, with nothing but
// TLS on any connection; without TLS if t is nil.
func (t *TLS) args(port string, more ...string) []string {
	// They ping every second, not every ten.
	args := []string{"--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}
	if t == nil {
		args = append(args, "--port", port)
	} else {
		args = append(args, "--port", "0", "--tls-port", port, "--tls-replication", "yes", "--tls-cluster", "yes",
			"--tls-ca-cert-file", t.CA, "--tls-cert-file", t.server, "--tls-key-file", t.serverKey)
	}
	return append(args, more...)
}

// Client is how a client connects that trusts the authority and shows its
// certificate.
func (t *TLS) Client(tb testing.TB) *tls.Config {
	tb.Helper()
	authority, err := os.ReadFile(t.CA)
	if err != nil {
		tb.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		tb.Fatal(err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	cfg.RootCAs.AppendCertsFromPEM(authority)
	return cfg
}

// issued is a certificate and its key, and the files that hold them.
type issued struct {
	file, keyFile string
	certificate   *x509.Certificate
	key           *ecdsa.PrivateKey
}

// issue makes a certificate of that name by template; by itself without by.
func issue(tb testing.TB, dir, name string, by *issued, template x509.Certificate) *issued {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	made := &issued{
		file: filepath.Join(dir, name+".pem"), keyFile: filepath.Join(dir, name+".key"), certificate: &template, key: key,
	}
	if by == nil {
		by = made
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, by.certificate, key.Public(), by.key)
	if err != nil {
		tb.Fatal(err)
	}
	if made.certificate, err = x509.ParseCertificate(der); err != nil {
		tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		made.file:    {Type: "CERTIFICATE", Bytes: der},
		made.keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return made
}
