// Package loopback recognizes loopback addresses. It also protects HTTP
// listeners that are bound to one and require no credentials: they reject
// requests that a web page in a browser on the same machine sends by DNS
// rebinding or across sites.
package loopback

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// Is reports whether a listener with this address is reachable only from this
// machine.
func Is(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// IsHost reports whether host, without a port, is localhost or a loopback address.
// Other names are not resolved: their addresses may change after the check.
func IsHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}

// Guard wraps next for a listener with this address. If the address is
// loopback, requests that a web page could send are answered with 403; if it is
// not, next is returned unchanged. isPage reports whether links of other sites
// may open a path; if it is nil, they may open none.
func Guard(address net.Addr, next http.Handler, isPage func(path string) bool) http.Handler {
	if !Is(address) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if Refuses(r, isPage != nil && isPage(r.URL.Path)) {
			http.Error(w, "403: the Host must be localhost or a loopback address, and no other site may send the request", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Refuses reports whether a listener on loopback must reject a request: when
// its Host is not a loopback name, or when a browser marks it as sent by
// another site, unless page is set and the user follows a link to it.
func Refuses(r *http.Request, page bool) bool { return RefusesHost(r) || RefusesSite(r, page) }

// RefusesHost reports whether a listener on loopback must reject a request because
// its Host is not a loopback name, whatever its origin is.
func RefusesHost(r *http.Request) bool { return !isName(r.Host) }

// RefusesSite reports whether a listener on loopback must reject a request because a
// browser marks it as sent by another site, whatever its Host is.
func RefusesSite(r *http.Request, page bool) bool {
	return isCrossSite(r) && !(page && isNavigation(r))
}

// isName reports whether a Host, with or without a port, is localhost or a
// loopback address. If a page's own domain now resolves to loopback, its
// requests still carry that domain.
func isName(host string) bool {
	if !strings.Contains(host, ":") { // the error of SplitHostPort would cost memory
		return IsHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		return IsHost(name)
	}
	return IsHost(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// isCrossSite reports whether a browser marks the request as sent by another
// origin. Pages on other ports of this machine are other origins too. If the
// client is not a browser, it sends neither header.
//
// Source: https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header (read 2026-11-27)
func isCrossSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		sender, err := url.Parse(origin)
		return err != nil || !strings.EqualFold(sender.Host, r.Host)
	default:
		return true
	}
}

// isNavigation reports whether the user follows a link. The response is then
// shown to the user and not to the other site.
func isNavigation(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}
