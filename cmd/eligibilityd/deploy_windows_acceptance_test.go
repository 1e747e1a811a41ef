//go:build acceptance

package main

import (
	"os"
	"os/exec"
	"testing"
)

// Developers of callers run check, login, doctor and dev on Windows. Tests and what they
// alone import do not compile there.
func TestAcceptanceDeployWindowsPassesVet(t *testing.T) {
	tree := t.TempDir()
	copyTree(t, tree)
	vet := exec.CommandContext(t.Context(), "bash", "-ec", `find cmd internal -name '*_test.go' -delete; go vet ./cmd/... $(go list -deps ./cmd/... | grep /eligibilityd/internal/)`)
	vet.Dir = tree
	vet.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=-trimpath") // as in a release, whose cache it shares
	out, err := vet.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
