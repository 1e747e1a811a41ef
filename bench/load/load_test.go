package load_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counting answers at once or after wait. If failing is set, every failing-th
// call fails.
type counting struct {
	calls, atOnce, most atomic.Int64
	wait                time.Duration
	failing             int64
}

func (c *counting) Call(context.Context, []byte) error {
	now := c.atOnce.Add(1)
	defer c.atOnce.Add(-1)
	for most := c.most.Load(); now > most; most = c.most.Load() {
		c.most.CompareAndSwap(most, now)
	}
	n := c.calls.Add(1)
	if c.wait > 0 {
		<-time.After(c.wait)
	}
	if c.failing > 0 && n%c.failing == 0 {
		return errors.New("told to fail")
	}
	return nil
}

func (*counting) Close() error { return nil }

func run(t *testing.T, caller load.Caller, cfg load.Config) load.Result {
	t.Helper()
	if cfg.Requests == nil {
		cfg.Requests = [][]byte{nil}
	}
	result, err := load.Run(t.Context(), caller, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestClosedLoopKeepsItsCallersBusy(t *testing.T) {
	t.Parallel()
	caller := &counting{wait: time.Millisecond, failing: 10}
	result := run(t, caller, load.Config{Callers: 8, Duration: 100 * time.Millisecond})
	if got := caller.most.Load(); got != 8 {
		t.Errorf("%d calls were under way at once, want 8", got)
	}
	if all := int64(result.Requests + result.Failures); all != caller.calls.Load() || int64(result.Failures) != all/10 || result.Cause != "told to fail" {
		t.Errorf("of %d calls: %+v", caller.calls.Load(), result)
	}
	if result.Latency.P50 < caller.wait || result.Latency.Max < result.Latency.P99 || result.Latency.P99 < result.Latency.P50 {
		t.Errorf("latency %+v", result.Latency)
	}
}

// tallying counts the calls of each request.
type tallying [16]atomic.Int64

func (c *tallying) Call(_ context.Context, request []byte) error {
	c[request[0]].Add(1)
	return nil
}

func (*tallying) Close() error { return nil }

func TestTheDistributionDecidesWhichRequestsAreDrawn(t *testing.T) {
	t.Parallel()
	var requests [][]byte
	for i := range 16 {
		requests = append(requests, []byte{byte(i)})
	}
	for distribution, uneven := range map[load.Distribution]bool{load.Uniform: false, load.Zipf: true} {
		calls := new(tallying)
		run(t, calls, load.Config{Requests: requests, Distribution: distribution, Callers: 2, Duration: 20 * time.Millisecond})
		first, last := calls[0].Load(), calls[15].Load()
		if last == 0 || (first > 5*last) != uneven {
			t.Errorf("%s: the first request was drawn %d times, the last %d", distribution, first, last)
		}
	}
}

func TestWarmupIsNotMeasured(t *testing.T) {
	t.Parallel()
	caller := &counting{wait: time.Millisecond}
	result := run(t, caller, load.Config{Callers: 1, Warmup: 50 * time.Millisecond, Duration: 20 * time.Millisecond})
	if calls := int(caller.calls.Load()); result.Requests == 0 || result.Requests >= calls {
		t.Errorf("%d of %d calls were measured", result.Requests, calls)
	}
}

// stalling answers one call at a time, and the first only after a while:
// requests that were due in that time have waited, even if their own turn was
// short.
type stalling struct {
	first atomic.Bool
	turn  chan struct{}
}

func (s *stalling) Call(context.Context, []byte) error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.first.CompareAndSwap(false, true) {
		<-time.After(200 * time.Millisecond)
	}
	return nil
}

func (*stalling) Close() error { return nil }

func TestOpenLoopCountsTheWaitOfEveryDueRequest(t *testing.T) {
	t.Parallel()
	result := run(t, &stalling{turn: make(chan struct{}, 1)}, load.Config{Rate: 1000, Duration: 300 * time.Millisecond})
	if result.Requests != 300 {
		t.Errorf("%d requests, want one for each millisecond", result.Requests)
	}
	// 200 of the 300 were due during the stall; half of these waited for more
	// than half of it. If the loop were closed, it would have measured one slow
	// call.
	if result.Latency.P50 < 20*time.Millisecond {
		t.Errorf("the median wait is %v: requests that were due in the stall are missing", result.Latency.P50)
	}
}

func TestRunReadsWhatAProcessSpends(t *testing.T) {
	t.Parallel()
	spin := func(context.Context, []byte) error {
		for end := time.Now().Add(time.Millisecond); ; {
			if !time.Now().Before(end) {
				return nil
			}
		}
	}
	result := run(t, callerFunc(spin), load.Config{Callers: 1, Duration: 200 * time.Millisecond, Processes: []int{os.Getpid()}})
	if result.CPU <= 0 || result.RSSBytes <= 0 || result.CPUPerMillion() <= 0 {
		t.Errorf("%+v", result)
	}
	if peak, err := load.Peak(os.Getpid()); err != nil || peak < result.RSSBytes {
		t.Errorf("the peak is %d, of %d in the end: %v", peak, result.RSSBytes, err)
	}
	if _, err := load.Run(t.Context(), callerFunc(spin), load.Config{Requests: [][]byte{nil}, Callers: 1, Processes: []int{-1}}); err == nil {
		t.Error("a process that is not there was measured")
	}
}

type callerFunc func(context.Context, []byte) error

func (f callerFunc) Call(ctx context.Context, request []byte) error { return f(ctx, request) }
func (callerFunc) Close() error                                     { return nil }

func TestHTTPKeepsConnectionsAndReportsFailures(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/ok":
		case "/last":
			w.Header().Set("Connection", "close")
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer server.Close()
	caller := load.NewHTTP(strings.TrimPrefix(server.URL, "http://"), load.Access{})
	good := run(t, caller, load.Config{Requests: [][]byte{load.HTTPRequest("GET", "/ok", "", nil), load.HTTPRequest("GET", "/last", "", nil)}, Callers: 2, Duration: 50 * time.Millisecond})
	bad := run(t, caller, load.Config{Requests: [][]byte{load.HTTPRequest("POST", "/no", "", []byte("{}"))}, Callers: 2, Duration: 50 * time.Millisecond})
	if err := caller.Close(); err != nil {
		t.Error(err)
	}
	if good.Requests == 0 || good.Failures > 0 || bad.Requests > 0 || !strings.Contains(bad.Cause, "418") {
		t.Errorf("good %+v, bad %+v", good, bad)
	}
}
