package pcclient

import (
	"compress/flate"
	"compress/gzip"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// maxBodyBytes is the largest body that is read, after decompression.
const maxBodyBytes = 1 << 20

// newTransport returns the transport to both hosts. It sets every limit that
// we rely on. The attempt's context bounds each exchange as a whole.
func newTransport(attemptTimeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: attemptTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    attemptTimeout,
		ResponseHeaderTimeout:  attemptTimeout,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    32,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		// A connection that died silently would fail every attempt on it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// exchange sends one request, at most once as far as we decide, and reads the
// whole answer. It does not follow redirects: a token must not go where an
// answer points. A body that arrives but cannot be read is an
// unreadableError; any other error means that no complete answer came, with
// the response's status and header where they came.
func exchange(transport http.RoundTripper, req *http.Request) (*http.Response, []byte, error) {
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	_ = resp.Body.Close() // nothing is left to lose
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return resp, nil, errEncoding
	case err != nil:
		return resp, nil, err
	case len(body) > maxBodyBytes:
		return resp, nil, errTooLarge
	}
	return resp, body, nil
}
