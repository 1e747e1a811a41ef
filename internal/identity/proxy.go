package identity

import (
	"net/http"
	"net/url"
)

// Proxy is http.ProxyFromEnvironment for https alone. Plain HTTP is sent to this
// machine only: to loopback, or to the identity endpoint of an Azure host, which
// no proxy may see.
func Proxy(req *http.Request) (*url.URL, error) {
	if req.URL.Scheme == "http" {
		return nil, nil //nolint:nilnil // no proxy
	}
	return http.ProxyFromEnvironment(req)
}
