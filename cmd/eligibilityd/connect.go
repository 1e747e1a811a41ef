package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
	"github.com/eligibilityd/eligibilityd/internal/remote"
)

const (
	maxTokenFileBytes = 16 << 10
	maxPEMFileBytes   = 1 << 20
)

// serviceFlags are the flags of every command that asks a running service.
type serviceFlags struct {
	address    string
	tls        bool
	caFile     string
	certFile   string
	keyFile    string
	serverName string
	tokenFile  string
}

func (f *serviceFlags) register(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&f.address, "address", "127.0.0.1:9090", "gRPC `HOST:PORT` of the service")
	set.BoolVar(&f.tls, "tls", false, "use TLS; implied by the four flags below")
	set.StringVar(&f.caFile, "ca-file", "", "PEM `FILE` of the authorities to trust in place of the system's")
	set.StringVar(&f.certFile, "cert-file", "", "PEM `FILE` of a client certificate, the leaf first")
	set.StringVar(&f.keyFile, "key-file", "", "PEM `FILE` of the key of --cert-file")
	set.StringVar(&f.serverName, "server-name", "", "`NAME` in the certificate of the service, if it is not the host of --address")
	set.StringVar(&f.tokenFile, "token-file", "", "`FILE` with the token to send; read for each call, so that it can be replaced")
}

// service is a connection to a running service.
type service struct {
	*grpc.ClientConn

	flags serviceFlags
	host  string
	seen  *lastConnection
}

// connect prepares a connection. It makes none, but reports what is wrong with the
// flags and their files.
func (f *serviceFlags) connect() (*service, error) {
	host, port, err := splitAddress(f.address)
	if err != nil {
		return nil, fmt.Errorf("--address %w", err)
	}
	if (f.certFile == "") != (f.keyFile == "") {
		return nil, errors.New("--cert-file and --key-file belong together: give both")
	}
	f.tls = f.tls || f.caFile != "" || f.certFile != "" || f.serverName != ""
	options := []grpc.DialOption{}
	if f.tokenFile != "" {
		if !f.tls && !loopback.IsHost(host) {
			return nil, fmt.Errorf("--token-file: a token is not sent to %s in plain text; add --tls", host)
		}
		if _, err := readToken(f.tokenFile); err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(tokenFile(f.tokenFile)))
	}
	seen := &lastConnection{}
	transport := &observedTransport{TransportCredentials: insecure.NewCredentials(), seen: seen}
	if f.tls {
		base, err := f.tlsConfig()
		if err != nil {
			return nil, err
		}
		transport.TransportCredentials, transport.renew = credentials.NewTLS(base), f.tlsConfig
	}
	options = append(options, grpc.WithTransportCredentials(transport))
	conn, err := grpc.NewClient(net.JoinHostPort(host, port), options...)
	if err != nil {
		return nil, fmt.Errorf("--address: %w", err)
	}
	return &service{ClientConn: conn, flags: *f, host: host, seen: seen}, nil
}

// splitAddress splits the address of a service. The error names the mistake.
func splitAddress(address string) (host, port string, err error) {
	shown := strconv.Quote(address)
	if scheme, rest, found := strings.Cut(address, "://"); found {
		rest, _, _ = strings.Cut(rest, "/")
		hint := ""
		if strings.EqualFold(scheme, "https") {
			hint = " --tls"
		}
		return "", "", fmt.Errorf("%s has a scheme; write --address %s%s", shown, rest, hint)
	}
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		if bare := strings.Trim(address, "[]"); bare != "" && !strings.ContainsAny(bare, "/[]") && (!strings.Contains(bare, ":") || net.ParseIP(bare) != nil) {
			return "", "", fmt.Errorf("%s has no port; write --address %s", shown, net.JoinHostPort(bare, "9090"))
		}
		return "", "", fmt.Errorf("%s is not HOST:PORT; write e.g. 127.0.0.1:9090", shown)
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return "", "", fmt.Errorf("%s has no port from 1 to 65535; the gRPC port is 9090 by default", shown)
	}
	if host == "" {
		host = "localhost"
	}
	return host, port, nil
}

