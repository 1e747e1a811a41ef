package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// startWatch runs the watch command until stop, which returns its exit code.
func startWatch(t *testing.T, args ...string) (out, errOut *output, stop func() int) {
	t.Helper()
	out, errOut = new(output), new(output)
	root := newRootCommand()
	root.SetArgs(append([]string{"watch"}, args...))
	root.SetOut(out)
	root.SetErr(errOut)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, root) }()
	return out, errOut, func() int {
		cancel()
		return <-ended
	}
}

func TestWatchPrintsChanges(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	check := func(id string) {
		if _, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: id}); err != nil {
			t.Fatal(err)
		}
	}
	check(allowedID)
	table, _, stopTable := startWatch(t, "--address", p.GRPC, allowedID, underReviewID)
	lines, _, stopLines := startWatch(t, "--address", p.GRPC, "--json")
	table.await(t, "the current answer", func(printed string) bool {
		return strings.Contains(printed, allowedID+"  current    allowed    ACCOUNT_")
	})
	eventually(t, "both streams", func() bool {
		return p.watches(t, "eligibility_watch_streams 2")
	})
	check(underReviewID)
	table.await(t, "the change", func(printed string) bool {
		return strings.Contains(printed, underReviewID+"  undecided  blocked    ACCOUNT_UNDER_REVIEW\n")
	})
	lines.await(t, "the change in JSON", func(printed string) bool { return strings.Contains(printed, underReviewID) })
	for line := range strings.Lines(lines.String()) {
		var message struct {
			ResumeToken string
			Change      struct{ EventID string }
		}
		if err := json.Unmarshal([]byte(line), &message); err != nil || message.ResumeToken == "" || message.Change.EventID == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
	if code := stopTable(); code != 0 {
		t.Errorf("interrupted: exit code %d", code)
	}
	if code := stopLines(); code != 0 {
		t.Errorf("interrupted: exit code %d", code)
	}
}

// The service is stopped and started again: watch goes on by itself.
func TestWatchGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	out, errOut, stop := startWatch(t, "--address", p.GRPC, allowedID)
	eventually(t, "the stream", func() bool { return p.watches(t, "eligibility_watch_streams 1") })
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	environ := anyPort()
	environ[0] = "ELIGIBILITY_SERVER__GRPC__ADDRESS=" + p.GRPC
	p = start(t, func(ctx context.Context, out, log io.Writer) error {
		return dev(ctx, environ, "127.0.0.1:0", nil, out, log)
	})
	eventually(t, "the stream after the restart", func() bool { return p.watches(t, "eligibility_watch_streams 1") })
	if _, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID}); err != nil {
		t.Fatal(err)
	}
	out.await(t, "the change after the restart", func(printed string) bool { return strings.Contains(printed, allowedID+"  undecided  allowed") })
	// Without Redis, the changes of the process that has ended are lost.
	if !strings.Contains(errOut.String(), "changes were missed") {
		t.Errorf("%s", errOut)
	}
	if code := stop(); code != 0 || !strings.Contains(errOut.String(), "--resume-token ") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
}

// A watch that goes on from its file prints no current answers, but what came since.
func TestWatchGoesOnFromItsFile(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	file := filepath.Join(t.TempDir(), "token")
	_, _, stop := startWatch(t, "--address", p.GRPC, "--resume-file", file, allowedID)
	eventually(t, "the token", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && len(text) > 40 && !strings.HasPrefix(string(text), "i.")
	})
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := p.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: allowedID}); err != nil {
		t.Fatal(err)
	}
	out, _, stop := startWatch(t, "--address", p.GRPC, "--resume-file", file, allowedID)
	out.await(t, "the change in between", func(printed string) bool { return strings.Contains(printed, allowedID+"  undecided  allowed") })
	if code := stop(); code != 0 || strings.Contains(out.String(), "current") {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func TestWatchExplainsFailures(t *testing.T) {
	t.Parallel()
	p := startDev(t)
	for name, c := range map[string]struct {
		args []string
		code int
		text string
	}{
		"no service":        {[]string{"--address", "127.0.0.1:1"}, exitUndecided, "connection refused"},
		"no GUID":           {[]string{"--address", p.GRPC, "nonsense"}, exitUndecided, "customer_ids[0] must be a GUID"},
		"no sendable ID":    {[]string{"--address", p.GRPC, "a\xff"}, exitUsage, "--help"},
		"a malformed token": {[]string{"--address", p.GRPC, "--resume-token", "x"}, exitUndecided, "resume_token"},
		"no segment":        {[]string{"--address", p.GRPC, "--segment", "military"}, exitUsage, "military"},
		"the REST port":     {[]string{"--address", p.HTTP}, exitUndecided, "REST port"},
		"too many": {
			append([]string{"--address", p.GRPC}, strings.Fields(strings.Repeat(allowedID+" ", 1001))...), exitUndecided,
			"customer_ids must hold up to 1000 customers",
		},
	} {
		_, errOut, stop := startWatch(t, c.args...)
		errOut.await(t, name, func(printed string) bool { return strings.Contains(printed, c.text) })
		if code := stop(); code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, c.code, errOut)
		}
	}
}

// Each change is printed once, and so many are remembered.
func TestWatchRemembersChanges(t *testing.T) {
	t.Parallel()
	w := &watchRun{seen: make(map[string]bool)}
	for i := range maxSeen + 10 {
		if !w.isNew(fmt.Sprint(i)) || w.isNew(fmt.Sprint(i)) {
			t.Fatalf("change %d", i)
		}
	}
	if len(w.seen) != maxSeen || len(w.order) != maxSeen {
		t.Errorf("%d are remembered", len(w.seen))
	}
	if retryDelay(context.DeadlineExceeded) != 0 || leastPause != time.Second {
		t.Error("a delay of no service")
	}
}

// watches reports whether the metrics hold a line.
func (p *process) watches(t *testing.T, line string) bool {
	t.Helper()
	_, _, metrics := get(t, "http://"+p.Admin+"/metrics")
	return strings.Contains(metrics, "\n"+line+"\n")
}
