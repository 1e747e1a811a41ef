//go:build acceptance

package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

var restartCount = flag.Int("restarts", 1000, "how often replicas are restarted, and a fifth of it killed")

const (
	restartReadme = "../../client/README.md"
	restartBegins = "<!-- restarts: make acceptance-deploy writes this with UPDATE_REFERENCE=1 -->\n"
	restartEnds   = "<!-- /restarts -->\n"
)

// Two replicas are restarted in turn under 500 visits of each shop a second: one with the
// client's defaults, one without its retries. No visit of the first one fails.
func TestAcceptanceDeployRestarts(t *testing.T) {
	const aSecond = 500
	customers := buyers(100)
	replicas, addresses := startRestarted(t, customers)
	program := buildExample(t, "shop")
	clients := []string{"defaults", "`Attempts: 1`, no retries"}
	shops := []*exampleShop{
		startShop(t, program, "--insecure", "--address", addresses),
		startShop(t, program, "--insecure", "--address", addresses, "--attempts", "1"),
	}
	table := "| two replicas, in turn | client | calls | failed | p50 | p99 | slowest |\n|---|---|---|---|---|---|---|\n"
	for _, row := range []struct {
		name  string
		with  os.Signal
		after time.Duration // sooner, the client has no chance to connect to one before the other is killed
		count int
	}{
		{fmt.Sprintf("restarted %d times, `server.drain: %v`", *restartCount, restartDrain), syscall.SIGTERM, 0, *restartCount},
		{fmt.Sprintf("killed and started %d times, every half second", *restartCount/5), syscall.SIGKILL, 500 * time.Millisecond, *restartCount / 5},
	} {
		for i, seen := range replicas.visitDuring(t, row.count, row.with, row.after, aSecond, customers, shops[0].offers, shops[1].offers) {
			t.Logf("%s, %s: %d of %d failed, since the beginning by%s", row.name, clients[i], seen.failed, seen.all, shops[i].common())
			took := times(seen.took)
			table += fmt.Sprintf("| %s | %s | %d | %d | %v | %v | %v |\n", row.name, clients[i], seen.all, seen.failed,
				took.quantile(0.5).Round(100*time.Microsecond), took.quantile(0.99).Round(100*time.Microsecond), took.quantile(1).Round(time.Millisecond))
			if i == 0 && seen.failed > 0 {
				t.Errorf("%s: %d of %d calls failed", row.name, seen.failed, seen.all)
			}
		}
	}
	t.Logf("\n%s", table)
	if t.Failed() || os.Getenv("UPDATE_REFERENCE") == "" {
		return
	}
	text, err := os.ReadFile(restartReadme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), restartBegins)
	_, after, also := strings.Cut(rest, restartEnds)
	if !ok || !also {
		t.Fatalf("%s has no place for the table", restartReadme)
	}
	if err := os.WriteFile(restartReadme, []byte(before+restartBegins+table+restartEnds+after), 0o644); err != nil { //nolint:gosec // a document
		t.Fatal(err)
	}
}
