package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

const (
	checkInsecure = "insecure"   // of server.insecure
	checkFiles    = "open files" // of ulimit -n
)

// checkListeners reports whether serve could listen on its addresses, and what
// protects those that other machines can reach.
func (p patient) checkListeners(ctx context.Context) []Finding {
	server := p.cfg.Server
	findings := []Finding{
		p.checkCallers(ctx, "listener grpc", "server.grpc.address", server.GRPC.Address),
		p.checkCallers(ctx, "listener http", "server.http.address", server.HTTP.Address),
		checkListener(ctx, "listener admin", "server.admin.address", server.Admin.Address),
	}
	if server.Probe.Address != "" {
		findings = append(findings, checkListener(ctx, "listener probe", "server.probe.address", server.Probe.Address))
	}
	needed := len(p.unprotected()) > 0 && (!isLoopback(server.GRPC.Address) || !isLoopback(server.HTTP.Address))
	if server.Insecure && !needed {
		findings = append(findings, warning(checkInsecure, "remove server.insecure", "nothing needs server.insecure; with it, a later mistake would not end the start"))
	}
	return append(findings, checkDescriptors(app.Descriptors(p.cfg)))
}

// checkDescriptors checks the limit of open files, which is that of this user.
func checkDescriptors(limit, needed uint64) Finding {
	if limit < needed {
		return warning(checkFiles, fmt.Sprintf("raise it to %d, by ulimit -n or LimitNOFILE= of systemd, or lower server.limits.connections", needed),
			"%d files may be open, and the connections of callers may need %d; the service keeps enough of them for probes", limit, needed)
	}
	return ok(checkFiles, "as many files may be open as the connections of callers may need")
}

// unprotected lists what callers of gRPC and REST do not meet.
func (p patient) unprotected() []string {
	var missing []string
	if !p.cfg.Server.TLS.Enabled() {
		missing = append(missing, "TLS")
	}
	if !p.cfg.Auth.Enabled() {
		missing = append(missing, "authentication")
	}
	return missing
}

// checkCallers checks a listener for callers.
func (p patient) checkCallers(ctx context.Context, name, key, address string) Finding {
	finding := checkListener(ctx, name, key, address)
	missing := p.unprotected()
	switch {
	case finding.Status == VerdictWarning && p.cfg.Server.TLS.Enabled():
		return p.checkPresented(ctx, finding, address)
	case finding.Status != VerdictOK || isLoopback(address):
		return finding
	case len(missing) > 0:
		return warning(name, "set server.tls and auth, or listen on 127.0.0.1, unless something in front does both",
			"%s can be reached from other machines, without %s (server.insecure)", address, strings.Join(missing, " or "))
	}
	return ok(name, "%s can be reached from other machines, over TLS and with credentials", address)
}

// checkPresented checks that the service that runs presents the certificate of the
// configuration. inUse is the finding if it does.
func (p patient) checkPresented(ctx context.Context, inUse Finding, address string) Finding {
	configured, _, err := readCertificates(p.cfg.Server.TLS.CertificateFile)
	if err != nil {
		return inUse // another check reports that
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}} //nolint:gosec // it is compared below
	conn, err := dialer.DialContext(ctx, "tcp", local(address))
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return warning(inUse.Check, "restart the service if it is the one that is in use; else stop that, or change the address", "what listens on %s speaks no TLS", address)
	case err != nil:
		return inUse
	}
	defer func() { _ = conn.Close() }()
	presented := conn.(*tls.Conn).ConnectionState().PeerCertificates //nolint:forcetypeassert // by the documentation of tls.Dialer
	if len(presented) > 0 && !presented[0].Equal(configured[0]) {
		return warning(inUse.Check, "wait 10 s, then see eligibility_tls_reload_failures_total and the log of the service",
			"what listens on %s presents another certificate than server.tls.certificate_file, valid until %s", address, presented[0].NotAfter.UTC().Format(time.DateTime))
	}
	return inUse
}

// local is the address by which this machine reaches a listener.
func local(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopback.IsHost(host)
}

func checkListener(ctx context.Context, name, key, address string) Finding {
	listener, err := app.Listen(ctx, key, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return warning(name, "none if that is the service itself; else stop it, or change "+key, "%s is in use: is the service running?", address)
	case err != nil:
		return failure(name, "correct "+key, "cannot listen: %v", err)
	}
	_ = listener.Close() // no connection was accepted
	if strings.HasSuffix(address, ":0") {
		return ok(name, "%s takes any free port", address)
	}
	return ok(name, "%s is free", address)
}
