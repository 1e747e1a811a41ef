package pcclient_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

// sent returns the refresh token of the last token request.
func (r *rig) sent() string {
	r.t.Helper()
	seen := r.login.asked()
	return seen[len(seen)-1].form.Get("refresh_token")
}

// renew lets the token end and asks again.
func (r *rig) renew() {
	r.t.Helper()
	r.clock.advance(time.Hour)
	r.ask()
}

func (r *rig) holds(want string) {
	r.t.Helper()
	got, err := os.ReadFile(r.file)
	if err != nil {
		r.t.Fatal(err)
	}
	if strings.TrimSpace(string(got)) != want {
		r.t.Fatalf("the file holds %.40q, want %q", got, want)
	}
}

func (r *rig) unstored(want int) {
	r.t.Helper()
	if !r.shows(fmt.Sprintf("refresh_token_unstored %d", want)) {
		r.t.Fatalf("refresh_token_unstored is not %d:\n%s", want, r.scrape())
	}
}

func TestRotationIsWrittenBeforeTheTokenCounts(t *testing.T) {
	t.Parallel()
	var r *rig
	r = start(t, setup{api: func(w http.ResponseWriter, req *http.Request, n int) {
		got, err := os.ReadFile(r.file)
		if want := fmt.Sprintf("refresh-%d", n); err != nil || string(got) != want {
			t.Errorf("request %d came while the file held %q (%v), want %q", n, got, err, want)
		}
		responds(http.StatusOK, allowed)(w, req, n)
	}})
	remove(t, r.file)
	if err := os.WriteFile(r.file, []byte("refresh-0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Close() }()
	r.ask()
	r.renew()
	if r.sent() != "refresh-1" {
		t.Errorf("the second renewal sent %q", r.sent())
	}
	// Whoever had the old file open still reads all of it: it was replaced as
	// a whole, and not written into.
	if old, err := io.ReadAll(before); err != nil || string(old) != "refresh-0\n" {
		t.Errorf("the old file became %q (%v)", old, err)
	}
	info, err := os.Stat(r.file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode())
	}
	r.leavesNothing()
	r.unstored(0)
}

// leavesNothing fails the test if anything lies beside the file.
func (r *rig) leavesNothing() {
	r.t.Helper()
	entries, err := os.ReadDir(filepath.Dir(r.file))
	if err != nil {
		r.t.Fatal(err)
	}
	if len(entries) != 1 {
		r.t.Errorf("the directory holds %v", entries)
	}
}

func TestFileThatAnotherProcessRewrites(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	r.ask()
	r.write("  theirs\r\n")
	r.renew()
	if r.sent() != "theirs" {
		t.Errorf("sent %q, want theirs", r.sent())
	}
	r.holds("refresh-2")
}

func TestRefreshTokenThatIsNotRotated(t *testing.T) {
	t.Parallel()
	r := start(t, setup{login: responds(200, `{"token_type":"Bearer","access_token":"a","expires_in":3600}`)})
	r.ask()
	r.renew()
	if r.sent() != "refresh-0" {
		t.Errorf("sent %q", r.sent())
	}
	r.holds("refresh-0")
	r.unstored(0)
}

// A directory in the file's place stops root as well.
func TestRotationThatCannotBeStored(t *testing.T) {
	t.Parallel()
	var r *rig
	r = start(t, setup{login: func(w http.ResponseWriter, req *http.Request, n int) {
		if n == 1 {
			if err := os.Remove(r.file); err != nil {
				t.Error(err)
			}
			if err := os.Mkdir(r.file, 0o700); err != nil {
				t.Error(err)
			}
		}
		grants(w, req, n)
	}})
	r.ask() // T-11
	r.unstored(1)
	if logged := r.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); logged != 1 {
		t.Errorf("%d errors in the log, want 1", logged)
	}
	r.renew()
	if r.sent() != "refresh-1" {
		t.Errorf("sent %q, want the one in memory", r.sent())
	}
	r.unstored(1)
	r.leavesNothing()
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.renew()
	if r.sent() != "refresh-2" {
		t.Errorf("sent %q, want the one in memory", r.sent())
	}
	r.holds("refresh-3")
	r.unstored(0)
	r.renew()
	if r.sent() != "refresh-3" {
		t.Errorf("sent %q, want the file's", r.sent())
	}
}

