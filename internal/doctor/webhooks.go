package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/remote"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// checkWebhook checks the secret of a webhook, and connects to its host as the sender
// does. It sends no request.
func (p patient) checkWebhook(ctx context.Context, webhook config.Webhook) []Finding {
	check := "webhook " + webhook.Name
	contents, err := os.ReadFile(webhook.SecretFile)
	if err != nil { // config.Load has read it a moment ago
		return []Finding{failure(check, "make secret_file readable for the user of the service", "its secret cannot be read")}
	}
	secrets, err := config.ParseWebhookSecrets(contents)
	if err != nil {
		return []Finding{failure(check, "correct secret_file", "its secret file %v", err)}
	}
	signed := "signed by one secret"
	if len(secrets) == 2 {
		signed = "signed by the secret and an earlier one"
	}
	ctx, cancel := context.WithTimeout(ctx, hostLimit)
	defer cancel()
	state, err := connectWebhook(ctx, webhook, p.options.Roots)
	at := hostOf(webhook.URL)
	if err != nil {
		return []Finding{webhookUnreachable(check, at, err)}
	}
	if state == nil {
		return []Finding{ok(check, "%s accepts connections, in plain HTTP on loopback; %s", at, signed)}
	}
	ends := state.PeerCertificates[0].NotAfter
	if left := time.Until(ends); left < certificateWarning {
		return []Finding{warning(check, "see to it that the receiver's certificate is renewed", "%s accepts connections, but its certificate ends in %d days", at, int(left.Hours()/24))}
	}
	return []Finding{ok(check, "%s accepts connections, %s; %s", at, tls.VersionName(state.Version), signed)}
}

// connectWebhook connects to the host of a webhook. The state is nil without TLS.
func connectWebhook(ctx context.Context, webhook config.Webhook, roots *x509.CertPool) (*tls.ConnectionState, error) {
	u, err := url.Parse(webhook.URL)
	if err != nil {
		return nil, errors.New("malformed URL")
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	dialer := &net.Dialer{Control: webhooks.RuleFor(webhook.URL, webhook.AllowPrivate).Control}
	address := net.JoinHostPort(u.Hostname(), port)
	if u.Scheme == "http" {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		return nil, conn.Close()
	}
	secure := &tls.Dialer{NetDialer: dialer, Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}
	conn, err := secure.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()         // nothing was sent
	state := conn.(*tls.Conn).ConnectionState() //nolint:forcetypeassert // a tls.Dialer returns no other
	return &state, nil
}

// webhookUnreachable reports the reason if a webhook cannot be connected to.
func webhookUnreachable(check, at string, err error) Finding {
	var (
		lookup      *net.DNSError
		certificate *tls.CertificateVerificationError
		timeout     net.Error
	)
	switch {
	case errors.Is(err, webhooks.ErrAddress):
		return failure(check, "set allow_private: true if the receiver is in a private network; loopback addresses need a loopback host in the url",
			"%s has an address that is not permitted", at)
	case errors.As(err, &lookup):
		return failure(check, "check its url and the name servers of this machine", "DNS: %v", lookup)
	case errors.As(err, &certificate):
		return failure(check, "add the authority of the receiver to those of this system", "%s: %v", at, remote.CertificateError(certificate))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failure(check, "allow outgoing connections to it; proxies in the environment are not used for webhooks", "%s does not answer within %v", at, hostLimit)
	case errors.Is(err, syscall.ECONNREFUSED):
		return failure(check, "start the receiver, or correct its url", "%s refuses connections", at)
	default:
		return failure(check, "check that it speaks TLS 1.2 or newer, and the network", "no connection to %s is possible", at)
	}
}
