package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// A latency has the trace of a request as its exemplar if the request is traced, and
// none if the caller has a trace that is not sampled.
func TestTracedCallsAreExemplars(t *testing.T) {
	t.Parallel()
	spans, _ := apitest.RecordSpans()
	run := servertest.StartWarm(t, api.Config{Tracer: spans})
	for _, traceparent := range []string{"", "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-b7ad6b7169203331-00", "00-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-b7ad6b7169203331-01"} {
		run.Get(t, apitest.CustomerA, "", "Traceparent", traceparent)
	}
	got := run.Do(t, http.MethodGet, run.Admin+"/metrics", "", "Accept", "application/openmetrics-text; version=1.0.0")
	exemplars := map[string]int{}
	for line := range strings.Lines(string(got.Body)) {
		if name, exemplar, ok := strings.Cut(line, " # "); ok {
			family, _, _ := strings.Cut(name, "{")
			if !strings.HasPrefix(exemplar, `{trace_id="bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}`) {
				t.Errorf("%s has %s", family, exemplar)
			}
			exemplars[family]++
		}
	}
	for _, line := range run.Scrape(t, "eligibility_") {
		if strings.Contains(line, " # ") {
			t.Errorf("in the text format: %s", line)
		}
	}
	if len(exemplars) != 2 || exemplars["eligibility_rpc_duration_seconds_bucket"] != 1 || exemplars["eligibility_check_duration_seconds_bucket"] != 1 {
		t.Errorf("exemplars %v", exemplars)
	}
}
