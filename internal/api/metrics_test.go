package api_test

import (
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"
)

// TestEveryMetricIsScraped makes each thing happen that a metric counts, and
// wants the count on /metrics.
func TestEveryMetricIsScraped(t *testing.T) {
	t.Parallel()
	started := make(chan struct{}, 100)
	run := servertest.Start(t, servertest.Setup{
		Source: apitest.Noticed(started, apitest.Approved()),
		API:    api.Config{Version: "v1.2.3", Commit: "abc", MaxConcurrent: 1},
	})
	if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
		t.Fatal(err)
	}
	run.Get(t, apitest.CustomerA, "?segment=nonprofit")
	run.Get(t, "no-guid", "")
	run.Post(t, `{"requests":[{"customerId":"`+apitest.CustomerA+`"},{"customerId":"no-guid"}]}`)
	run.Chain.SetInFlight(7) // as if seven were in progress: one more is too many
	run.Get(t, apitest.CustomerA, "")
	inProgress := run.Scrape(t, "eligibility_rpcs_in_progress ")
	run.Chain.SetInFlight(0)
	run.Store.Broken = true
	run.Get(t, apitest.CustomerA, "")

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
		`eligibility_check_duration_seconds_count{tier="local"} 1`,
		`eligibility_check_duration_seconds_count{tier="partner_center"} 1`,
		`eligibility_check_duration_seconds_count{tier="none"} 2`, // not the one whose ID is no GUID
		`eligibility_check_duration_seconds_count{tier="redis"} 0`,
		`eligibility_check_duration_seconds_bucket{tier="local",le="0.01"} `,
		`eligibility_check_duration_seconds_bucket{tier="none",le="2"} 2`,
		`eligibility_decisions_total{decision="ALLOWED",reason="ACCOUNT_ALLOWED"} 2`,
		`eligibility_decisions_total{decision="BLOCKED",reason="QUALIFICATION_MISSING"} 1`,
		`eligibility_errors_total{reason="INVALID_ARGUMENT"} 2`,
		`eligibility_errors_total{reason="OVERLOADED"} 1`,
		`eligibility_errors_total{reason="INTERNAL"} 1`,
		`eligibility_errors_total{reason="PARTNER_CENTER_CREDENTIALS"} 0`,
		`eligibility_questions_total{outcome="decided"} 3`,
		`eligibility_overloaded_total 1`,
		`eligibility_caller_requests_total{caller="anonymous",code="OK"} 3`,
		`eligibility_panics_total 1`,
		`eligibility_rpcs_in_progress 0`,
		`eligibility_connections{listener="grpc"} 1`,
		`eligibility_connections_refused_total{listener="http"} 0`,
		`eligibility_grpc_streams_waiting 0`,
		`eligibility_grpc_streams_timed_out_total 0`,
		`eligibility_watch_streams 0`,
		`eligibility_watch_ended_total{reason="max_age"} 0`,
		`eligibility_build_info{commit="abc",go_version="go1.`,
	} {
		if got := run.Scrape(t, want); len(got) != 1 {
			t.Errorf("no %s among\n%s", want, strings.Join(run.Scrape(t, want[:strings.IndexAny(want, "{ ")]), "\n"))
		}
	}

	// Nothing is registered that this test does not know.
	families, err := run.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "eligibility_") || family.GetHelp() == "" {
			t.Errorf("metric %s: %q", family.GetName(), family.GetHelp())
		}
	}
	if len(families) != 17 {
		t.Errorf("%d metrics, this test knows 17", len(families))
	}
}
