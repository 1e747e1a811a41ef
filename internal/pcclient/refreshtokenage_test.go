package pcclient_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// bornAt dates what the file holds.
func (r *rig) bornAt(at time.Time) {
	r.t.Helper()
	if err := os.Chtimes(r.file, at, at); err != nil {
		r.t.Fatal(err)
	}
}

// aged fails the test unless the metrics give the refresh token that age.
func (r *rig) aged(age, left string) {
	r.t.Helper()
	if !r.shows("refresh_token_age_seconds "+age) || !r.shows("refresh_token_expires_in_seconds "+left) {
		r.t.Errorf("age %s and rest %s expected in:\n%s", age, left, r.scrape())
	}
}

const notRotated = `{"token_type":"Bearer","access_token":"a","expires_in":3600}`

func TestAgeOfTheRefreshToken(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: inTurn{responds(200, notRotated), grants}.play})
	r.aged("NaN", "NaN")
	r.bornAt(r.clock.Now().Add(-80 * 24 * time.Hour))
	r.ask()
	r.aged("6.912e+06", "864000")
	r.clock.advance(11 * 24 * time.Hour)
	r.aged("7.8624e+06", "-86400")
	r.ask() // rotated: its life begins anew
	r.aged("0", "7.776e+06")
	r.clock.advance(time.Second)
	r.aged("1", "7.775999e+06")
}

// A clock that is behind the file's makes no negative age.
func TestRefreshTokenFromTheFuture(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: responds(200, notRotated)})
	r.bornAt(r.clock.Now().Add(time.Hour))
	r.ask()
	r.aged("0", "7.776e+06")
}

func TestAppOnlyHasNoRefreshTokenToAge(t *testing.T) {
	t.Parallel()
	r := start(t, setup{config: appOnly})
	if err := r.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.aged("NaN", "NaN")
}

// What could not be stored is stored a minute later, without another token
// request; one that is still in memory only keeps its age.
func TestStoringIsTriedAgain(t *testing.T) {
	t.Parallel()
	var r *rig
	r = start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		r.block()
		grants(w, req, n)
	}})
	r.ask()
	r.unstored(1)
	r.clock.advance(time.Minute - 1)
	r.unblock()
	r.ask()
	r.unstored(1)
	r.block()
	r.clock.advance(1)
	r.ask()
	eventually(t, "tried again", func() bool { return r.shows("refresh_token_store_failures_total 2") })
	r.unstored(1)
	r.unblock()
	r.clock.advance(time.Minute)
	eventually(t, "stored", func() bool {
		r.ask()
		return r.shows("refresh_token_unstored 0")
	})
	r.holds("refresh-1")
	if got := r.login.count(); got != 1 {
		t.Errorf("%d token requests", got)
	}
	if logged := r.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); logged != 1 {
		t.Errorf("%d errors in the log, want 1: it is the same one", logged)
	}
}

// block puts a directory in the file's place, which stops root as well.
func (r *rig) block() {
	if err := os.Remove(r.file); err != nil {
		r.t.Error(err)
	}
	if err := os.Mkdir(r.file, 0o700); err != nil {
		r.t.Error(err)
	}
}

// unblock leaves what the file held at first.
func (r *rig) unblock() {
	r.t.Helper()
	remove(r.t, r.file)
	r.write("refresh-0")
}

// A file that is lost under a running service comes back.
func TestLostFileIsWrittenAnew(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	r.ask()
	remove(t, r.file)
	r.renew()
	if r.sent() != "refresh-1" {
		t.Errorf("sent %q, want the one in memory", r.sent())
	}
	r.holds("refresh-2")
	r.unstored(0)
}

// A refusal may mean that a replica, or somebody who consented, has stored
// another token meanwhile: that one is tried, once.
func TestRefusedTokenGivesWayToAnother(t *testing.T) {
	t.Parallel()
	refuse := entra(400, "invalid_grant", 50173)
	for name, test := range map[string]struct {
		theirs   string
		first    answerer
		then     answerer
		requests int
		fails    pcclient.Reason
	}{
		"theirs works":         {"theirs", refuse, grants, 2, ""},
		"theirs is refused":    {"theirs", refuse, refuse, 2, pcclient.ReasonInvalidGrant},
		"nobody stored any":    {"", refuse, grants, 1, pcclient.ReasonInvalidGrant},
		"theirs is unreadable": {strings.Repeat("a", 64<<10+1), refuse, grants, 1, pcclient.ReasonInvalidGrant},
		"asked too often":      {"theirs", entra(400, "invalid_grant", 50196), grants, 1, pcclient.ReasonInvalidGrant},
		"another refusal":      {"theirs", entra(401, "invalid_client", 7000215), grants, 1, pcclient.ReasonInvalidClient},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r *rig
			r = start(t, setup{login: inTurn{
				func(w http.ResponseWriter, req *http.Request, n int) {
					if test.theirs != "" {
						r.write(test.theirs)
					}
					test.first(w, req, n)
				},
				test.then,
			}.play})
			if test.fails == "" {
				r.ask()
				r.holds("refresh-2")
			} else {
				r.askInVain(pcclient.ClassCredentials, test.fails)
			}
			if got := r.login.count(); got != test.requests {
				t.Errorf("%d token requests, want %d", got, test.requests)
			}
			if test.requests == 2 && r.sent() != "theirs" {
				t.Errorf("sent %q", r.sent())
			}
		})
	}
}

// Two clients share a file, and each refusal of the other's old token is cured.
func TestReplicasShareAFile(t *testing.T) {
	t.Parallel()
	one := start(t, setup{})
	two := start(t, setup{config: func(c *pcclient.Config) { c.RefreshTokenFile = one.file }})
	for range 3 {
		one.ask()
		two.ask()
		if one.sent() == two.sent() {
			t.Errorf("both sent %q one after the other", one.sent())
		}
		one.clock.advance(time.Hour)
		two.clock.advance(time.Hour)
	}
	one.unstored(0)
	two.unstored(0)
}
