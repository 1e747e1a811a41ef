package pcclient_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	customerID = "11111111-1111-4111-8111-11111111abcd"
	allowed    = `{"type":"account","status":"Allowed","lastUpdateDateTime":""}`

	// patience is how long a test waits for what has to happen at once.
	patience = 10 * time.Second
)

// clock is the client's clock. It stands still unless a test moves it.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// asked is one request as a host saw it.
type asked struct {
	method string
	url    string
	header http.Header
	form   url.Values
}

// answerer plays a host. n counts the host's requests from 1.
type answerer func(w http.ResponseWriter, r *http.Request, n int)

// host is a real HTTP server that remembers what it was asked.
type host struct {
	*httptest.Server

	mu   sync.Mutex
	seen []asked // guarded by mu
}

func listen(t *testing.T, answer answerer) *host {
	t.Helper()
	h := &host{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A form is read to its end, so that a client's leaving is noticed.
		if err := r.ParseForm(); err != nil {
			t.Errorf("form: %v", err)
		}
		h.mu.Lock()
		h.seen = append(h.seen, asked{r.Method, r.URL.String(), r.Header.Clone(), r.PostForm})
		n := len(h.seen)
		h.mu.Unlock()
		answer(w, r, n)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) asked() []asked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.seen)
}

func (h *host) count() int { return len(h.asked()) }

// responds answers every request alike; header lines are "Name: value".
func responds(status int, body string, header ...string) answerer {
	return func(w http.ResponseWriter, _ *http.Request, _ int) {
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // 204 and its like take none
	}
}

// inTurn gives each answer once, and the last one for ever.
type inTurn []answerer

func (answers inTurn) play(w http.ResponseWriter, r *http.Request, n int) {
	answers[min(n, len(answers))-1](w, r, n)
}

// hang answers nothing until the client leaves.
func hang(_ http.ResponseWriter, r *http.Request, _ int) { <-r.Context().Done() }

// hangBody sends half an answer, and nothing until the client leaves.
func hangBody(w http.ResponseWriter, r *http.Request, _ int) {
	half(w)
	<-r.Context().Done()
}

// reset breaks the connection before any answer.
func reset(w http.ResponseWriter, _ *http.Request, _ int) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// resetBody breaks the connection amid the body.
func resetBody(w http.ResponseWriter, r *http.Request, n int) {
	half(w)
	reset(w, r, n)
}

func half(w http.ResponseWriter) {
	w.Header().Set("Content-Length", fmt.Sprint(len(allowed)))
	_, _ = io.WriteString(w, allowed[:len(allowed)/2])
	_ = http.NewResponseController(w).Flush()
}

// grants gives access token "access-N" and refresh token "refresh-N" to the
// N-th request, good for an hour.
func grants(w http.ResponseWriter, r *http.Request, n int) {
	responds(http.StatusOK, fmt.Sprintf(
		`{"token_type":"Bearer","access_token":"access-%d","expires_in":3600,"refresh_token":"refresh-%d"}`, n, n))(w, r, n)
}

// entra refuses in the login host's shape.
func entra(status int, word string, code int, header ...string) answerer {
	return responds(status, fmt.Sprintf(
		`{"error":%q,"error_description":"AADSTS%d: canary-body","error_codes":[%d],"trace_id":"canary-body"}`, word, code, code), header...)
}

// rig is a client between two hosts.
type rig struct {
	*pcclient.Client

	t        *testing.T
	clock    *clock
	login    *host
	api      *host
	file     string // of the refresh token
	registry *prometheus.Registry
	logs     *observer.ObservedLogs
}

// setup is what differs from two hosts that grant everything.
type setup struct {
	login, api answerer
	config     func(*pcclient.Config)
}

func start(t *testing.T, s setup) *rig {
	t.Helper()
	if s.login == nil {
		s.login = grants
	}
	if s.api == nil {
		s.api = responds(http.StatusOK, allowed)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	r := &rig{
		t:        t,
		clock:    &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
		login:    listen(t, s.login),
		api:      listen(t, s.api),
		file:     filepath.Join(t.TempDir(), "refresh-token"),
		registry: prometheus.NewRegistry(),
		logs:     logs,
	}
	r.write("refresh-0\n")
	cfg := pcclient.Config{
		BaseURL:          r.api.URL,
		Authority:        r.login.URL,
		TenantID:         "partner.example",
		ClientID:         "client-id",
		ClientSecret:     "canary-secret",
		Audience:         "https://api.partnercenter.microsoft.com",
		RefreshTokenFile: r.file,
		Now:              r.clock.Now,
		Logger:           zap.New(core),
		Registerer:       r.registry,
	}
	if s.config != nil {
		s.config(&cfg)
	}
	if cfg.Budget == nil {
		withBudget(100_000)(&cfg)
	}
	client, err := pcclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r.Client = client
	return r
}

func (r *rig) write(token string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(token), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// ask asks for the account, and fails the test unless the answer is "Allowed".
func (r *rig) ask() pcclient.Call {
	r.t.Helper()
	status, call, err := r.ValidationStatus(r.t.Context(), customerID)
	if err != nil || status.Status != "Allowed" {
		r.t.Fatalf("got %+v and %v, want Allowed", status, err)
	}
	return call
}

// askInVain asks for the account, and fails the test unless that fails so.
func (r *rig) askInVain(class pcclient.Class, reason pcclient.Reason) pcclient.APIError {
	r.t.Helper()
	status, call, err := r.ValidationStatus(r.t.Context(), customerID)
	if status != (pcclient.ValidationStatus{}) {
		r.t.Errorf("a failure comes with %+v", status)
	}
	fail := failure(r.t, err, class, reason)
	if fail.Attempts != call.Attempts || fail.RequestID != call.RequestID || fail.CorrelationID != call.CorrelationID {
		r.t.Errorf("error %+v does not go with call %+v", fail, call)
	}
	return fail
}

func failure(t *testing.T, err error, class pcclient.Class, reason pcclient.Reason) pcclient.APIError {
	t.Helper()
	var fail *pcclient.APIError
	if !errors.As(err, &fail) {
		t.Fatalf("got %v, want an APIError of class %v", err, class)
	}
	if fail.Class != class || fail.Reason != reason {
		t.Fatalf("got class %v, reason %q (%v), want %v, %q", fail.Class, fail.Reason, err, class, reason)
	}
	return *fail
}

// counts fails the test unless the hosts were asked so many times in all.
func (r *rig) counts(login, api int) {
	r.t.Helper()
	if l, a := r.login.count(), r.api.count(); l != login || a != api {
		r.t.Fatalf("the login host was asked %d times and Partner Center %d times, want %d and %d", l, a, login, api)
	}
}

// scrape returns what a collector sees, a line for each sample.
func (r *rig) scrape() string {
	r.t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{}).ServeHTTP(w,
		httptest.NewRequestWithContext(r.t.Context(), http.MethodGet, "/", http.NoBody))
	return w.Body.String()
}

// shows reports whether a scrape has this very line, without the prefix that
// all metrics of the package share.
func (r *rig) shows(line string) bool {
	r.t.Helper()
	return strings.Contains(r.scrape(), "\neligibility_partner_center_"+line+"\n")
}

// eventually waits for what happens in the background.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !happened() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("still not: %s", what)
		}
	}
}
