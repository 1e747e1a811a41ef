package decisionlog_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

func awaitHealth(t *testing.T, l *started, state health.State, kind string) {
	t.Helper()
	eventually(t, "state "+state.String()+" of "+kind, func() bool {
		got := l.Health()
		return got.State == state && got.Kind == kind
	})
}

// A directory that is missing is shown until the log is written.
func TestHealthFollowsTheWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing", "log")
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
	awaitHealth(t, l, health.Unknown, "")
	if err := l.Write(t.Context(), numbered(1)); err != nil {
		t.Fatal(err)
	}
	awaitHealth(t, l, health.Failing, "not_found")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	awaitHealth(t, l, health.OK, "not_found")
	l.close(t)
}

// A pipe without a reader: records are dropped once the queue is full. With a reader,
// all is well again.
func TestHealthWhileRecordsAreDropped(t *testing.T) {
	t.Parallel()
	path := fifo(t)
	l := start(t, decisionlog.Config{File: path, AllowedSample: 1})
	for i := range 11_000 {
		if err := l.Write(t.Context(), numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	awaitHealth(t, l, health.Failing, "no_reader") // of an attempt that is later than the drops
	read := readPipe(t, path)
	eventually(t, "health with a reader", func() bool { return l.Health().State == health.OK })
	l.close(t)
	_ = read()
}
