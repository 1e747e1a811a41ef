package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// explain returns the error of a call as one sentence about what is wrong and what
// to do, or unchanged if the service itself reports what it is.
func (s *service) explain(ctx context.Context, err error) error {
	failure := status.Convert(err)
	var info *errdetails.ErrorInfo
	for _, detail := range failure.Details() {
		if found, ok := detail.(*errdetails.ErrorInfo); ok {
			info = found
		}
	}
	text := ""
	switch code := failure.Code(); {
	case strings.Contains(failure.Message(), "unexpected HTTP status code"), strings.Contains(failure.Message(), "unexpected content-type"):
		text = restPort
	case code == codes.Unauthenticated:
		text = s.unauthenticated(failure)
	case code == codes.PermissionDenied && info.GetMetadata()["right"] != "":
		right := info.GetMetadata()["right"]
		text = fmt.Sprintf("the service knows the caller, who lacks the right %q; its operator grants it in auth.callers, in the entry of the token, or by auth.jwt.rights", right)
	case code == codes.Unimplemented && info == nil:
		text = "it speaks gRPC but is no eligibilityd, or an older one; check --address"
	case code == codes.Unavailable && info == nil:
		text = s.unreachable(ctx, failure.Message())
	case code == codes.DeadlineExceeded && info == nil:
		text = s.silent()
	}
	if text == "" {
		return err
	}
	return errors.New(text)
}

const (
	restPort = "it answers over HTTP and not over gRPC: this is the REST port, or a proxy; --address is of server.grpc, whose port is 9090 by default"
	noAnswer = "no connection in time; check --address and the firewalls on the way"
	silence  = "it accepts connections and does not answer; check that --address is of eligibilityd, and the log of the service"
	needsTLS = "it expects TLS; add --tls and, if its authority is not one of the system's, --ca-file FILE"
	plain    = "it speaks no TLS; configure server.tls of the service, or leave out --tls, --ca-file, --cert-file, --key-file and --server-name"
)

func (s *service) unauthenticated(failure *status.Status) string {
	switch {
	case strings.HasPrefix(failure.Message(), "--token-file"): // our own
		return failure.Message()
	case s.flags.tokenFile != "":
		return "the service does not accept the token in --token-file: it has expired, or is not meant for this service; the log of the service has the cause"
	case s.flags.certFile != "":
		return "the service knows no caller by the certificate in --cert-file; its operator adds one to auth.certificates, or give --token-file FILE"
	default:
		return "the service requires credentials; give --token-file FILE, or --cert-file FILE and --key-file FILE"
	}
}

// silent explains a deadline that ended before a server sent anything.
func (s *service) silent() string {
	switch made, start, _ := s.seen.get(); {
	case !made:
		return noAnswer
	case start == "":
		return silence
	default:
		return ""
	}
}

// unreachable explains why there is no connection. message is gRPC's.
func (s *service) unreachable(ctx context.Context, message string) string {
	made, start, err := s.seen.get()
	if !made {
		switch {
		case strings.Contains(message, "refused"):
			return "connection refused: nothing listens there; start the service, or correct --address"
		case strings.Contains(message, "no such host"), strings.Contains(message, "zero addresses"), strings.Contains(message, "lookup"):
			return "no such host: the name cannot be resolved; correct --address"
		case strings.Contains(message, "timeout"), strings.Contains(message, "deadline"):
			return noAnswer
		default:
			return ""
		}
	}
	var timeout net.Error
	switch {
	case strings.HasPrefix(start, "HTTP/"):
		return restPort
	case strings.HasPrefix(start, "\x15\x03"): // an alert
		return needsTLS
	case !s.flags.tls && start == "" && speaksTLS(ctx, s.Target()):
		return needsTLS
	case start == "" && errors.As(err, &timeout) && timeout.Timeout():
		return silence
	case s.flags.tls && err != nil:
		return s.withoutTLS(err)
	case start == "" && err != nil:
		return "it closes the connection before it answers; check that --address is of server.grpc, and the log of the service"
	default:
		return ""
	}
}

// withoutTLS explains why there is no connection over TLS.
func (s *service) withoutTLS(err error) string {
	var (
		record    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	expected := orText(s.flags.serverName, s.host)
	switch {
	case errors.As(err, &record):
		if string(record.RecordHeader[:]) == "HTTP/" {
			return restPort
		}
		return plain
	case errors.As(err, &authority):
		return "its certificate is of an authority that is not trusted here; give --ca-file FILE with the certificate of that authority, or with the service's own if it signed itself"
	case errors.As(err, &name):
		names := certificateNames(name.Certificate)
		if names == "" {
			return fmt.Sprintf("its certificate names no host in its SAN and cannot be used; its operator needs one for %q", expected)
		}
		return fmt.Sprintf("its certificate is for %s and not for %q; use such a name in --address, or give --server-name NAME", names, expected)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("its certificate is valid from %s to %s; check the clock of this machine, then have the certificate renewed",
			invalid.Cert.NotBefore.UTC().Format(time.DateTime), invalid.Cert.NotAfter.UTC().Format(time.DateTime))
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "its certificate is not for servers (extended key usage serverAuth); its operator needs another"
	}
	text := err.Error()
	if _, alert, sent := strings.Cut(text, "remote error: tls: "); sent {
		if meaning := s.alert(alert); meaning != "" {
			return meaning
		}
	}
	if strings.Contains(text, "ALPN") {
		return restPort
	}
	// The connection may be cut before the alert about the certificate is read.
	if s.seen.wasAsked() && (errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		return s.alert("certificate")
	}
	return "TLS failed: " + printable(text)
}

// alert explains what a server sent in place of an answer over TLS.
func (s *service) alert(alert string) string {
	switch {
	case strings.Contains(alert, "no application protocol"):
		return restPort
	case strings.Contains(alert, "protocol version not supported"):
		return "it does not speak TLS 1.2 or newer; check that --address is of eligibilityd"
	case strings.Contains(alert, "unrecognized name"):
		return "it has no certificate for the host in --address; use another name, or give --server-name NAME"
	case !strings.Contains(alert, "certificate") && !strings.Contains(alert, "handshake failure"):
		return ""
	case s.flags.certFile == "":
		return "it requires a client certificate; give --cert-file FILE and --key-file FILE"
	case strings.Contains(alert, "expired"), s.flags.certificateEnded(): // the alert may be lost
		return "the certificate in --cert-file has expired; replace it"
	case strings.Contains(alert, "authority"):
		return "the certificate in --cert-file is of no authority in server.tls.client_ca_file of the service; use another, or have the authority added"
	default:
		return "it refuses the certificate in --cert-file, which server.tls.client_ca_file of the service must verify and which must be for clients (extended key usage clientAuth)"
	}
}

// certificateNames lists whom a certificate is for.
func certificateNames(cert *x509.Certificate) string {
	var names []string
	for _, name := range cert.DNSNames {
		names = append(names, fmt.Sprintf("%.100q", name))
	}
	for _, address := range cert.IPAddresses {
		names = append(names, fmt.Sprintf("%q", address.String()))
	}
	if len(names) > 5 {
		names = append(names[:5], "…")
	}
	return strings.Join(names, ", ")
}

// speaksTLS reports whether a server at address answers the beginning of TLS. It
// sends nothing else.
func speaksTLS(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer func() { _ = raw.Close() }()
	err = tls.Client(raw, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) //nolint:gosec // only whether it speaks TLS matters
	return err == nil || strings.Contains(err.Error(), "remote error: tls: ")
}
