//go:build acceptance

package main

import (
	"os"
	"os/exec"
	"testing"
)

// TestAcceptanceControlAPIFromNode sends the examples of docs/simulator.md from
// Node, which must be installed.
func TestAcceptanceControlAPIFromNode(t *testing.T) {
	t.Parallel()
	_, control := startSimulate(t)
	node := exec.CommandContext(t.Context(), "node", "--test", "testdata/simulator.test.mjs")
	node.Env = append(os.Environ(), "CONTROL="+control, "DOCUMENT=../../docs/simulator.md")
	out, err := node.CombinedOutput()
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
