package pcclient_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

func TestPauseOf429(t *testing.T) {
	t.Parallel()
	date := func(ahead time.Duration) string {
		return "Retry-After: " + time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(ahead).Format(http.TimeFormat)
	}
	tests := map[string]struct {
		header string
		want   time.Duration
	}{
		"R-01 seconds":       {"Retry-After: 57", 57 * time.Second},
		"R-03 absent":        {"X: y", time.Minute},
		"date":               {date(90 * time.Second), 90 * time.Second},
		"date past":          {date(-time.Hour), time.Second},
		"date far ahead":     {date(24 * time.Hour), 10 * time.Minute},
		"empty":              {"Retry-After: ", time.Minute},
		"words":              {"Retry-After: soon", time.Minute},
		"negative":           {"Retry-After: -5", time.Minute},
		"signed":             {"Retry-After: +5", time.Minute},
		"fraction":           {"Retry-After: 1.5", time.Minute},
		"exponent":           {"Retry-After: 1e9", time.Minute},
		"zero":               {"Retry-After: 0", time.Second},
		"one":                {"Retry-After: 1", time.Second},
		"at the upper bound": {"Retry-After: 600", 10 * time.Minute},
		"beyond it":          {"Retry-After: 601", 10 * time.Minute},
		"absurd":             {"Retry-After: " + strings.Repeat("9", 40), 10 * time.Minute},
		"leading zeros":      {"Retry-After: " + strings.Repeat("0", 40) + "7", 7 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: inTurn{
				responds(http.StatusTooManyRequests, `{"statusCode":429,"message":"x"}`, test.header), responds(http.StatusOK, allowed),
			}.play})
			fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled)
			if fail.RetryAfter != test.want || fail.Attempts != 1 {
				t.Errorf("retry after %v, %d attempts, want %v and 1", fail.RetryAfter, fail.Attempts, test.want)
			}
			r.clock.advance(test.want - time.Microsecond)
			fail = r.askInVain(pcclient.ClassThrottled, pcclient.ReasonPaused)
			if fail.RetryAfter != time.Microsecond || fail.Attempts != 0 {
				t.Errorf("just before the end: retry after %v, %d attempts, want 1µs and 0", fail.RetryAfter, fail.Attempts)
			}
			r.counts(1, 1)
			r.clock.advance(time.Microsecond)
			r.ask()
			r.counts(1, 2)
		})
	}
}

// whichever the limit was, everybody pauses.
func TestPauseHoldsForBothResources(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: inTurn{responds(http.StatusTooManyRequests, "", "Retry-After: 57"), responds(http.StatusOK, `[]`)}.play})
	_, _, err := r.Qualifications(t.Context(), customerID)
	failure(t, err, pcclient.ClassThrottled, pcclient.ReasonThrottled)
	for _, left := range []time.Duration{57 * time.Second, 47 * time.Second, 37 * time.Second} {
		if fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonPaused); fail.RetryAfter != left {
			t.Errorf("account: retry after %v, want %v", fail.RetryAfter, left)
		}
		_, _, err := r.Qualifications(t.Context(), customerID)
		if fail := failure(t, err, pcclient.ClassThrottled, pcclient.ReasonPaused); fail.RetryAfter != left {
			t.Errorf("qualifications: retry after %v, want %v", fail.RetryAfter, left)
		}
		r.clock.advance(10 * time.Second)
	}
	r.counts(1, 1)
	if !r.shows(`refusals_total{reason="paused"} 6`) || !r.shows("pause_seconds 27") {
		t.Errorf("metrics:\n%s", r.scrape())
	}
}

// A burst right after the pause would run into the same limit.
func TestAPauseSavesNothingUp(t *testing.T) {
	t.Parallel()
	r := start(t, setup{
		api:    inTurn{responds(http.StatusOK, allowed), responds(http.StatusTooManyRequests, "", "Retry-After: 57"), responds(http.StatusOK, allowed)}.play,
		config: withBudget(40),
	})
	r.ask()
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled)
	r.clock.advance(57 * time.Second)
	for range 3 { // at the pace of 28 calls a minute
		fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
		if fail.RetryAfter < 2300*time.Millisecond || fail.RetryAfter > 2400*time.Millisecond {
			t.Errorf("come back after %v", fail.RetryAfter)
		}
		r.clock.advance(fail.RetryAfter)
		r.ask()
	}
	r.clock.advance(time.Minute)
	r.ask()
	r.ask()
	r.counts(1, 7)
}

