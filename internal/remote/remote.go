// Package remote holds the rules for clients of another organization's hosts:
// which hosts may receive a secret, and which text may be repeated if an
// exchange fails.
package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// CheckRoot accepts an absolute https URL without credentials, query and
// fragment. http is accepted only if the host is loopback, because a bearer
// token or a secret must not cross a network in clear text. The error does not
// repeat the URL, which may hold credentials.
func CheckRoot(root string) error {
	u, err := url.Parse(root)
	if err != nil {
		return errors.New("is no URL")
	}
	switch {
	case u.Hostname() == "":
		return errors.New("must be an absolute URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must start with https://")
	case u.Scheme == "http" && !loopback.IsHost(u.Hostname()):
		return errors.New("must start with https:// unless the host is loopback")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return errors.New("must hold neither credentials nor a query nor a fragment")
	}
	return nil
}

// HeaderSafe reports whether a token can be sent unchanged in a header.
func HeaderSafe(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return true
}

// ServerFailed reports whether a status means that the host cannot answer now.
// It is false if the status is 501, because the host never will.
func ServerFailed(status int) bool {
	return status == http.StatusRequestTimeout ||
		status >= 500 && status <= 599 && status != http.StatusNotImplemented
}

// errProtocol replaces an error if its text may repeat a response, such as a
// malformed status line.
var errProtocol = errors.New("exchange broke off")

// Cause returns the reason if an exchange had no complete response, without any
// text that the host chose. If ctx, the caller's, was canceled, it is
// context.Canceled; after any timeout it is context.DeadlineExceeded.
func Cause(ctx context.Context, err error) error {
	var (
		timeout     net.Error
		operation   *net.OpError
		lookup      *net.DNSError
		certificate *tls.CertificateVerificationError
		alert       tls.AlertError
		record      tls.RecordHeaderError
	)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return context.DeadlineExceeded
	case errors.As(err, &lookup):
		return lookup
	case errors.As(err, &certificate):
		return CertificateError(certificate)
	case errors.As(err, &operation):
		return operation
	case errors.As(err, &alert):
		return alert
	case errors.As(err, &record):
		return record
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errProtocol
}

// The reasons not to trust a certificate.
var (
	ErrAuthority   = errors.New("tls: certificate of an unknown authority")
	ErrName        = errors.New("tls: certificate for another name")
	ErrPeriod      = errors.New("tls: certificate has expired or is not valid yet")
	ErrCertificate = errors.New("tls: certificate cannot be verified")
)

// CertificateError returns the reason if a certificate could not be verified.
// The standard library's own errors repeat text of the certificate.
func CertificateError(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		return ErrAuthority
	case errors.As(err, &name):
		return ErrName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return ErrPeriod
	default:
		return ErrCertificate
	}
}
