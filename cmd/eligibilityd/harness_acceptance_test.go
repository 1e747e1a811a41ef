//go:build acceptance

package main

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// Tests that build the program run one after the other, before the tests that
// measure how long callers wait.

// seen is one request to the simulator.
type seen struct {
	token      bool      // of the login host
	came, went time.Time // went is when the answer was sent
	status     int       // 0 if the connection was broken instead
	retryAfter time.Duration
}

// witness is a simulator that records every request, to both hosts.
type witness struct {
	*pcsim.Server

	url string

	mu   sync.Mutex
	seen []seen // guarded by mu
}

func startWitness(t *testing.T, cfg pcsim.Config) *witness {
	t.Helper()
	sim, err := pcsim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{Server: sim}
	on := httptest.NewServer(w)
	w.url = on.URL
	t.Cleanup(func() {
		sim.Close()
		on.Close()
	})
	return w
}

func (w *witness) ServeHTTP(out http.ResponseWriter, req *http.Request) {
	noted := &noting{ResponseWriter: out}
	one := seen{token: strings.HasSuffix(req.URL.Path, "/token"), came: time.Now()}
	w.Handler().ServeHTTP(noted, req)
	one.went, one.status = time.Now(), noted.status
	if seconds, err := strconv.Atoi(out.Header().Get("Retry-After")); err == nil {
		one.retryAfter = time.Duration(seconds) * time.Second
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, one)
}

// requests returns the requests to one of the hosts, in order.
func (w *witness) requests(token bool) []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var of []seen
	for _, one := range w.seen {
		if one.token == token {
			of = append(of, one)
		}
	}
	slices.SortFunc(of, func(a, b seen) int { return a.came.Compare(b.came) })
	return of
}

// noting records the status of an answer.
type noting struct {
	http.ResponseWriter

	status int
}

func (n *noting) WriteHeader(status int) {
	n.status = status
	n.ResponseWriter.WriteHeader(status)
}

// Unwrap lets the simulator break the connection.
func (n *noting) Unwrap() http.ResponseWriter { return n.ResponseWriter }

// dial returns a connection to p that all callers of a test share.
func (p *process) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// pause waits for d and reports whether ctx is still valid.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// times are durations of calls.
type times []time.Duration

func (d times) quantile(q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func (d times) String() string {
	return fmt.Sprintf("%d calls, p50 %v, p99 %v, slowest %v", len(d),
		d.quantile(0.5).Round(time.Microsecond), d.quantile(0.99).Round(time.Microsecond), d.quantile(1).Round(time.Microsecond))
}
