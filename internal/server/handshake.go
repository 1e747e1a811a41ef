package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// handshake secures the connections of gRPC, or leaves them in plain text without
// certificates. Either way the AuthInfo of a peer is its *connection.
type handshake struct {
	server *Server
}

var errNotHTTP2 = errors.New("the client does not offer h2 by ALPN")

// ServerHandshake returns the connection to read from and what is known about it.
func (h handshake) ServerHandshake(accepted net.Conn) (net.Conn, credentials.AuthInfo, error) { //nolint:ireturn // gRPC's interface
	conn, ours := accepted.(*connection)
	if !ours {
		return nil, nil, errors.New("the connection is not from the server's listener")
	}
	if h.server.certificates == nil {
		return conn, conn, nil
	}
	client := tls.Server(conn, h.server.certificates.Get().grpc)
	err := client.HandshakeContext(context.Background()) // the deadline is grpc-go's
	state := client.ConnectionState()
	if err == nil && state.NegotiatedProtocol != "h2" {
		err = errNotHTTP2
	}
	if err != nil {
		logHandshake(h.server.complaints, "grpc", conn.RemoteAddr().String(), err.Error())
		_ = client.Close() // grpc-go closes the connection
		return nil, nil, err
	}
	conn.secured = true
	conn.certificate = h.server.certificateOf(&state)
	return client, conn, nil
}

// handshakeCauses are the causes of failed handshakes, by what the error of package
// tls contains. The first match counts. The error itself is not logged: it repeats
// names of the client's certificate and the protocols that it offers.
var handshakeCauses = []struct{ contains, cause string }{ //nolint:gochecknoglobals // never changed
	{"tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate of an unknown authority"},
	{"tls: failed to verify certificate: x509: certificate has expired or is not yet valid", "certificate has expired or is not valid yet"},
	{"tls: failed to verify certificate: x509: certificate specifies an incompatible key usage", "certificate is not for clients"},
	{"tls: failed to verify certificate", "certificate cannot be verified"},
	{"tls: failed to parse client certificate", "certificate cannot be parsed"},
	{"tls: invalid signature by the client certificate", "client does not prove that it has the certificate's key"},
	{"tls: client didn't provide a certificate", "client presents no certificate"},
	{"tls: client requested unsupported application protocols", "client offers no protocol of the listener by ALPN"},
	{errNotHTTP2.Error(), errNotHTTP2.Error()},
	{"tls: client offered only unsupported versions", "client offers only unsupported versions of TLS"},
	{"tls: no cipher suite supported by both client and server", "client offers no supported cipher suite"},
	{"tls: no key exchanges supported by both client and server", "client offers no supported key exchange"},
	{"tls: first record does not look like a TLS handshake", "client does not speak TLS"},
	{"client sent an HTTP request to an HTTPS server", "client does not speak TLS"},
	{"remote error: tls: ", "client rejects the handshake"}, // often the server's certificate
	{"i/o timeout", "timeout"},
	{"connection reset by peer", "connection closed"},
	{"EOF", "connection closed"},
}

// logHandshake logs that a handshake failed, without any text of the client.
func logHandshake(logger *zap.Logger, listener, from, failure string) {
	if failure == io.EOF.Error() {
		return // a load balancer that looks whether the port is open
	}
	cause := "protocol violation"
	for _, known := range handshakeCauses {
		if strings.Contains(failure, known.contains) {
			cause = known.cause
			break
		}
	}
	logger.Warn("tls handshake failed", zap.String("listener", listener), zap.String("from", from), zap.String("cause", cause))
}

// httpComplaints logs what package http complains about, without any text of a client.
type httpComplaints struct{ logger *zap.Logger }

// Write logs one complaint.
func (h httpComplaints) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if failed, ok := strings.CutPrefix(text, "http: TLS handshake error from "); ok {
		from, failure, _ := strings.Cut(failed, ": ")
		logHandshake(h.logger, "http", from, failure)
		return len(line), nil
	}
	if begun, _, ok := strings.Cut(text, ": bogus greeting"); ok {
		text = begun // it would repeat what the client sent
	}
	h.logger.Warn(text)
	return len(line), nil
}

// certificateOf returns the certificate that a client presented in its handshake,
// nil if it presented none.
func (s *Server) certificateOf(state *tls.ConnectionState) *access.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 || s.cfg.Certificate == nil {
		return nil
	}
	return s.cfg.Certificate(state.PeerCertificates[0])
}

// ClientHandshake fails: the server is no client.
func (handshake) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) { //nolint:ireturn // gRPC's interface
	return nil, nil, errors.ErrUnsupported
}

// Info describes the security of the server's connections.
func (h handshake) Info() credentials.ProtocolInfo {
	if h.server.certificates == nil {
		return credentials.ProtocolInfo{SecurityProtocol: "insecure"}
	}
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns h, which has no state of its own.
func (h handshake) Clone() credentials.TransportCredentials { return h } //nolint:ireturn // gRPC's interface

// OverrideServerName does nothing: it is for clients.
func (handshake) OverrideServerName(string) error { return nil }

// secureListener secures the connections of REST when they are first read.
type secureListener struct {
	net.Listener

	certificates *certificates
}

// Accept returns the next connection, before its handshake.
func (l secureListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // servers look at its type
	}
	return tls.Server(conn, l.certificates.Get().rest), nil
}