func TestPauseIsNeverShortened(t *testing.T) {
	t.Parallel()
	first, second := make(chan struct{}), make(chan struct{})
	r := start(t, setup{api: inTurn{
		func(w http.ResponseWriter, req *http.Request, n int) {
			close(first)
			<-second
			responds(http.StatusTooManyRequests, "", "Retry-After: 5")(w, req, n)
		},
		responds(http.StatusTooManyRequests, "", "Retry-After: 100"),
	}.play})
	done := make(chan error)
	go func() {
		_, _, err := r.Qualifications(t.Context(), customerID)
		done <- err
	}()
	<-first
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled)
	close(second)
	failure(t, <-done, pcclient.ClassThrottled, pcclient.ReasonThrottled)
	if fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonPaused); fail.RetryAfter != 100*time.Second {
		t.Errorf("retry after %v, want 100s", fail.RetryAfter)
	}
}

// A pause that begins while a replay waits stops the replay as well.
func TestPauseStopsReplays(t *testing.T) {
	t.Parallel()
	failed, paused := make(chan struct{}), make(chan struct{})
	r := start(t, setup{api: inTurn{
		func(w http.ResponseWriter, req *http.Request, n int) {
			close(failed)
			<-paused
			responds(http.StatusBadGateway, "")(w, req, n)
		},
		responds(http.StatusTooManyRequests, ""),
	}.play})
	done := make(chan error)
	go func() {
		_, _, err := r.Qualifications(t.Context(), customerID)
		done <- err
	}()
	<-failed
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled)
	close(paused)
	failure(t, <-done, pcclient.ClassThrottled, pcclient.ReasonPaused)
	r.counts(1, 2)
}

// withBudget sets the requests per minute.
func withBudget(calls int) func(*pcclient.Config) {
	return func(c *pcclient.Config) {
		var err error
		if c.Budget, err = budget.New(budget.Config{PerMinute: calls, Now: c.Now, Registerer: c.Registerer}); err != nil {
			panic(err)
		}
	}
}

//
func TestBudget(t *testing.T) {
	t.Parallel()
	r := start(t, setup{config: withBudget(30)}) // three at once, then one in 2.2 s
	for range 3 {
		r.ask()
	}
	for range 10 { // nothing is taken by a refusal
		fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
		if want := 2178572 * time.Microsecond; fail.RetryAfter != want || fail.Attempts != 0 {
			t.Fatalf("retry after %v, %d attempts, want %v and 0", fail.RetryAfter, fail.Attempts, want)
		}
	}
	r.counts(1, 3) // the token request was free
	r.clock.advance(2200 * time.Millisecond)
	r.ask()
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
	r.clock.advance(time.Hour)
	for range 3 {
		r.ask()
	}
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
	r.counts(2, 7)
	if !r.shows(`refusals_total{reason="budget"} 12`) {
		t.Errorf("metrics:\n%s", r.scrape())
	}
}

func TestBudgetOfLessThanTen(t *testing.T) {
	t.Parallel()
	r := start(t, setup{config: withBudget(1)})
	r.ask()
	if fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget); fail.RetryAfter != 61*time.Second {
		t.Errorf("retry after %v, want 1m1s", fail.RetryAfter)
	}
}

//
func TestReplaysSpendTheBudget(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusBadGateway, ""), config: withBudget(20)})
	if fail := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget); fail.Attempts != 2 {
		t.Errorf("%d attempts, want the 2 that the budget has", fail.Attempts)
	}
	r.counts(1, 2)
}

func TestShortWaitForTheBudget(t *testing.T) {
	t.Parallel()
	r := start(t, setup{config: withBudget(120)}) // twelve at once, then one in half a second
	for range 12 {
		r.ask()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	for range 5 { // who has no time for it takes nothing
		_, _, err := r.ValidationStatus(ctx, customerID)
		failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget)
	}
	began := time.Now()
	r.ask()
	if took := time.Since(began); took < 450*time.Millisecond {
		t.Errorf("waited for %v, want half a second", took)
	}
	r.counts(1, 13)
}
