package pcclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// bearer returns the token of the last request.
func (r *rig) bearer() string {
	r.t.Helper()
	seen := r.api.asked()
	return strings.TrimPrefix(seen[len(seen)-1].header.Get("Authorization"), "Bearer ")
}

func TestManyCallersShareOneTokenRequest(t *testing.T) {
	t.Parallel()
	const callers = 200
	var started sync.WaitGroup
	started.Add(callers)
	r := start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		started.Wait()
		grants(w, req, n)
	}})
	var ended sync.WaitGroup
	for range callers {
		ended.Go(func() {
			started.Done()
			if err := r.Token(t.Context()); err != nil {
				t.Errorf("T-10: %v", err)
			}
		})
	}
	ended.Wait()
	r.counts(1, 0)
}

func TestManyCallersShareOneRefusal(t *testing.T) {
	t.Parallel()
	const callers = 50
	var started sync.WaitGroup
	started.Add(callers)
	r := start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		started.Wait()
		entra(400, "invalid_grant", 700082)(w, req, n)
	}})
	var ended sync.WaitGroup
	for range callers {
		ended.Go(func() {
			started.Done()
			_, call, err := r.ValidationStatus(t.Context(), customerID)
			var fail *pcclient.APIError
			if !errors.As(err, &fail) || fail.Class != pcclient.ClassCredentials {
				t.Errorf("got %v, want a refusal", err)
			} else if fail.CorrelationID != call.CorrelationID {
				t.Error("callers share an error, and with it an id")
			}
		})
	}
	ended.Wait()
	r.counts(1, 0)
}

func TestWaiterLeavesOnItsOwn(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}), make(chan struct{})
	r := start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		close(arrived)
		<-release
		grants(w, req, n)
	}})
	patient := make(chan error)
	canceled, cancel := context.WithCancel(t.Context())
	go func() { patient <- r.Token(canceled) }()
	<-arrived
	hurried, cancelHurried := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelHurried()
	failure(t, r.Token(hurried), pcclient.ClassUnavailable, pcclient.ReasonTimeout)
	cancel() // the one that began the renewal leaves, too
	failure(t, <-patient, pcclient.ClassUnavailable, pcclient.ReasonCanceled)
	close(release)
	if err := r.Token(t.Context()); err != nil {
		t.Error(err)
	}
	r.counts(1, 0)
}

func TestEarlyRenewalKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		if n == 2 {
			<-release
		}
		grants(w, req, n)
	}})
	r.ask()
	r.clock.advance(55*time.Minute - 1)
	r.ask()
	r.clock.advance(1)
	for range 20 { // the first of them begins the renewal
		r.ask()
		if r.bearer() != "access-1" {
			t.Fatalf("got %s before it was there", r.bearer())
		}
	}
	close(release)
	eventually(t, "the new token serves", func() bool {
		r.ask()
		return r.bearer() == "access-2"
	})
	if got := r.login.count(); got != 2 {
		t.Errorf("%d token requests, want 2", got)
	}
}

// T-09.
func TestNoEarlyRenewalBeforeItsTime(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	r.ask()
	r.clock.advance(55*time.Minute - 1)
	for range 10 {
		r.ask()
	}
	r.clock.advance(5*time.Minute + 1) // the end
	r.ask()
	if r.bearer() != "access-2" {
		t.Errorf("a dead token was used: %s", r.bearer())
	}
	r.counts(2, 12)
}

func TestFailedEarlyRenewalIsNotNoticed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		login    answerer
		outcome  string
		requests int // of two renewals
	}{
		"failure":  {responds(http.StatusInternalServerError, ""), "server_error", 3 + 1}, // the second is a probe
		"refusal":  {entra(400, "invalid_grant", 50173), "invalid_grant", 1 + 1},
		"throttle": {responds(http.StatusTooManyRequests, "", "Retry-After: 30"), "throttled", 1 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: inTurn{grants, test.login}.play})
			renewals := func(n int) func() bool {
				return func() bool { return r.shows(fmt.Sprintf("token_renewals_total{outcome=%q} %d", test.outcome, n)) }
			}
			r.ask()
			r.clock.advance(56 * time.Minute)
			r.ask()
			eventually(t, "the renewal has failed", renewals(1))
			r.clock.advance(30*time.Second - 1)
			for range 10 {
				r.ask()
			}
			r.clock.advance(3*time.Second + 1) // the longest jitter
			r.ask()
			eventually(t, "it was tried again", renewals(2))
			if got := r.login.count(); got != 1+test.requests {
				t.Errorf("%d token requests, want %d", got, 1+test.requests)
			}
			if r.bearer() != "access-1" {
				t.Errorf("used %s", r.bearer())
			}
		})
	}
}

