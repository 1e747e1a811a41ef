package pcclient_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// A clock that is set back must not prolong any wait. Each case brings the
// client into one; a minute after the clock was set back it must be over.
func TestAClockSetBackProlongsNoWait(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	down := responds(http.StatusBadGateway, `{"isRetryable":false}`)
	for name, test := range map[string]struct {
		setup setup
		asks  int
	}{
		"pause after a 429":  {setup{api: inTurn{responds(429, "", "Retry-After: 60"), responds(200, allowed)}.play}, 1},
		"circuit breaker":    {setup{api: inTurn{down, down, down, down, down, down, down, down, down, down, responds(200, allowed)}.play}, 10},
		"refusal":            {setup{login: inTurn{entra(400, "invalid_grant", 50173), grants}.play}, 1},
		"pause of the login": {setup{login: inTurn{responds(429, "", "Retry-After: 60"), grants}.play}, 1},
		"login breaker":      {setup{login: inTurn{reset, reset, reset, grants}.play}, 1},
		"spent budget":       {setup{api: responds(200, allowed), config: withBudget(1)}, 2},
		"paused with budget": {setup{api: inTurn{responds(429, "", "Retry-After: 60"), responds(200, allowed)}.play, config: withBudget(400)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, test.setup)
			r.clock.advance(2 * hour)
			for range test.asks {
				_, _, _ = r.ValidationStatus(t.Context(), customerID)
			}
			_, _, err := r.ValidationStatus(t.Context(), customerID)
			if _, waits := errors.AsType[*pcclient.APIError](err); !waits {
				t.Fatalf("got %v, want a wait", err)
			}
			r.clock.advance(-hour)
			eventually(t, "the wait is over", func() bool {
				if _, _, err = r.ValidationStatus(t.Context(), customerID); err == nil {
					return true
				}
				r.clock.advance(time.Second)
				return false
			})
			if passed := r.clock.Now().Sub(time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)); passed > 61*time.Second {
				t.Errorf("took %v", passed)
			}
		})
	}
}

// The token may have ended meanwhile or not: it is used, and renewed at once.
func TestATokenIsUsedAndRenewedAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	r.ask()
	r.clock.advance(-time.Hour)
	r.ask()
	eventually(t, "renewed", func() bool {
		r.ask()
		return r.bearer() == "access-2"
	})
	if got := r.login.count(); got != 2 {
		t.Errorf("%d token requests, want 2", got)
	}
}

func TestAFailureIsLoggedAgainAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusForbidden, `{"code":900308}`)})
	refused := func(want int) {
		t.Helper()
		r.askInVain(pcclient.ClassCredentials, pcclient.ReasonForbidden)
		if got := r.logs.FilterMessageSnippet("role of sales agent").Len(); got != want {
			t.Errorf("%d records, want %d", got, want)
		}
	}
	refused(1)
	refused(1)
	r.clock.advance(-time.Hour)
	refused(2)
	refused(2)
}