// tlsConfig reads the files of the flags.
func (f *serviceFlags) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.serverName}
	if f.caFile != "" {
		text, err := readFlagFile("--ca-file", f.caFile, maxPEMFileBytes)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca-file %s holds no certificate in PEM", f.caFile)
		}
	}
	if f.certFile != "" {
		cert, err := readFlagFile("--cert-file", f.certFile, maxPEMFileBytes)
		if err != nil {
			return nil, err
		}
		key, err := readFlagFile("--key-file", f.keyFile, maxPEMFileBytes)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("--cert-file %s and --key-file %s are no pair: %w", f.certFile, f.keyFile, err)
		}
		// Without GetClientCertificate, a certificate is left out if the authorities
		// that the server names did not issue it, and the server reports none.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return cfg, nil
}

// certificateEnded reports whether the certificate in --cert-file has expired.
func (f *serviceFlags) certificateEnded() bool {
	cfg, err := f.tlsConfig()
	if err != nil || cfg.GetClientCertificate == nil {
		return false
	}
	pair, err := cfg.GetClientCertificate(nil)
	return err == nil && time.Now().After(pair.Leaf.NotAfter)
}

// readFlagFile reads the file that a flag names, of at most limit bytes. If it cannot, the
// error has no path: a token in place of its file's name is an easy mistake.
func readFlagFile(flag, path string, limit int64) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the user names the file
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s: the file cannot be read: %w", flag, err)
	}
	defer func() { _ = file.Close() }() // only read from
	text, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s %s is larger than %d bytes", flag, path, limit)
	}
	return text, nil
}

// readToken returns the token in a file, without a byte order mark and the blanks
// around it. The error never holds it.
func readToken(path string) (string, error) {
	text, err := readFlagFile("--token-file", path, maxTokenFileBytes)
	if err != nil {
		return "", err
	}
	token := strings.Trim(string(text), " \t\r\n\v\f\ufeff")
	switch {
	case token == "":
		return "", fmt.Errorf("--token-file %s is empty", path)
	case !remote.HeaderSafe(token):
		return "", fmt.Errorf("--token-file %s holds more than a token: a blank, a control character or a letter beyond ASCII", path)
	}
	return token, nil
}

// tokenFile sends the token of a file with each call.
type tokenFile string

func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := readToken(string(f))
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity returns false because connect decides that: a token may
// be sent in plain text on loopback.
func (tokenFile) RequireTransportSecurity() bool { return false }

// observedTransport is the transport security of a connection to a service. It reads
// the files again for each connection, and keeps why a connection failed, which
// gRPC's errors have as text only.
type observedTransport struct {
	credentials.TransportCredentials

	renew func() (*tls.Config, error) // nil in plain text
	seen  *lastConnection
}

func (t *observedTransport) Clone() credentials.TransportCredentials { return t } //nolint:ireturn // gRPC's interface

func (t *observedTransport) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) { //nolint:ireturn // gRPC's interface
	t.seen.begin()
	security := t.TransportCredentials
	if t.renew != nil {
		cfg, err := t.renew()
		if err != nil {
			t.seen.fail(err)
			return nil, nil, err
		}
		present := cfg.GetClientCertificate
		cfg.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			t.seen.ask()
			if present == nil {
				return new(tls.Certificate), nil // none
			}
			return present(request)
		}
		security = credentials.NewTLS(cfg)
	}
	conn, info, err := security.ClientHandshake(ctx, authority, raw)
	if err != nil {
		t.seen.fail(err)
		return nil, nil, err
	}
	return &observedConn{Conn: conn, seen: t.seen}, info, nil
}

// observedConn keeps the first bytes and the first error that were read.
type observedConn struct {
	net.Conn

	seen *lastConnection
}

func (c *observedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.seen.read(p[:n], err)
	return n, err
}

// lastConnection is what is known about the newest connection.
type lastConnection struct {
	mu    sync.Mutex
	made  bool   // there was a connection
	start string // the first bytes that were read from it
	err   error  // why it failed
	asked bool   // the server asked for a certificate
}

func (l *lastConnection) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made, l.start, l.err, l.asked = true, "", nil, false
}

func (l *lastConnection) ask() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = true
}

func (l *lastConnection) wasAsked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *lastConnection) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

func (l *lastConnection) read(p []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if missing := 5 - len(l.start); missing > 0 {
		l.start += string(p[:min(missing, len(p))])
	}
	if l.err == nil && err != nil {
		l.err = err
	}
}

func (l *lastConnection) get() (made bool, start string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made, l.start, l.err
}
