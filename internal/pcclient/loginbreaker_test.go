package pcclient_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// atOnce asks for the account and fails the test unless the circuit breaker of
// the login host rejects the question without delay.
func (r *rig) atOnce() {
	r.t.Helper()
	began := time.Now()
	fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	if fail.Op != pcclient.OpToken || fail.RetryAfter < time.Second || fail.RetryAfter > 5*time.Second {
		r.t.Errorf("got %+v", fail)
	}
	if took := time.Since(began); took > time.Second {
		r.t.Errorf("took %v", took)
	}
}

func TestALoginHostThatFailsIsAskedEveryFiveSeconds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		login   answerer
		outcome string
	}{
		"503":   {responds(http.StatusServiceUnavailable, ""), "server_error"},
		"302":   {responds(http.StatusFound, ""), "unexpected"},
		"501":   {responds(http.StatusNotImplemented, ""), "unexpected"},
		"reset": {reset, "connection"},
		"hang":  {hang, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: test.login, config: func(c *pcclient.Config) {
				if name == "hang" {
					c.AttemptTimeout = 100 * time.Millisecond
				}
			}})
			_, _, err := r.ValidationStatus(t.Context(), customerID)
			if err == nil {
				t.Fatal("an answer without a token")
			}
			before := r.login.count()
			if before > 3 {
				t.Fatalf("%d token requests for one renewal", before)
			}
			if !r.shows("login_breaker_open 1") || !r.shows("breaker_open 0") {
				t.Error("the metrics do not show which breaker is open")
			}
			for n, seconds := range []int{1, 2, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5} { // about a minute
				r.clock.advance(time.Duration(seconds)*time.Second - 1)
				for range 20 {
					r.atOnce()
				}
				if got := r.login.count(); got != before+n {
					t.Fatalf("%d token requests after %d probes", got-before, n)
				}
				r.clock.advance(1)
				for range 20 {
					r.atOnce()
				}
				eventually(t, "the probe has failed", func() bool {
					return r.shows(fmt.Sprintf("token_renewals_total{outcome=%q} %d", test.outcome, n+2))
				})
			}
		})
	}
}

func TestCallersDoNotWaitForAProbeOfTheLoginHost(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var works atomic.Bool
	r := start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		switch {
		case n <= 3:
			responds(http.StatusServiceUnavailable, "")(w, req, n)
		case works.Load():
			<-release
			grants(w, req, n)
		}
	}})
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	works.Store(true)
	r.clock.advance(time.Second)
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(r.atOnce)
	}
	callers.Wait()
	close(release)
	eventually(t, "the probe has brought a token", func() bool { return r.Token(t.Context()) == nil })
	r.ask()
	if got := r.login.count(); got != 4 {
		t.Errorf("%d token requests, want the renewal's three and one probe", got)
	}
	if !r.shows("login_breaker_open 0") {
		t.Error("the metric still shows it open")
	}
}

func TestATokenThatServesGoesOnWhileTheLoginHostFails(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: inTurn{grants, reset}.play})
	r.ask()
	r.clock.advance(55 * time.Minute)
	for n := range 10 {
		r.ask()
		eventually(t, "a renewal has failed", func() bool {
			return r.shows(fmt.Sprintf(`token_renewals_total{outcome="connection"} %d`, n+1))
		})
		r.ask()
		if r.bearer() != "access-1" {
			t.Fatalf("used %q", r.bearer())
		}
		r.clock.advance(30 * time.Second)
	}
	r.atOnce()                                // the token has ended, and the breaker is open
	if got := r.login.count(); got > 1+3+10 { // one renewal in 30 s, all but the first by probe
		t.Errorf("%d token requests", got)
	}
}

// A refusal is an answer: the login host works.
func TestARefusalClosesTheBreakerOfTheLoginHost(t *testing.T) {
	t.Parallel()
	down := responds(http.StatusServiceUnavailable, "")
	r := start(t, setup{login: inTurn{down, down, down, entra(400, "invalid_grant", 50173)}.play})
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	r.clock.advance(time.Second)
	r.atOnce()
	eventually(t, "the refusal is known", func() bool { return r.shows("login_breaker_open 0") })
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	r.counts(4, 0)
}

// Some answers have a page of HTML behind the login host's own JSON object.
func TestARefusalMayBeFollowedByGarbage(t *testing.T) {
	t.Parallel()
	const refusal = `{"error":"invalid_grant","error_codes":[700082],"error_description":"canary-body"}`
	for name, test := range map[string]struct {
		status int
		body   string
		reason pcclient.Reason
		class  pcclient.Class
	}{
		"a page":              {400, refusal + "<html>canary-body</html>", pcclient.ReasonInvalidGrant, pcclient.ClassCredentials},
		"a page, 401":         {401, refusal + "\r\n<!DOCTYPE html>", pcclient.ReasonInvalidGrant, pcclient.ClassCredentials},
		"no UTF-8":            {400, " " + refusal + "\xff\xfe", pcclient.ReasonInvalidGrant, pcclient.ClassCredentials},
		"a byte order mark":   {400, "\xef\xbb\xbf" + refusal + "x", pcclient.ReasonInvalidGrant, pcclient.ClassCredentials},
		"another object":      {400, refusal + `{"error":"invalid_client"}`, pcclient.ReasonInvalidGrant, pcclient.ClassCredentials},
		"a passing failure":   {400, `{"error":"temporarily_unavailable"}<html>`, pcclient.ReasonServerError, pcclient.ClassUnavailable},
		"an unpublished word": {400, `{"error":"canary-body"}<html>`, pcclient.ReasonUnreadable, pcclient.ClassUnavailable},
		"garbage first":       {400, "<html>" + refusal, pcclient.ReasonUnreadable, pcclient.ClassUnavailable},
		"a repeated name":     {400, `{"error":"invalid_grant","error":"x"}<html>`, pcclient.ReasonUnreadable, pcclient.ClassUnavailable},
		"an array":            {400, "[" + refusal + "]", pcclient.ReasonUnreadable, pcclient.ClassUnavailable},
		"another status":      {403, refusal + "<html>", pcclient.ReasonUnreadable, pcclient.ClassUnavailable},
		"a grant":             {200, `{"token_type":"Bearer","access_token":"a","expires_in":3600}<html>`, pcclient.ReasonUnreadable, pcclient.ClassUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: responds(test.status, test.body)})
			r.askInVain(test.class, test.reason)
			if test.class == pcclient.ClassCredentials {
				r.counts(1, 0)
			}
		})
	}
}
