package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

const (
	// hostLimit bounds the exchange with a host.
	hostLimit = 10 * time.Second
	// certificateWarning is how long before its expiry a certificate is
	// reported.
	certificateWarning = 14 * 24 * time.Hour
	// The login host uses its own clock for tokens and tolerates a difference
	// of a few minutes.
	clockWarning = time.Minute
	clockFailure = 5 * time.Minute
)

// checkHosts checks DNS and TLS to both hosts, and compares our clock with
// theirs.
func (p patient) checkHosts(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, hostLimit)
	defer cancel()
	hosts := []hostCheck{
		{name: "login host", key: "authority", root: p.partner.Authority},
		{name: "partner center host", key: "base_url", root: p.partner.BaseURL},
	}
	findings := make([]Finding, len(hosts)+1)
	ahead := make([]*time.Duration, len(hosts))
	var asking errgroup.Group
	for i, host := range hosts {
		asking.Go(func() error {
			findings[i], ahead[i] = host.check(ctx, p.options.Roots)
			return nil
		})
	}
	_ = asking.Wait() // if a check fails, that is a finding
	findings[len(hosts)] = clock(ahead...)
	return findings
}

// hostCheck is one of the two hosts.
type hostCheck struct{ name, key, root string }

// check sends an anonymous request to a host; any response will do. If the host
// sends a date, check also returns how far its clock is ahead of ours.
func (h hostCheck) check(ctx context.Context, roots *x509.CertPool) (Finding, *time.Duration) {
	transport := &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.root+"/", http.NoBody)
	if err != nil {
		return failure(h.name, "correct partner_center."+h.key, "no request can be made of partner_center.%s", h.key), nil
	}
	req.Header.Set("User-Agent", "eligibilityd doctor")
	sent := time.Now()
	resp, err := transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return h.unreachable(err), nil
	}
	_ = resp.Body.Close() // any response proves that it is reachable
	received := time.Now()
	var ahead *time.Duration
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// A date has whole seconds, so on average it is half a second old.
		d := date.Add(time.Second / 2).Sub(sent.Add(received.Sub(sent) / 2))
		ahead = &d
	}
	return h.reached(resp.TLS, received), ahead
}

func (h hostCheck) reached(state *tls.ConnectionState, now time.Time) Finding {
	if state == nil {
		return ok(h.name, "%s answers, in plain HTTP on loopback", h.root)
	}
	ends := state.PeerCertificates[0].NotAfter
	days := int(ends.Sub(now).Hours() / 24)
	if ends.Sub(now) < certificateWarning {
		return warning(h.name, "see to it that the host's certificate is renewed", "%s answers, but its certificate ends in %d days", h.root, days)
	}
	return ok(h.name, "%s answers, %s, certificate valid for %d more days", h.root, tls.VersionName(state.Version), days)
}

// unreachable reports the reason if a host did not answer.
func (h hostCheck) unreachable(err error) Finding {
	var (
		lookup      *net.DNSError
		certificate *tls.CertificateVerificationError
		invalid     x509.CertificateInvalidError
		timeout     net.Error
	)
	at := hostOf(h.root)
	switch {
	case errors.As(err, &lookup):
		return failure(h.name, "check partner_center."+h.key+", the name servers and the proxy of this machine", "DNS: %v", lookup)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure(h.name, "check the clock of this machine first, then the host's certificate", "TLS: %s: the certificate is not valid at this time", at)
	case errors.As(err, &certificate):
		return failure(h.name, "a proxy that opens TLS needs its authority among those of this system", "%s: %v", at, remote.CertificateError(certificate))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failure(h.name, "allow outgoing connections to it, or set HTTPS_PROXY", "%s does not answer within %v", at, hostLimit)
	case errors.Is(err, syscall.ECONNREFUSED):
		return failure(h.name, "check partner_center."+h.key+" and the firewall", "%s refuses connections", at)
	default:
		return failure(h.name, "check partner_center."+h.key+", the network and the proxy", "no HTTP exchange with %s is possible", at)
	}
}

func hostOf(root string) string {
	if u, err := url.Parse(root); err == nil {
		return u.Host
	}
	return "the host"
}

// clock compares our clock with those of the hosts that sent a date.
func clock(ahead ...*time.Duration) Finding {
	var worst *time.Duration
	for _, d := range ahead {
		if d != nil && (worst == nil || d.Abs() > worst.Abs()) {
			worst = d
		}
	}
	if worst == nil {
		return skipped("clock", "no host sent its time")
	}
	by := worst.Abs().Round(time.Second)
	direction := "behind"
	if *worst < 0 {
		direction = "ahead of"
	}
	const remedy = "synchronise the clock of this machine (NTP): tokens and their lives depend on it"
	switch {
	case by >= clockFailure:
		return failure("clock", remedy, "this machine is %v %s Microsoft", by, direction)
	case by >= clockWarning:
		return warning("clock", remedy, "this machine is %v %s Microsoft", by, direction)
	default:
		return ok("clock", "within %d s of Microsoft", int(math.Ceil(worst.Abs().Seconds())))
	}
}
