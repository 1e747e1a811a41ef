package pcclient_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

func TestEveryMetricIsThereFromTheStart(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		got = append(got, family.GetName())
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", family.GetName())
		}
	}
	slices.Sort(got)
	const prefix = "eligibility_partner_center_"
	want := []string{
		prefix + "breaker_open",
		prefix + "budget_level",
		prefix + "budget_limit",
		prefix + "budget_refused_total",
		prefix + "client_credential_failures_total",
		prefix + "credentials_alert",
		prefix + "fetches_total",
		prefix + "lane_wait_seconds",
		prefix + "login_breaker_open",
		prefix + "login_pause_seconds",
		prefix + "pause_seconds",
		prefix + "refresh_token_age_seconds",
		prefix + "refresh_token_expires_in_seconds",
		prefix + "refresh_token_store_failures_total",
		prefix + "refresh_token_unstored",
		prefix + "refusals_total",
		prefix + "request_duration_seconds",
		prefix + "retries_total",
		prefix + "token_renewals_total",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMetricsSayWhatHappened(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		config: withBudget(10), // one at once
		api: inTurn{
			responds(http.StatusOK, allowed),
			responds(http.StatusNotFound, `{"code":600074}`),
			responds(http.StatusTooManyRequests, "", "Retry-After: 57"),
		}.play,
	})
	r.ask()
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
	r.clock.advance(6 * time.Second)
	if status, _, err := r.ValidationStatus(t.Context(), customerID); err != nil || !status.None {
		t.Fatalf("got %+v, %v", status, err)
	}
	r.clock.advance(6 * time.Second)
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled)
	r.clock.advance(7 * time.Second)
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonPaused)
	for _, line := range []string{
		`fetches_total{op="validation_status",outcome="ok"} 1`,
		`fetches_total{op="validation_status",outcome="no_status"} 1`,
		`fetches_total{op="validation_status",outcome="budget"} 1`,
		`fetches_total{op="validation_status",outcome="throttled"} 1`,
		`fetches_total{op="validation_status",outcome="paused"} 1`,
		`fetches_total{op="qualifications",outcome="ok"} 0`,
		`request_duration_seconds_count{op="validation_status",outcome="ok"} 1`,
		`request_duration_seconds_count{op="validation_status",outcome="throttled"} 1`,
		`refusals_total{reason="budget"} 1`,
		`refusals_total{reason="paused"} 1`,
		`token_renewals_total{outcome="ok"} 1`,
		`pause_seconds 50`,
	} {
		if !r.shows(line) {
			t.Errorf("no line %s in\n%s", line, r.scrape())
		}
	}
}

func TestAlertIsOfEachOperation(t *testing.T) {
	t.Parallel()
	const (
		alertAccount        = `credentials_alert{op="validation_status"} 1`
		alertQualifications = `credentials_alert{op="qualifications"} 1`
		alertToken          = `credentials_alert{op="token"} 1`
	)
	r := start(t, setup{
		login: inTurn{entra(400, "invalid_grant", 700082), grants}.play,
		api: inTurn{
			responds(http.StatusForbidden, `{"code":900308}`), // account
			responds(http.StatusOK, `[]`),                     // qualifications
			responds(http.StatusInternalServerError, `{"isRetryable":false}`),
			responds(http.StatusOK, allowed),
		}.play,
	})
	alerts := func(want ...string) {
		t.Helper()
		for _, line := range []string{alertAccount, alertQualifications, alertToken} {
			if got := r.shows(line); got != slices.Contains(want, line) {
				t.Errorf("%s: %v", line, got)
			}
		}
	}
	alerts()
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	alerts(alertToken)
	r.clock.advance(30 * time.Second)
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonForbidden)
	alerts(alertAccount)
	if _, _, err := r.Qualifications(t.Context(), customerID); err != nil {
		t.Fatal(err)
	}
	alerts(alertAccount)
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	alerts(alertAccount) // a failure proves nothing about credentials
	r.ask()
	alerts()
}
