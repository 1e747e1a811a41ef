package pcclient

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/remote"
)

// trusting returns the package's own transport, trusting a test server.
func trusting(t *testing.T, server *httptest.Server) *http.Transport {
	t.Helper()
	transport := newTransport(10 * time.Second)
	transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func get(t *testing.T, url string) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTransportSpeaksHTTP2OverTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Proto != "HTTP/2.0" {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	got, err := exchange(trusting(t, server), get(t, server.URL))
	if err != nil || got.status != http.StatusOK {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTransportRefusesOldTLS(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	server.StartTLS()
	t.Cleanup(server.Close)
	if _, err := exchange(trusting(t, server), get(t, server.URL)); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func TestTransportTrustsNoStranger(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	transport := newTransport(time.Second)
	t.Cleanup(transport.CloseIdleConnections)
	_, err := exchange(transport, get(t, server.URL))
	if fail := transportFailure(t.Context(), OpToken, err); !errors.Is(fail, remote.ErrAuthority) || fail.Reason != ReasonConnection {
		t.Errorf("S-11: got %v", fail)
	}
}

// TestFailuresRepeatNothing lets a far side echo secrets in places that net/http's
// own errors repeat.
func TestFailuresRepeatNothing(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"status line":    "canary canary canary\r\n\r\n",
		"status code":    "HTTP/1.1 canary canary\r\n\r\n",
		"version":        "HTTP/canary 200 OK\r\n\r\n",
		"header":         "HTTP/1.1 200 OK\r\ncanary\r\n\r\n",
		"content length": "HTTP/1.1 200 OK\r\nContent-Length: canary\r\n\r\n",
		"encoding":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: canary\r\n\r\n",
		"chunk":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ncanary\r\n",
		"long header":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("canary", 64<<10) + "\r\n\r\n",
		"nothing":        "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's own listener
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, answer)
				_ = conn.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, conn) // until the client leaves
				_ = conn.Close()
			}()
			transport := newTransport(5 * time.Second)
			got, err := exchange(transport, get(t, "http://"+listener.Addr().String()))
			transport.CloseIdleConnections()
			_ = listener.Close()
			<-ended
			if err == nil || !unanswered(got, err) {
				t.Fatalf("got %v, %v, want no answer", got, err)
			}
			fail := transportFailure(t.Context(), OpQualifications, err)
			if fail.Class != ClassUnavailable || fail.Reason != ReasonConnection {
				t.Errorf("got %+v", fail)
			}
			if strings.Contains(fail.Error(), "canary") {
				t.Errorf("the error repeats the answer: %v", fail)
			}
		})
	}
}

func TestBackoffIsJitteredAndBounded(t *testing.T) {
	t.Parallel()
	for attempts, limit := range map[int]time.Duration{1: 250 * time.Millisecond, 2: 500 * time.Millisecond} {
		shortest, longest := time.Hour, time.Duration(-1)
		for range 1000 {
			delay := backoff(attempts)
			shortest, longest = min(shortest, delay), max(longest, delay)
		}
		if shortest < 0 || shortest > limit/10 || longest < limit*9/10 || longest >= limit {
			t.Errorf("after %d attempts: from %v to %v, want about 0 to %v", attempts, shortest, longest, limit)
		}
	}
}
