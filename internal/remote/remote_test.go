package remote_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The host chooses the names in its certificate.
func TestNoTextOfACertificateIsRepeated(t *testing.T) {
	t.Parallel()
	certificate := &x509.Certificate{DNSNames: []string{"canary"}, Subject: pkix.Name{CommonName: "canary"}}
	for want, cause := range map[error]error{
		remote.ErrAuthority:   x509.UnknownAuthorityError{Cert: certificate},
		remote.ErrName:        x509.HostnameError{Certificate: certificate, Host: "h"},
		remote.ErrPeriod:      x509.CertificateInvalidError{Cert: certificate, Reason: x509.Expired, Detail: "canary"},
		remote.ErrCertificate: x509.CertificateInvalidError{Cert: certificate, Reason: x509.CANotAuthorizedForThisName, Detail: "canary"},
	} {
		got := remote.Cause(t.Context(), &tls.CertificateVerificationError{Err: cause})
		if !errors.Is(got, want) || strings.Contains(got.Error(), "canary") {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

func TestCauseOfACallerThatLeftIsItsCancellation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := remote.Cause(ctx, context.DeadlineExceeded); !errors.Is(got, context.Canceled) {
		t.Errorf("got %v", got)
	}
	if got := remote.Cause(t.Context(), errors.New("canary")); strings.Contains(got.Error(), "canary") {
		t.Errorf("got %v", got)
	}
}
