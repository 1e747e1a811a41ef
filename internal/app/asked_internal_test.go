package app

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/console"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// slowLog is a decision log that is read for as long as a test wants.
type slowLog struct{ begun, end chan struct{} }

func (l *slowLog) recent(context.Context, *decisionlog.Query) (decisionlog.Recent, error) {
	l.begun <- struct{}{}
	<-l.end
	return decisionlog.Recent{Unreadable: 7}, nil
}

// One search runs at a time. Another waits 2 s for it, and no longer than its user; a
// search that hangs is left behind, and keeps further ones out until it ends.
func TestOneSearchOfTheDecisionLogAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{begun: make(chan struct{}), end: make(chan struct{})}
		reader := &askedReader{isFile: func() bool { return true }, recent: log.recent, busy: make(chan struct{}, 1)}
		search := func(ctx context.Context) chan error {
			ended := make(chan error, 1)
			go func() {
				_, err := reader.search(ctx, console.AskedQuery{})
				ended <- err
			}()
			return ended
		}
		began := time.Now()
		first := search(t.Context())
		<-log.begun
		if err := <-search(t.Context()); !errors.Is(err, console.ErrAskedBusy) || time.Since(began) != askedPatience {
			t.Errorf("a second search: %v after %v", err, time.Since(began))
		}
		left := errors.New("the user has left")
		ctx, leave := context.WithCancelCause(t.Context())
		leave(left)
		if err := <-search(ctx); !errors.Is(err, left) {
			t.Errorf("a search whose user has left: %v", err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > askedWithin+2*time.Second {
			t.Errorf("a search that hangs: %v after %v", err, time.Since(began))
		}
		if err := <-search(t.Context()); !errors.Is(err, console.ErrAskedBusy) {
			t.Errorf("a search after one that hangs: %v", err)
		}
		log.end <- struct{}{}
		next := search(t.Context())
		<-log.begun
		log.end <- struct{}{}
		if err := <-next; err != nil {
			t.Errorf("a search after the one that hung: %v", err)
		}
	})
}

// A shell gives the command all files of the log, the oldest first, whatever their
// directory is called.
func TestTheCommandThatSearchesTheFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), `it's $HOME "here"`)
	file := filepath.Join(dir, "decisions.jsonl")
	from := time.Date(2026, 11, 28, 14, 2, 0, 0, time.UTC)
	reader := &askedReader{
		cfg:    config.DecisionLog{File: file, CustomerIDs: config.CustomerIDsHashed, HashKeyFile: "/etc/a key"},
		isFile: func() bool { return true },
	}
	q := console.AskedQuery{Customer: eligibility.CustomerID{0xab}, From: from, Until: from.Add(time.Minute)}
	script := `eligibilityd() { printf '%s\n' "$@"; }; mkdir "$1"; for f in decisions.jsonl decisions-2026-01-01T00-00-00.000-size.jsonl.gz other.jsonl; do touch "$1/$f"; done; ` + reader.command(q)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script, "sh", dir).CombinedOutput() //nolint:gosec // the command in question
	want := []string{
		"log", "--customer", q.Customer.String(), "--from", "2026-11-28T14:02:00Z", "--to", "2026-11-28T14:02:59.999999999Z", "--hash-key-file", "/etc/a key",
		filepath.Join(dir, "decisions-2026-01-01T00-00-00.000-size.jsonl.gz"), file,
	}
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v:\n got %q\nwant %q", err, got, want)
	}
	reader.isFile = func() bool { return false }
	if got := reader.command(console.AskedQuery{}); !strings.HasSuffix(got, " -") || strings.Contains(got, dir) {
		t.Errorf("without a file: %s", got)
	}
}