// A 401 leads to one renewal and one replay, with the new token.
func TestTokenThatPartnerCenterRefuses(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"A-01 empty":           ``,
		"A-03 text":            `MFA required`,
		"A-06 400":             `{"code":400,"description":"access denied"}`,
		"isRetryable is false": `{"code":400,"isRetryable":false}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: inTurn{responds(http.StatusUnauthorized, body), responds(http.StatusOK, allowed)}.play})
			if call := r.ask(); call.Attempts != 2 {
				t.Errorf("%d attempts, want 2", call.Attempts)
			}
			if r.bearer() != "access-2" {
				t.Errorf("replayed with %s", r.bearer())
			}
			r.ask()
			r.counts(2, 3)
		})
	}
}

func TestManyRefusedCallersShareOneRenewal(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
		if req.Header.Get("Authorization") == "Bearer access-1" {
			responds(http.StatusUnauthorized, "")(w, req, n)
			return
		}
		responds(http.StatusOK, allowed)(w, req, n)
	}})
	var ended sync.WaitGroup
	for range 50 {
		ended.Go(func() {
			if _, _, err := r.ValidationStatus(t.Context(), customerID); err != nil {
				t.Error(err)
			}
		})
	}
	ended.Wait()
	if got := r.login.count(); got != 2 {
		t.Errorf("%d token requests, want 2", got)
	}
}

func TestRenewalThatCuresNothing(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusUnauthorized, `{"code":900421,"description":"canary-body"}`)})
	again := func(attempts, login, api int) {
		t.Helper()
		fail := r.askInVain(pcclient.ClassCredentials, pcclient.ReasonUnauthorized)
		if fail.Attempts != attempts || fail.Code != "900421" || fail.RetryAfter != 0 {
			t.Errorf("got %+v, want %d attempts", fail, attempts)
		}
		r.counts(login, api)
	}
	for i := range 5 { // one customer's 401s leave some for the others
		again(2, i+2, 2*i+2)
	}
	again(1, 6, 11)
	r.clock.advance(10*time.Second - 1)
	again(1, 6, 12)
	r.clock.advance(1)
	again(2, 7, 14)
	again(1, 7, 15)
}

// A token that ends in time may be renewed although a 401 may not.
func TestRenewalThatCuresNothingLeavesTheEndOfATokenAlone(t *testing.T) {
	t.Parallel()
	refuse := responds(http.StatusUnauthorized, "")
	r := start(t, setup{
		login: inTurn{grants, responds(200, `{"token_type":"Bearer","access_token":"brief","expires_in":10}`), grants}.play,
		api:   inTurn{refuse, refuse, responds(http.StatusOK, allowed)}.play,
	})
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonUnauthorized)
	r.clock.advance(10 * time.Second)
	r.ask()
	if r.bearer() != "access-3" {
		t.Errorf("used %s", r.bearer())
	}
}

func TestReplaysAfterARenewalAreBounded(t *testing.T) {
	t.Parallel()
	down, refuse := responds(http.StatusBadGateway, ""), responds(http.StatusUnauthorized, "")
	r := start(t, setup{api: inTurn{down, down, refuse, down}.play})
	if fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError); fail.Attempts != 4 {
		t.Errorf("%d attempts, want 4", fail.Attempts)
	}
	r.counts(2, 4)
}

func TestShortLivedTokens(t *testing.T) {
	t.Parallel()
	grant := func(seconds string) answerer {
		return func(w http.ResponseWriter, req *http.Request, n int) {
			responds(200, fmt.Sprintf(`{"token_type":"Bearer","access_token":"access-%d","expires_in":%s}`, n, seconds))(w, req, n)
		}
	}
	for seconds, test := range map[string]struct{ early, end time.Duration }{
		"1":        {750 * time.Millisecond, time.Second},
		"60":       {45 * time.Second, time.Minute},
		"1200":     {15 * time.Minute, 20 * time.Minute},
		"1201":     {901 * time.Second, 1201 * time.Second},
		"86400":    {24*time.Hour - 5*time.Minute, 24 * time.Hour},
		"99999999": {24*time.Hour - 5*time.Minute, 24 * time.Hour},
	} {
		t.Run(seconds, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: grant(seconds)})
			r.ask()
			r.clock.advance(test.early - 1)
			r.ask()
			r.ask()
			if r.login.count() != 1 {
				t.Fatal("renewed too early")
			}
			r.clock.advance(1)
			r.ask()
			eventually(t, "renewed early", func() bool { return r.shows(`token_renewals_total{outcome="ok"} 2`) })

			late := start(t, setup{login: grant(seconds)})
			late.ask()
			late.clock.advance(test.end)
			late.ask()
			if late.bearer() != "access-2" {
				t.Errorf("used %s after its end", late.bearer())
			}
		})
	}
}

// A 401 that arrives after another has led to a new token is cured by that one.
func TestLateRefusalOfAnOldToken(t *testing.T) {
	t.Parallel()
	held, release := make(chan struct{}), make(chan struct{})
	refuse := responds(http.StatusUnauthorized, "")
	r := start(t, setup{api: inTurn{
		func(w http.ResponseWriter, req *http.Request, n int) {
			close(held)
			<-release
			refuse(w, req, n)
		},
		refuse,
		responds(http.StatusOK, allowed),
	}.play})
	late := make(chan error)
	go func() {
		_, _, err := r.ValidationStatus(t.Context(), customerID)
		late <- err
	}()
	<-held
	r.ask()
	close(release)
	if err := <-late; err != nil {
		t.Error(err)
	}
	if r.bearer() != "access-2" {
		t.Errorf("replayed with %s", r.bearer())
	}
	r.counts(2, 4)
}
