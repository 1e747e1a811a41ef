package rest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// cost is what answering a batch takes: CPU time of this process, bytes allocated
// and bytes answered.
type cost struct {
	cpu       time.Duration
	allocated uint64
	answered  int
}

func costOf(tb testing.TB, handler http.Handler, body string) cost {
	tb.Helper()
	var before, after runtime.MemStats
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "http://localhost/v1/customers:batchCheckEligibility", strings.NewReader(body))
	w := httptest.NewRecorder()
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := cpuTime(tb)
	handler.ServeHTTP(w, req)
	took := cpuTime(tb) - start
	runtime.ReadMemStats(&after)
	return cost{took, after.TotalAlloc - before.TotalAlloc, w.Body.Len()}
}

func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestABatchCostsNoMoreThanItsBytes holds bodies of each shape to a cost for each
// byte. A reader that repeats work for each member takes a hundred times as much.
//
//nolint:paralleltest // it measures the process
func TestABatchCostsNoMoreThanItsBytes(t *testing.T) {
	handler := servertest.StartWarm(t, api.Config{PlainRecords: 1}).Handler
	const size = 200_000
	for name, body := range rest.Costly(size) {
		// The race detector takes ten times as long.
		const most = 30*time.Millisecond + size*500*time.Nanosecond
		got := costOf(t, handler, body)
		for try := 0; got.cpu > most && try < 3; try++ { // the collector may add to it
			got = costOf(t, handler, body)
		}
		if got.cpu > most {
			t.Errorf("%s: %v of CPU, want at most %v", name, got.cpu, most)
		}
		if most := uint64(1<<20 + 16*size); got.allocated > most {
			t.Errorf("%s: %d bytes allocated, want at most %d", name, got.allocated, most)
		}
		if most := 128 << 10; got.answered > most {
			t.Errorf("%s: answered by %d bytes, want at most %d", name, got.answered, most)
		}
	}
}

// TestViolationsAreBounded counts what callers get about a batch in which
// nothing is right.
func TestViolationsAreBounded(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{Source: apitest.Approved()})
	unknown := func(n int) string {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"x%d":0`, i))
		}
		return strings.Join(members, ",")
	}
	item := `{"customerId":"` + apitest.CustomerA + `",` + unknown(50) + `}`
	got := run.Post(t, `{"requests":[`+strings.TrimSuffix(strings.Repeat(item+",", 100), ",")+`]}`)
	results, _ := got.JSON(t)["results"].([]any)
	if len(results) != 100 {
		t.Fatalf("%d results: %.300s", len(results), got.Body)
	}
	for i, result := range results {
		failure, _ := result.(map[string]any)["error"].(map[string]any)
		message := fmt.Sprint(failure["message"])
		named := 20
		if i >= 5 {
			named = 1 // 100 are named already
		}
		if count := strings.Count(message, "is no member of a question"); count != named {
			t.Errorf("item %d names %d violations, want %d", i, count, named)
		}
		if want := fmt.Sprintf(" and %d more", 50-named); !strings.HasSuffix(message, want) {
			t.Errorf("item %d: %q, want %q at its end", i, message, want)
		}
	}

	st := run.Post(t, `{"requests":[{}],`+unknown(250)+`}`).Failure(t)
	for _, detail := range st.Details {
		if n := len(detail.FieldViolations); n > 0 {
			if last := detail.FieldViolations[n-1]; n != 101 || last != (servertest.Violation{Description: "and 150 more"}) {
				t.Errorf("%d violations, the last is %v", n, last)
			}
		}
	}
	if st.Reason() != "INVALID_ARGUMENT" || len(st.Fields()) == 0 {
		t.Errorf("%+v", st)
	}
}
