//go:build acceptance

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// command runs the program until it or the test ends.
type command struct {
	*exec.Cmd

	out output
}

func startCommand(t *testing.T, binary string, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &command{Cmd: exec.CommandContext(ctx, binary, args...)} //nolint:gosec // our own program
	c.Stdout, c.Stderr = &c.out, &c.out
	if err := c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // killed unless it has ended before
	})
	return c
}

// login in a real browser: an account of another tenant is rejected, the
// partner's own is accepted, and serve works with the stored token. Keep the
// screenshots with -artifacts.
func TestAcceptanceLogin(t *testing.T) {
	binary, window := build(t), startBrowser(t)
	api, _ := simulateProcess(t, binary)
	dir := t.TempDir()
	secret, refresh := filepath.Join(dir, "secret"), filepath.Join(dir, "refresh-token")
	if err := os.WriteFile(secret, []byte(pcsim.DefaultClientSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	config := configFile(t, api, []string{"client_secret_file: " + secret, "refresh_token_file: " + refresh}, "")

	signIn := func(account, screenshot, heading string, exit int) string {
		t.Helper()
		login := startCommand(t, binary, "login", "--no-browser", "--config", config)
		var page string
		login.out.await(t, "the address of the page", func(printed string) bool {
			page = regexp.MustCompile(`http://\S+/authorize\?\S+`).FindString(printed)
			return page != ""
		})
		window.call(http.MethodPost, "/url", map[string]string{"url": page}, nil)
		window.call(http.MethodPost, window.find(`input[value="`+account+`"]`)+"/click", map[string]any{}, nil)
		window.screenshot("consent-" + screenshot)
		window.call(http.MethodPost, window.find("#accept")+"/click", map[string]any{}, nil)
		eventually(t, "the last page", func() bool { return strings.Contains(window.text(), heading) })
		window.screenshot(screenshot)
		var failed *exec.ExitError
		if err := login.Wait(); err != nil && !errors.As(err, &failed) {
			t.Fatal(err)
		}
		printed := login.out.String()
		t.Logf("the page:\n%s\nthe terminal, exit code %d:\n%s", window.text(), login.ProcessState.ExitCode(), printed)
		if login.ProcessState.ExitCode() != exit {
			t.Errorf("exit code %d, want %d", login.ProcessState.ExitCode(), exit)
		}
		return printed
	}
	signIn(pcsim.ForeignAccount, "foreign.png", "Nothing was stored", exitFailure)
	if _, err := os.Stat(refresh); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was stored: %v", err)
	}
	printed := signIn(pcsim.PartnerAccount, "login.png", "Consent is given", 0)
	stored, err := os.ReadFile(refresh)
	if err != nil || strings.Contains(printed+window.text(), string(stored)) {
		t.Errorf("the refresh token is not stored, or shown: %v", err)
	}

	service := startCommand(t, binary, "serve", "--config", config)
	var at addresses
	service.out.await(t, "the record that it serves", func(printed string) bool {
		for line := range strings.SplitSeq(printed, "\n") {
			if strings.Contains(line, `"msg":"serving"`) && json.Unmarshal([]byte(line), &at) == nil {
				return true
			}
		}
		return false
	})
	check := startCommand(t, binary, "check", "--json", "--address", at.GRPC, allowedID)
	err = check.Wait()
	if err != nil || !strings.Contains(check.out.String(), "DECISION_ALLOWED") {
		t.Errorf("check: %v\n%s\nserve:\n%s", err, check.out.String(), service.out.String())
	}
	_, _ = io.WriteString(t.Output(), check.out.String())
}
