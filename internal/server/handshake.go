package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

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
		if !errors.Is(err, io.EOF) { // a load balancer that looks whether the port is open
			h.server.complaints.Warn("tls handshake failed", zap.String("listener", "grpc"), zap.Stringer("from", conn.RemoteAddr()), zap.Error(err))
		}
		_ = client.Close() // grpc-go closes the connection
		return nil, nil, err
	}
	conn.secured = true
	conn.certificate = h.server.certificateOf(&state)
	return client, conn, nil
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
