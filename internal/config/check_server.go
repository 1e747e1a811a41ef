package config

import (
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

func (l *loader) checkServer(command Command) {
	l.checkListeners(command)
	l.checkTLS()
	l.checkOrigins()
	l.checkServerLimits()
}

// checkListeners rejects addresses that others can reach without what protects
// them, and addresses that two listeners share.
func (l *loader) checkListeners(command Command) {
	server := &l.cfg.Server
	taken := map[string]string{} // canonical address → key that has it
	for _, listener := range []struct {
		key, address string
		objection    func(Command) string // to an address that other machines can reach
	}{
		{"server.grpc.address", server.GRPC.Address, l.unprotected},
		{"server.http.address", server.HTTP.Address, l.unprotected},
		{"server.admin.address", server.Admin.Address, func(Command) string {
			return "the admin listener must be on loopback, whatever else is set, because it has pprof; server.probe serves health and metrics to other machines"
		}},
		{"server.probe.address", server.Probe.Address, devOnly},
	} {
		if listener.key == "server.probe.address" && listener.address == "" {
			continue
		}
		host, port, problem := splitListener(listener.address)
		if problem == "" && !loopback.IsHost(host) {
			if objection := listener.objection(command); objection != "" {
				problem = show(listener.address) + " can be reached from other machines: " + objection
			}
		}
		if problem != "" {
			l.object(listener.key, "%s", problem)
			continue
		}
		if port == 0 {
			continue
		}
		address := canonical(host, port)
		if other, ok := taken[address]; ok {
			l.object(listener.key, "is the same address as %s", other)
		}
		taken[address] = listener.key
	}
}

// devOnly returns the objection of dev to an address beyond loopback.
func devOnly(command Command) string {
	if command == Dev {
		return "dev listens on loopback only, such as 127.0.0.1"
	}
	return ""
}

// unprotected returns the objection to an address of callers beyond loopback.
func (l *loader) unprotected(command Command) string {
	if objection := devOnly(command); objection != "" || l.cfg.Server.Insecure || l.isRejected("server.insecure") {
		return objection
	}
	var missing []string
	if !l.cfg.Server.TLS.Enabled() && !l.isRejected("server.tls.certificate_file") {
		missing = append(missing, "server.tls")
	}
	if l.lacksMethod() {
		missing = append(missing, "one of auth.certificates, auth.tokens_file and auth.jwt")
	}
	if missing == nil {
		return ""
	}
	return "it needs " + strings.Join(missing, ", and ") + "; use 127.0.0.1, or set server.insecure: true if something in front protects it"
}

func (l *loader) checkTLS() {
	const (
		certificate = "server.tls.certificate_file"
		key         = "server.tls.key_file"
		ca          = "server.tls.client_ca_file"
		clients     = "server.tls.client_certificates"
	)
	tls := &l.cfg.Server.TLS
	if tls.CertificateFile != "" && tls.KeyFile == "" {
		l.object(certificate, "needs its key, in %s", key)
	}
	if tls.KeyFile != "" && tls.CertificateFile == "" {
		l.object(key, "needs the certificate that it belongs to, in %s", certificate)
	}
	if tls.ClientCAFile != "" && tls.CertificateFile == "" {
		l.object(ca, "has no effect without TLS: give %s and %s", certificate, key)
	}
	if _, given := l.origins[clients]; given && tls.ClientCAFile == "" {
		l.object(clients, "has no effect without %s, which client certificates are verified against", ca)
	}
}

// checkOrigins rejects origins that no browser sends, since they are compared
// exactly.
func (l *loader) checkOrigins() {
	l.checkItems("server.http.cors.origins", l.cfg.Server.HTTP.CORS.Origins, originProblem)
}

// originProblem describes why a browser sends no such origin, or is "".
func originProblem(origin string) string {
	const form = "is not an origin: https://host or https://host:port, without a path"
	switch origin {
	case "*":
		return "is *, but origins must be exact; write each"
	case "null":
		return "is null, which is the origin of any sandboxed page"
	}
	u, problem := url.Parse(origin)
	if problem != nil || u.Scheme != "https" && u.Scheme != "http" || !isHost(u.Hostname()) {
		return form
	}
	exact := u.Scheme + "://" + strings.ToLower(u.Host)
	if port := u.Port(); port != "" {
		if n, ok := parsePort(port); !ok || n == 0 {
			return form
		}
		if net.JoinHostPort("", port) == map[string]string{"http": ":80", "https": ":443"}[u.Scheme] {
			return "has the port that browsers leave out; leave it out"
		}
	}
	switch {
	case strings.EqualFold(origin, exact) && origin != exact:
		return "must be in lower case, as browsers send it"
	case origin != exact || strings.HasSuffix(u.Host, ":"):
		return form
	}
	return ""
}

func (l *loader) checkServerLimits() {
	limits := &l.cfg.Server.Limits
	for _, d := range []struct {
		name         string
		value, least time.Duration
	}{
		{"connection_age", limits.ConnectionAge, time.Second},
		{"connection_grace", limits.ConnectionGrace, 1},
		{"first_request", limits.FirstRequest, 1},
		{"idle", limits.Idle, 1},
	} {
		l.checkDuration("server.limits."+d.name, d.value, d.least, longest)
	}
	for _, n := range []struct {
		name                   string
		value, least, greatest int
	}{
		{"connections", limits.Connections, 1, 1_000_000},
		{"header_bytes", limits.HeaderBytes, 1 << 10, 1 << 20},
		{"grpc_body_bytes", limits.GRPCBodyBytes, 1 << 10, 64 << 20},
		{"rest_body_bytes", limits.RESTBodyBytes, 1 << 10, 64 << 20},
		{"streams_per_connection", limits.StreamsPerConnection, 1, 100_000},
		{"concurrent", limits.Concurrent, 1, 1_000_000},
	} {
		l.checkCount("server.limits."+n.name, n.value, n.least, n.greatest)
	}
}