// withLongName gives the file a name that leaves no room for the name of a
// temporary file beside it, so that it can be read and not be replaced.
func (r *rig) withLongName(c *pcclient.Config) {
	c.RefreshTokenFile = filepath.Join(filepath.Dir(c.RefreshTokenFile), strings.Repeat("n", 255))
	r.file = c.RefreshTokenFile
}

func startReadOnly(t *testing.T, login answerer) *rig {
	t.Helper()
	var named rig
	r := start(t, setup{login: login, config: named.withLongName})
	r.file = named.file
	r.write("refresh-0")
	return r
}

func TestReadOnlyFile(t *testing.T) {
	t.Parallel()
	r := startReadOnly(t, nil)
	r.ask()
	r.unstored(1)
	r.holds("refresh-0")
	r.renew()
	if r.sent() != "refresh-1" {
		t.Errorf("sent %q, want the one in memory: the file holds an older one", r.sent())
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.renew()
	if r.sent() != "refresh-2" {
		t.Errorf("sent %q, want the one in memory: there is no file", r.sent())
	}
	r.unstored(1)
	if !r.shows("refresh_token_store_failures_total 3") {
		t.Errorf("metrics:\n%s", r.scrape())
	}
}

// Somebody who consents again ends the alert, whether or not the login host
// then rotates.
func TestNewConsentReplacesWhatIsInMemory(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]answerer{
		"rotated":     grants,
		"not rotated": responds(200, `{"token_type":"Bearer","access_token":"a","expires_in":3600}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startReadOnly(t, inTurn{grants, last}.play)
			r.ask()
			r.unstored(1)
			r.write("consented")
			r.renew()
			if r.sent() != "consented" {
				t.Errorf("sent %q, want the newer one of the file", r.sent())
			}
			if name == "not rotated" {
				r.unstored(0)
			}
		})
	}
}

// What is stored must be readable again, hence no less than a token.
func TestRotationIntoNonsense(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]string{
		"empty":     ``,
		"blank":     ` `,
		"with line": `a\nb`,
		"a quote":   `a\"b`,
		"huge":      strings.Repeat("a", 64<<10+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{login: responds(200,
				`{"token_type":"Bearer","access_token":"a","expires_in":3600,"refresh_token":"`+token+`"}`)})
			r.ask()
			r.holds("refresh-0")
			r.renew()
			r.unstored(0)
		})
	}
}

func TestNoRefreshToken(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*testing.T, string){
		"missing": func(t *testing.T, path string) { remove(t, path) },
		"empty":   func(t *testing.T, path string) { write(t, path, "") },
		"blank":   func(t *testing.T, path string) { write(t, path, " \r\n") },
		"huge":    func(t *testing.T, path string) { write(t, path, strings.Repeat("a", 64<<10+1)) },
		"quotes":  func(t *testing.T, path string) { write(t, path, `"refresh-0"`) },
		"a blank": func(t *testing.T, path string) { write(t, path, "refresh-0 canary") },
		"UTF-16":  func(t *testing.T, path string) { write(t, path, "\xff\xfer\x00e\x00") },
		"a directory": func(t *testing.T, path string) {
			remove(t, path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		// Reading one would wait for a writer for ever.
		"a named pipe": func(t *testing.T, path string) {
			remove(t, path)
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{})
			spoil(t, r.file)
			fail := r.askInVain(pcclient.ClassCredentials, pcclient.ReasonRefreshToken)
			if strings.Contains(fail.Error(), r.file) {
				t.Errorf("the error names the path: %v", fail)
			}
			logged := r.logs.FilterMessageSnippet("no refresh token: run `eligibilityd login`").All()
			if len(logged) != 1 || logged[0].Level != zapcore.ErrorLevel {
				t.Errorf("the log has %v", r.logs.All())
			}
			r.counts(0, 0)
			remove(t, r.file)
			r.write("refresh-0")
			r.clock.advance(30 * time.Second)
			r.ask()
		})
	}
}

func TestWhatEditorsAddToARefreshTokenIsDropped(t *testing.T) {
	t.Parallel()
	r := start(t, setup{})
	r.write("\ufeff refresh-0\t\r\n\n")
	r.ask()
	if got := r.login.asked()[0].form.Get("refresh_token"); got != "refresh-0" {
		t.Errorf("sent %q", got)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
