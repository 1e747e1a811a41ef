//go:build acceptance

package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The shop sells with TLS and a token, which it reads from a file.
func TestAcceptanceDeployShopInNode(t *testing.T) {
	dir := shopInNode(t)
	guarded, ca, issuer := startGuarded(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(issuer.Token(t, "shop", nil)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	trusting := []string{"ELIGIBILITY_TARGET=dns:///localhost:" + portOf(guarded.GRPC), "ELIGIBILITY_CA_FILE=" + ca}
	for name, row := range map[string]struct {
		environ []string
		status  int
		shown   string
	}{
		"with a token":    {append(trusting, "ELIGIBILITY_TOKEN_FILE="+token), http.StatusOK, "This customer may buy."},
		"without a token": {trusting, http.StatusServiceUnavailable, "does not accept the shop’s credentials"},
	} {
		status, _, body := get(t, startNodeShop(t, dir, row.environ...)+"/checkout?audience=staff&customer="+allowedID)
		if status != row.status || !strings.Contains(body, row.shown) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}

// startNodeShop starts the shop in dir, with variables, and returns its URL.
func startNodeShop(t *testing.T, dir string, environ ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", "main.js")
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "SHOP_ADDRESS=127.0.0.1:0", "TZ=UTC"), environ...)
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	var base string
	out.await(t, "the address of the shop", func(printed string) bool {
		base = strings.TrimSuffix(regexp.MustCompile(`http://127\.0\.0\.1:\d+/\n`).FindString(printed), "/\n")
		return base != ""
	})
	return base
}
