//go:build acceptance

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// simulateProcess runs the program's own simulator and returns the roots of its
// two listeners.
func simulateProcess(t *testing.T, binary string, args ...string) (api, control string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, append([]string{"simulate", "--address=127.0.0.1:0", "--control-address=127.0.0.1:0"}, args...)...) //nolint:gosec // our own program
	var out output
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	var at []string
	out.await(t, "the addresses of the simulator", func(printed string) bool {
		at = regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindAllString(printed, -1)
		return len(at) == 2
	})
	return at[0], at[1]
}

// configFile writes a configuration for a simulator; lines belong to
// partner_center.
func configFile(t *testing.T, simulator string, lines []string, redis string) string {
	t.Helper()
	text := fmt.Sprintf(`server:
  grpc: {address: 127.0.0.1:0}
  http: {address: 127.0.0.1:0}
  admin: {address: 127.0.0.1:0}
partner_center:
  base_url: %[1]s
  authority: %[1]s
  tenant_id: %[2]s
  client_id: %[3]s
  %[4]s
cache: {redis: {addresses: [%[5]s], read_timeout: 1s}}
`, simulator, pcsim.DefaultTenantID, pcsim.DefaultClientID, strings.Join(lines, "\n  "), redis)
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Each fault must be reported as an operator would read it; the outputs are
// logged.
func TestAcceptanceDoctor(t *testing.T) {
	binary, redis := build(t), cachetest.StartRedis(t)
	client := redis.Client()
	t.Cleanup(func() { _ = client.Close() })
	if err := client.ConfigSet(t.Context(), "maxmemory-policy", "volatile-lru").Err(); err != nil {
		t.Fatal(err)
	}
	secret, refresh := "client_secret: "+pcsim.DefaultClientSecret, "refresh_token_file: "+pcsimtest.TokenFile(t)
	for _, c := range []struct {
		name     string
		simulate []string // its flags
		script   string   // of the token endpoint
		lines    []string // of the configuration
		redis    string
		exit     int
		want     []string
	}{
		{name: "healthy", lines: []string{secret, refresh}, redis: redis.Address, want: []string{`status is "Allowed"`}},
		{name: "wrong secret", lines: []string{"client_secret: wrong", refresh}, redis: redis.Address, exit: 1, want: []string{"invalid_client"}},
		{
			name: "expired consent", script: `{"steps":[{"entra_error":700082}]}`, lines: []string{secret, refresh}, redis: redis.Address,
			exit: 1, want: []string{"invalid_grant", "eligibilityd login --config"},
		},
		{name: "missing MFA", simulate: []string{"--without-mfa"}, lines: []string{secret, refresh}, redis: redis.Address, exit: 1, want: []string{"900421"}},
		{name: "app-only flow", lines: []string{secret, "flow: app_only"}, redis: redis.Address, want: []string{"no purchase can be decided"}},
		{name: "Redis away", lines: []string{secret, refresh}, redis: "127.0.0.1:1", exit: 1, want: []string{"continues without it"}},
		{name: "clock off by ten minutes", simulate: []string{"--clock-skew=10m"}, lines: []string{secret, refresh}, redis: redis.Address, exit: 1, want: []string{"10m0s behind"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			api, control := simulateProcess(t, binary, c.simulate...)
			if c.script != "" {
				put(t, control+"/v1/token", c.script)
			}
			cmd := exec.CommandContext(t.Context(), binary, "doctor", "--config", configFile(t, api, c.lines, c.redis), "--customer", allowedID) //nolint:gosec // our own program
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			_ = cmd.Run() // the exit code is checked below
			t.Logf("exit code %d\n%s", cmd.ProcessState.ExitCode(), out.String())
			if cmd.ProcessState.ExitCode() != c.exit {
				t.Errorf("exit code %d, want %d", cmd.ProcessState.ExitCode(), c.exit)
			}
			for _, words := range c.want {
				if !strings.Contains(out.String(), words) {
					t.Errorf("%q is not reported", words)
				}
			}
			if strings.Contains(out.String(), pcsim.DefaultClientSecret) || strings.Contains(out.String(), pcsim.DefaultRefreshToken) {
				t.Error("a secret is printed")
			}
		})
	}
}

func put(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusMultipleChoices {
		t.Fatalf("%s: %d", url, resp.StatusCode)
	}
}
