package webhooks_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// startReceiver starts a receiver with TLS, and returns the configuration of a
// webhook that calls it.
func startReceiver(t *testing.T, handler http.HandlerFunc) (*httptest.Server, webhooks.Config) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	t.Cleanup(server.Close)
	cfg := configOf(newFeed(), webhooks.NewMemory())
	cfg.URL = server.URL + "/eligibility?shop=1"
	cfg.Roots = x509.NewCertPool()
	cfg.Roots.AddCert(server.Certificate())
	return server, cfg
}

func TestARequestVerifiesByTheLibraryOfStandardWebhooks(t *testing.T) {
	t.Parallel()
	secrets := [][]byte{bytes.Repeat([]byte("n"), 24), bytes.Repeat([]byte("o"), 64)}
	const id, event = "customer:account:1", `{"id":"customer:account:1","data":{}}`
	var got atomic.Pointer[received]
	_, cfg := startReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(&received{header: r.Header, body: body, id: r.Method + " " + r.URL.String()})
	})
	cfg.Secrets = func() [][]byte { return secrets }
	if outcome, status, _, err := webhooks.New(cfg).Attempt(t.Context(), id, []byte(event)); outcome != "delivered" || status != 200 || err != nil {
		t.Fatal(outcome, status, err)
	}
	request := got.Load()
	if request.id != "POST /eligibility?shop=1" || string(request.body) != event {
		t.Errorf("%s %s", request.id, request.body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/cloudevents+json; charset=utf-8", "Webhook-Id": id, "User-Agent": "eligibilityd",
	} {
		if have := request.header.Get(name); have != want {
			t.Errorf("%s: %q", name, have)
		}
	}
	for i, secret := range append(secrets, bytes.Repeat([]byte("x"), 32)) {
		verifier, err := standardwebhooks.NewWebhook("whsec_" + base64.StdEncoding.EncodeToString(secret))
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(request.body, request.header); (err == nil) != (i < 2) {
			t.Errorf("secret %d: %v", i, err)
		}
		if verifier.Verify(append(request.body, ' '), request.header) == nil {
			t.Errorf("secret %d verifies another body", i)
		}
	}
}

