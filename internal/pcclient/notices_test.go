package pcclient_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// logged returns how many records have that level and that part of a message.
func (r *rig) logged(level zapcore.Level, snippet string, want int) {
	r.t.Helper()
	if got := r.logs.FilterLevelExact(level).FilterMessageSnippet(snippet).Len(); got != want {
		r.t.Errorf("%d records say %q, want %d: %v", got, snippet, want, r.logs.All())
	}
}

// While a failure lasts it is logged once in five minutes, and another one at once.
func TestLastingFailureIsLoggedAtIntervals(t *testing.T) {
	t.Parallel()
	refuse := entra(400, "invalid_grant", 700082)
	var answers inTurn
	for range 10 {
		answers = append(answers, refuse)
	}
	for _, answer := range []answerer{entra(401, "invalid_client", 7000222), refuse, grants, refuse} {
		answers = append(answers, answer)
	}
	r := start(t, setup{login: answers.play})
	for range 10 {
		r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
		r.clock.advance(30 * time.Second)
	}
	const expired, client = "has expired or was revoked", "client secret or certificate"
	r.logged(zapcore.ErrorLevel, expired, 1)
	r.logged(zapcore.ErrorLevel, "", 1) // by the renewal, and not by each question as well
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidClient)
	r.logged(zapcore.ErrorLevel, client, 1)
	r.clock.advance(30 * time.Second)
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	r.logged(zapcore.ErrorLevel, expired, 2)
	r.clock.advance(30 * time.Second)
	r.ask()
	r.clock.advance(time.Hour)
	r.askInVain(pcclient.ClassCredentials, pcclient.ReasonInvalidGrant)
	r.logged(zapcore.ErrorLevel, expired, 3)
}

// A login host that is down fails each probe, and is logged once.
func TestLoginHostOutageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: responds(http.StatusBadRequest, "<html>")})
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonUnreadable)
	for n := range 3 {
		r.clock.advance(5 * time.Second)
		r.atOnce()
		eventually(t, "the probe has failed", func() bool {
			return r.shows(fmt.Sprintf(`token_renewals_total{outcome="unreadable"} %d`, n+2))
		})
	}
	r.logged(zapcore.WarnLevel, "login host gave no token", 1)
}

// if Partner Center refuses a call, there is an alert and a record
// with the remedy, and the next call is made nevertheless.
func TestRefusalsOfPartnerCenterNameTheRemedy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status int
		code   string
		advice string
	}{
		"A-02":          {401, `900421`, "multi-factor"},
		"A-02 as 403":   {403, `"900421"`, "multi-factor"},
		"A-03":          {401, `10001`, "multi-factor"},
		"A-03 as 403":   {403, `10001`, "multi-factor"},
		"A-04":          {401, `900420`, "audience"},
		"A-05":          {401, `800001`, "refuses the token"},
		"A-08":          {403, `900308`, "role"},
		"A-08 other":    {403, `900150`, "role"},
		"A-09":          {403, `900309`, "Conditional Access"},
		"A-12":          {403, `900149`, "agreements"},
		"A-12 MPA":      {403, `800039`, "agreements"},
		"A-12 inactive": {403, `900124`, "agreements"},
		"VS-33":         {403, `900329`, "app_user"},
		"unknown":       {403, `4711`, "doctor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuse := responds(test.status, `{"code":`+test.code+`,"description":"canary-body"}`)
			reason := pcclient.ReasonForbidden
			answers := inTurn{refuse, refuse, responds(http.StatusOK, allowed)}
			if test.status == http.StatusUnauthorized {
				reason = pcclient.ReasonUnauthorized
				answers = inTurn{refuse, refuse, refuse, refuse, responds(http.StatusOK, allowed)}
			}
			r := start(t, setup{api: answers.play})
			for range 2 {
				r.askInVain(pcclient.ClassCredentials, reason)
			}
			r.logged(zapcore.ErrorLevel, test.advice, 1)
			if !r.shows(`credentials_alert{op="validation_status"} 1`) {
				t.Errorf("no alert:\n%s", r.scrape())
			}
			r.ask() // no fuse has blown
			if !r.shows(`credentials_alert{op="validation_status"} 0`) {
				t.Errorf("the alert stays:\n%s", r.scrape())
			}
			r.keepsSecrets()
		})
	}
}

// The far side chooses the codes, and cannot make the client keep them all.
func TestManyCodesAreLoggedAndForgotten(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
		responds(http.StatusForbidden, fmt.Sprintf(`{"code":%d}`, n%200))(w, req, n)
	}})
	for range 200 {
		r.askInVain(pcclient.ClassCredentials, pcclient.ReasonForbidden)
	}
	r.logged(zapcore.ErrorLevel, "partner center refuses", 200)
}
