package pcclient_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

func wantHealth(t *testing.T, host string, got health.Condition, state health.State, kind string) {
	t.Helper()
	if got.State != state || got.Kind != kind || got.Since.IsZero() {
		t.Errorf("%s: %+v, want %v, %q", host, got, state, kind)
	}
}

// One answer after the other changes how Partner Center fares. A refusal for one
// operation stays until that operation works.
func TestHealthFollowsTheLastQuestions(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: inTurn{
		responds(http.StatusOK, allowed),
		responds(http.StatusForbidden, `{"code":1000,"description":"Secret text."}`),
		responds(http.StatusOK, `[]`),
		responds(http.StatusOK, allowed),
		responds(http.StatusOK, `no JSON`),
		responds(http.StatusNotFound, `{"code":600074}`),
		responds(http.StatusTooManyRequests, "", "Retry-After: 60"),
	}.play})
	wantHealth(t, "unused", r.Health(), health.Unknown, "")
	wantHealth(t, "unused login", r.LoginHealth(), health.Unknown, "")
	account := func() { _, _, _ = r.ValidationStatus(t.Context(), customerID) }
	account()
	wantHealth(t, "answered", r.Health(), health.OK, "")
	wantHealth(t, "login", r.LoginHealth(), health.OK, "")

	r.clock.advance(time.Second)
	account()
	refused := r.Health()
	wantHealth(t, "refused", refused, health.Failing, "forbidden")
	r.clock.advance(time.Second)
	if _, _, err := r.Qualifications(t.Context(), customerID); err != nil {
		t.Error(err)
	}
	if got := r.Health(); got != refused {
		t.Errorf("after an answer for the other operation: %+v, before %+v", got, refused)
	}
	account()
	wantHealth(t, "answered again", r.Health(), health.OK, "forbidden")
	r.clock.advance(2 * time.Second)
	account()
	wantHealth(t, "unreadable", r.Health(), health.Degraded, "unreadable")
	account()
	wantHealth(t, "no status is an answer", r.Health(), health.OK, "unreadable")
	r.clock.advance(2 * time.Second)
	account()
	throttled := r.Health()
	wantHealth(t, "throttled", throttled, health.Degraded, "throttled")
	r.clock.advance(2 * time.Second)
	account() // is not sent
	if got := r.Health(); got != throttled {
		t.Errorf("in the pause: %+v, before %+v", got, throttled)
	}
}

// An outage is failing once the circuit breaker is open.
func TestHealthInAnOutage(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		api:    responds(http.StatusInternalServerError, ""),
		config: func(c *pcclient.Config) { withBudget(100_000)(c) },
	})
	ask := func() { _, _, _ = r.ValidationStatus(t.Context(), customerID) }
	ask()
	wantHealth(t, "the first failure", r.Health(), health.Degraded, "server_error")
	for range 9 {
		ask()
	}
	wantHealth(t, "the tenth", r.Health(), health.Failing, "server_error")
	ask()
	wantHealth(t, "while the breaker is open", r.Health(), health.Failing, "server_error")
}

func TestLoginHealth(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: inTurn{
		entra(http.StatusUnauthorized, "invalid_client", 7000222),
		grants,
	}.play})
	if _, _, err := r.ValidationStatus(t.Context(), customerID); err == nil {
		t.Error("answered without a token")
	}
	wantHealth(t, "refused", r.LoginHealth(), health.Failing, "invalid_client")
	wantHealth(t, "partner center", r.Health(), health.Unknown, "")
	r.clock.advance(time.Minute)
	r.ask()
	wantHealth(t, "granted", r.LoginHealth(), health.OK, "invalid_client")
}
