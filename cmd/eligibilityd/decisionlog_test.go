package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// recorded asks the program as many questions, with that name.
func (p *program) recorded(t *testing.T, name string, questions int) {
	t.Helper()
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := eligibilityv1.NewEligibilityServiceClient(conn)
	for i := range questions {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-request-id", fmt.Sprintf("%s-%d", name, i)), patience)
		_, err := client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: slowIDs[0]})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// decisionsIn returns how many records a file has of each name, and the bytes of a last
// line that is not whole.
func decisionsIn(t *testing.T, path string) (of map[string]int, cut int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	of = make(map[string]int)
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			return of, len(line)
		}
		r, err := decisionlog.Parse(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		name, _, _ := strings.Cut(r.DecisionID, "-")
		of[name]++
	}
	return of, 0
}

// The program loses no record in an orderly stop, leaves whole lines if it is killed,
// cuts off one that is not, and opens its file again on SIGHUP.
func TestTheProgramKeepsItsDecisionLog(t *testing.T) {
	t.Parallel()
	_, partnerCenter := slowSimulator(t, 0)
	path := filepath.Join(t.TempDir(), "decisions.jsonl")
	environ := toServe(t, partnerCenter, "ELIGIBILITY_DECISION_LOG__FILE="+path)

	p := launch(t, nil, environ, "serve")
	p.recorded(t, "renamed", 20)
	eventually(t, "the records are written", func() bool {
		if _, err := os.Stat(path); err != nil {
			return false
		}
		of, _ := decisionsIn(t, path)
		return of["renamed"] == 20
	})
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGHUP)
	p.recorded(t, "stopped", 300)
	p.signal(t, syscall.SIGTERM)
	if code := p.exits(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	renamed, _ := decisionsIn(t, path+".1")
	of, cut := decisionsIn(t, path)
	if renamed["renamed"] != 20 || renamed["stopped"]+of["stopped"] != 300 || cut != 0 {
		t.Errorf("%v in the renamed file, %v in the new one", renamed, of)
	}

	p = launch(t, nil, environ, "serve")
	p.recorded(t, "killed", 300)
	p.signal(t, syscall.SIGKILL)
	p.exits(t)
	of, _ = decisionsIn(t, path) // fails unless all lines but the last are whole
	killed := of["killed"]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(whole, whole[:100]...), 0o600); err != nil { //nolint:gosec // the test's
		t.Fatal(err)
	}
	p = launch(t, nil, environ, "serve")
	p.recorded(t, "after", 1)
	p.signal(t, syscall.SIGTERM)
	p.exits(t)
	of, cut = decisionsIn(t, path)
	if of["killed"] != killed || of["after"] != 1 || cut != 0 {
		t.Errorf("%v, %d bytes of a line; %d were whole after the kill", of, cut, killed)
	}
}
