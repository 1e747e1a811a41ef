package main

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The tests of examples/shop-node pass: those of its pages and of its client, and the shop
// against dev.
func TestTheShopInNode(t *testing.T) {
	t.Parallel()
	dir := shopInNode(t)
	usual, policy := startShopDevs(t)
	cmd := exec.CommandContext(t.Context(), "node", "--test")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ELIGIBILITY_TARGET=dns:///"+usual.GRPC, "POLICY_TARGET=dns:///"+policy.GRPC)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// shopInNode returns the directory of examples/shop-node, with all that it needs.
func shopInNode(t *testing.T) string {
	t.Helper()
	dir := "../../examples/shop-node"
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatalf("%v; make test installs it", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err != nil {
		t.Fatalf("%v; make test installs what the shop needs, as make shop-node does", err)
	}
	return dir
}

// startShopDevs starts dev, and a second one whose policy gives the reasons that the first
// does not give.
func startShopDevs(t *testing.T) (usual, policy *process) {
	t.Helper()
	usual = startDev(t)
	policy = start(t, func(ctx context.Context, out, log io.Writer) error {
		environ := anyPort("ELIGIBILITY_POLICY__NOT_READY=allow", "ELIGIBILITY_POLICY__UNDER_REVIEW=allow_reducing", "ELIGIBILITY_POLICY__WHEN_UNDECIDABLE=block")
		return dev(ctx, environ, "127.0.0.1:0", []string{"../../examples/shop-node/customers.yaml"}, out, log)
	})
	return usual, policy
}
