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

	"github.com/eligibilityd/eligibilityd/internal/identity"
)

// maxBodyBytes is the largest body that is read, after decompression.
const maxBodyBytes = 1 << 20

// newTransport returns the transport to both hosts. It sets every limit that
// we rely on. The attempt's context bounds each exchange as a whole.
func newTransport(attemptTimeout time.Duration) *http.Transport {
	return &http.Transport{
		Proxy:                  identity.Proxy,
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

// answer is what came back. Its status is 0 if nothing did.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// exchange sends one request and reads the whole answer. It does not follow
// redirects: a token must not follow an answer to another host. If a body arrives
// but cannot be read, the error is an unreadableError; any other error means that
// no complete answer came, although perhaps a status.
func exchange(transport http.RoundTripper, req *http.Request) (answer, error) {
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	_ = resp.Body.Close() // nothing is left to lose
	got := answer{status: resp.StatusCode, header: resp.Header}
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return got, errEncoding
	case err != nil:
		return got, err
	case len(body) > maxBodyBytes:
		return got, errTooLarge
	}
	got.body = body
	return got, nil
}