func TestOutcomesOfAttempts(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	t.Cleanup(func() {
		other.Close()
		if elsewhere.Load() != 0 {
			t.Error("a redirect was followed")
		}
	})
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	const timeout = 300 * time.Millisecond
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		outcome string
		status  int
		wait    time.Duration
	}{
		"no content":       {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, "delivered", 204, 0},
		"slow but in time": {func(http.ResponseWriter, *http.Request) { time.Sleep(timeout / 10) }, "delivered", 200, 0},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, "redirected", 307, 0},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
			case <-ended:
			}
		}, "timeout", 0, 0},
		"accepts and sends a huge body": {func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 1<<20)
			for range 1000 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "delivered", 200, 0},
		"accepts and hangs in the middle of the body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_ = http.NewResponseController(w).Flush()
			<-ended
		}, "delivered", 200, 0},
		"accepts and closes in the middle of the body": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "delivered", 200, 0},
		"closes without a response": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unreachable", 0, 0},
		"huge headers": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Huge", strings.Repeat("a", 1<<20))
		}, "unreachable", 0, 0},
		"refuses":             {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, "refused", 401, 0},
		"fails":               {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "failed", 500, 0},
		"is gone":             {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, "gone", 410, 0},
		"is throttled":        {retryAfter(http.StatusTooManyRequests, "7"), "throttled", 429, 7 * time.Second},
		"asks to wait a year": {retryAfter(http.StatusServiceUnavailable, "31536000"), "failed", 503, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, cfg := startReceiver(t, c.handler)
			s := webhooks.New(cfg)
			if c.outcome == "timeout" {
				s.SetTimeout(timeout)
			}
			start := time.Now()
			outcome, status, wait, _ := s.Attempt(t.Context(), "id", []byte("{}"))
			if outcome != c.outcome || status != c.status || wait != c.wait {
				t.Errorf("%s %d %v", outcome, status, wait)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func retryAfter(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", text)
		w.WriteHeader(status)
	}
}

func TestNothingListens(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := configOf(newFeed(), webhooks.NewMemory())
	cfg.URL = "http://" + listener.Addr().String()
	_ = listener.Close()
	if outcome, _, _, err := webhooks.New(cfg).Attempt(t.Context(), "id", nil); outcome != "unreachable" || err == nil {
		t.Error(outcome, err)
	}
}

func TestTLSOfReceivers(t *testing.T) {
	t.Parallel()
	server, cfg := startReceiver(t, func(http.ResponseWriter, *http.Request) {})
	untrusted := cfg
	untrusted.Roots = x509.NewCertPool()
	if outcome, _, _, err := webhooks.New(untrusted).Attempt(t.Context(), "id", nil); outcome != "unreachable" || err == nil || err.Error() != "tls: certificate of an unknown authority" {
		t.Errorf("an unknown authority: %s, %v", outcome, err)
	}
	old := httptest.NewUnstartedServer(server.Config.Handler)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	old.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	old.StartTLS()
	t.Cleanup(old.Close)
	cfg.URL = old.URL
	cfg.Roots.AddCert(old.Certificate())
	if outcome, _, _, err := webhooks.New(cfg).Attempt(t.Context(), "id", nil); outcome != "unreachable" || err == nil {
		t.Errorf("TLS 1.1: %s, %v", outcome, err)
	}
}

func TestACanceledAttemptIsNoFailure(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, cfg := startReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	if outcome, _, _, err := webhooks.New(cfg).Attempt(ctx, "id", nil); outcome != "canceled" || !errors.Is(err, context.Canceled) {
		t.Error(outcome, err)
	}
}

// Texts of a receiver may hold anything.
func TestTheLogRepeatsNothingOfAReceiver(t *testing.T) {
	t.Parallel()
	for _, handler := range []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://canary.example/")
			w.Header().Set("X-Canary", "canary")
			w.WriteHeader(http.StatusFound)
			_, _ = w.Write([]byte("canary"))
		},
		func(w http.ResponseWriter, _ *http.Request) {
			if hijacker, ok := w.(http.Hijacker); ok {
				conn, _, _ := hijacker.Hijack()
				_, _ = conn.Write([]byte("HTTP/1.1 canary canary\r\ncanary: canary\r\n\r\n"))
				_ = conn.Close()
			}
		},
	} {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		core, logs := observer.New(zap.DebugLevel)
		f := newFeed()
		cfg := configOf(f, webhooks.NewMemory())
		cfg.URL, cfg.Logger = server.URL+"/?token=canary", zap.New(core)
		stop := start(t, webhooks.New(cfg))
		await(t, "the feed is followed", func() bool { return f.followed() > 0 })
		f.add(1)
		await(t, "a failure is logged", func() bool { return logs.FilterMessage("change not delivered").Len() > 0 })
		stop()
		for _, entry := range logs.All() {
			for key, value := range entry.ContextMap() {
				if text, ok := value.(string); ok && strings.Contains(text, "canary") {
					t.Errorf("%s: %s is %s", entry.Message, key, text)
				}
			}
		}
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"120":                           2 * time.Minute,
		"-1":                            0,
		"1.5":                           0,
		"soon":                          0,
		"99999999999999999999999":       time.Hour,
		"Sat, 28 Nov 2026 12:01:00 GMT": time.Minute,
		"Sat, 28 Nov 2026 11:00:00 GMT": 0,
		"Sat, 28 Nov 2099 11:00:00 GMT": time.Hour,
	} {
		if got := webhooks.ParseRetryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestDelaysDoubleUpToAnHour(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 10: 2560 * time.Second, 11: time.Hour, 1 << 40: time.Hour} {
		for range 100 {
			if got := webhooks.RetryDelay(failures); got > want || got < want*8/10 {
				t.Errorf("%d failures: %v", failures, got)
			}
		}
	}
}

func TestDecisionsAreAddedToTheData(t *testing.T) {
	t.Parallel()
	id, body, err := webhooks.AddDecisions([]byte(`{"id":"1","data":{"a":"}"},"integrity":"x"}`), []byte("null"), []byte(`{"decision":1}`))
	if want := `{"id":"1","data":{"a":"}","decisionBefore":null,"decisionAfter":{"decision":1}},"integrity":"x"}`; id != "1" || string(body) != want || err != nil {
		t.Errorf("%s %s %v", id, body, err)
	}
	for _, malformed := range []string{
		"", "[]", "{", `{"id":1,"data":{"a":1}}`, `{"data":{"a":1}}`, `{"id":"1","data":{}}`, `{"id":"1","data":"x"}`, `{"id":"1"}`,
		`{"id":"` + strings.Repeat("1", 300) + `","data":{"a":1}}`, `{"id":"1","data":{"a":"` + strings.Repeat("1", webhooks.MaxBody) + `"}}`,
	} {
		if _, _, err := webhooks.AddDecisions([]byte(malformed), []byte("null"), []byte("null")); err == nil {
			t.Errorf("%.40s: no error", malformed)
		}
	}
}
