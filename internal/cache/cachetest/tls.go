package cachetest

import (
	"crypto/tls"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
)

// TLS is an authority with a certificate for servers at 127.0.0.1, also known
// as redis.example, and one for their clients, which the servers require.
// Its fields are names of PEM files.
type TLS struct {
	CA                string
	Certificate, Key  string // of the client
	server, serverKey string

	client *tls.Config
}

// NewTLS makes all of them for one test.
func NewTLS(tb testing.TB) *TLS {
	tb.Helper()
	authority := accesstest.NewAuthority(tb)
	// Replicas and nodes of a cluster are each other's clients.
	server, client := authority.Server(tb, "redis.example"), authority.Client(tb)
	return &TLS{
		CA: authority.File, Certificate: client.CertificateFile, Key: client.KeyFile,
		server: server.CertificateFile, serverKey: server.KeyFile, client: authority.ClientTLS(client),
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
func (t *TLS) Client(testing.TB) *tls.Config { return t.client.Clone() }
