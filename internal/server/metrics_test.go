package server

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// scrape returns the lines of /metrics that begin so.
func (r *running) scrape(t *testing.T, prefix string) []string {
	t.Helper()
	got := r.do(t, http.MethodGet, r.admin+"/metrics", "")
	if got.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %d", got.StatusCode)
	}
	var lines []string
	for line := range strings.Lines(string(got.body)) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// TestEveryMetricIsScraped makes each thing happen that a metric counts, and
// wants the count on /metrics.
func TestEveryMetricIsScraped(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 100)
	run := start(t, setup{
		source: noticed(started, approved()),
		api:    ChainConfig{Version: "v1.2.3", Commit: "abc", MaxConcurrent: 1},
	})
	if _, err := run.client.CheckEligibility(t.Context(), ask(customerA)); err != nil {
		t.Fatal(err)
	}
	run.get(t, customerA, "?segment=nonprofit")
	run.get(t, "no-guid", "")
	run.post(t, `{"requests":[{"customerId":"`+customerA+`"},{"customerId":"no-guid"}]}`)
	run.chain.inFlight.Store(7) // as if seven were in progress: one more is too many
	run.get(t, customerA, "")
	inProgress := run.scrape(t, "eligibility_rpcs_in_progress ")
	run.chain.inFlight.Store(0)
	run.store.broken = true
	run.get(t, customerA, "")

	if len(inProgress) != 1 || inProgress[0] != "eligibility_rpcs_in_progress 7" {
		t.Errorf("in progress: %q", inProgress)
	}
	for _, want := range []string{
		`eligibility_rpcs_total{code="OK",rpc="CheckEligibility",via="grpc"} 1`,
		`eligibility_rpcs_total{code="OK",rpc="CheckEligibility",via="rest"} 1`,
		`eligibility_rpcs_total{code="INVALID_ARGUMENT",rpc="CheckEligibility",via="rest"} 1`,
		`eligibility_rpcs_total{code="RESOURCE_EXHAUSTED",rpc="CheckEligibility",via="rest"} 1`,
		`eligibility_rpcs_total{code="INTERNAL",rpc="CheckEligibility",via="rest"} 1`,
		`eligibility_rpcs_total{code="OK",rpc="BatchCheckEligibility",via="rest"} 1`,
		`eligibility_rpc_duration_seconds_count{rpc="CheckEligibility",via="grpc"} 1`,
		`eligibility_rpc_duration_seconds_count{rpc="CheckEligibility",via="rest"} 4`,
		`eligibility_decisions_total{decision="ALLOWED",reason="ACCOUNT_ALLOWED"} 2`,
		`eligibility_decisions_total{decision="BLOCKED",reason="QUALIFICATION_MISSING"} 1`,
		`eligibility_errors_total{reason="INVALID_ARGUMENT"} 2`,
		`eligibility_errors_total{reason="OVERLOADED"} 1`,
		`eligibility_errors_total{reason="INTERNAL"} 1`,
		`eligibility_errors_total{reason="PARTNER_CENTER_CREDENTIALS"} 0`,
		`eligibility_questions_total{outcome="decided"} 3`,
		`eligibility_overloaded_total 1`,
		`eligibility_panics_total 1`,
		`eligibility_rpcs_in_progress 0`,
		`eligibility_connections{listener="grpc"} 1`,
		`eligibility_connections_refused_total{listener="http"} 0`,
		`eligibility_grpc_streams_waiting 0`,
		`eligibility_grpc_streams_timed_out_total 0`,
		`eligibility_build_info{commit="abc",go_version="go1.`,
	} {
		if got := run.scrape(t, want); len(got) != 1 {
			t.Errorf("no %s among\n%s", want, strings.Join(run.scrape(t, want[:strings.IndexAny(want, "{ ")]), "\n"))
		}
	}

	// Nothing is registered that this test does not know.
	families, err := run.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "eligibility_") || family.GetHelp() == "" {
			t.Errorf("metric %s: %q", family.GetName(), family.GetHelp())
		}
	}
	if len(families) != 13 {
		t.Errorf("%d metrics, this test knows 13", len(families))
	}
}

// TestEveryReasonIsCounted wants a counter for each reason, on each side on
// which the rule can put it.
func TestEveryReasonIsCounted(t *testing.T) {
	t.Parallel()
	m, err := newMetrics(prometheus.NewRegistry(), []Service{{Desc: &eligibilityv1.EligibilityService_ServiceDesc}}, "", "", func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	for code := eligibility.ReasonAccountAllowed; code <= eligibility.ReasonUndecidable; code++ {
		allowed, blocked := m.allowed[code] != nil, m.blocked[code] != nil
		// It never stands first in an allowing answer, and cannot block.
		if code != eligibility.ReasonQualificationApproved && !allowed && !blocked {
			t.Errorf("%v is not counted", code)
		}
	}
	for _, kind := range eligibility.Kinds() {
		m.failed(&eligibility.Error{Kind: kind}, 1) // must not meet a nil counter
	}
	for _, method := range eligibilityv1.EligibilityService_ServiceDesc.Methods {
		series := m.rpcs["/"+eligibilityv1.EligibilityService_ServiceDesc.ServiceName+"/"+method.MethodName]
		if series.grpc == nil || series.rest == nil {
			t.Errorf("%s is not counted", method.MethodName)
		}
	}
}
