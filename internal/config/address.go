package config

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

// hostname matches a name that a resolver could know. Underscores are allowed
// because container runtimes use them.
var hostname = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?$`)

// isHost reports whether host is an IP address or a name.
func isHost(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || len(host) <= 253 && hostname.MatchString(host)
}

// splitListener splits an address to listen on. If the address is invalid,
// problem describes why.
func splitListener(address string) (host string, port int, problem string) {
	host, text, err := net.SplitHostPort(address)
	if err != nil || host != "" && !isHost(host) {
		return "", 0, show(address) + " is not host:port; write e.g. 127.0.0.1:9090"
	}
	port, ok := parsePort(text)
	if !ok {
		return "", 0, show(address) + " has no port from 0 to 65535"
	}
	return host, port, ""
}

// canonical returns an address in one form, so that its common spellings
// compare equal.
func canonical(host string, port int) string {
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	if addr, err := netip.ParseAddr(host); err == nil && !addr.IsUnspecified() {
		host = addr.String()
	} else if err == nil {
		host = ""
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.Itoa(port))
}

// isHostPort reports whether address can be dialled.
func isHostPort(address string) bool {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	port, ok := parsePort(text)
	return ok && port > 0 && isHost(host)
}

// parsePort accepts digits only, because service names differ between machines.
func parsePort(text string) (port int, ok bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return int(n), err == nil
}

// splitURL parses an absolute URL of one of schemes that is safe to send
// credentials to, and drops trailing slashes. If the URL is invalid, problem
// describes why without repeating it.
func splitURL(text string, schemes ...string) (u *url.URL, problem string) {
	u, err := url.Parse(text)
	if err != nil || !isHost(u.Hostname()) || !slices.Contains(schemes, u.Scheme) {
		return nil, "must be an absolute URL, such as https://host.example"
	}
	port, ok := parsePort(u.Port())
	switch {
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && (!ok || port == 0):
		return nil, "must have a port from 1 to 65535 or none"
	case u.User != nil:
		return nil, "must not hold a user name or password"
	case strings.ContainsAny(text, "?#"):
		return nil, "must not have a query or a fragment"
	case u.Scheme == "http" && !loopback.IsHost(u.Hostname()):
		return nil, "must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)"
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, ""
}
