//go:build acceptance

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// browser is a headless Chromium, controlled over the W3C's WebDriver.
type browser struct {
	t       *testing.T
	session string // its URL
}

// startBrowser needs chromium and chromedriver in PATH.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "chromedriver", "--port=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the browser ends with it in any case
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out output
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatalf("this test needs chromium and chromedriver: %v", err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
	var port []string
	out.await(t, "chromedriver", func(printed string) bool {
		port = regexp.MustCompile(`started successfully on port (\d+)`).FindStringSubmatch(printed)
		return port != nil
	})
	b := &browser{t: t, session: "http://127.0.0.1:" + port[1] + "/session"}
	var session struct {
		ID string `json:"sessionId"`
	}
	b.call(http.MethodPost, "", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"goog:chromeOptions": map[string]any{"args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--window-size=1000,700", "--user-data-dir=" + t.TempDir(),
		}},
	}}}, &session)
	b.session += "/" + session.ID
	t.Cleanup(func() { b.call(http.MethodDelete, "", nil, nil) })
	return b
}

// call sends a command and returns its value.
func (b *browser) call(method, path string, body, value any) {
	b.t.Helper()
	if err := b.try(method, path, body, value); err != nil {
		b.t.Fatalf("browser: %s %s: %v", method, path, err)
	}
}

func (b *browser) try(method, path string, body, value any) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, b.session+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%d %.300s", resp.StatusCode, answer.Value)
	case value == nil:
		return nil
	default:
		return json.Unmarshal(answer.Value, value)
	}
}

// find returns the reference of the first element that matches a CSS selector.
func (b *browser) find(selector string) string {
	b.t.Helper()
	var element map[string]string
	b.call(http.MethodPost, "/element", map[string]string{"using": "css selector", "value": selector}, &element)
	for _, id := range element {
		return "/element/" + id
	}
	b.t.Fatalf("browser: no %s", selector)
	return ""
}

// text returns the text of the page, or "" while the browser navigates away.
func (b *browser) text() (text string) {
	const script = "return document.body ? document.body.innerText : ''"
	if b.try(http.MethodPost, "/execute/sync", map[string]any{"script": script, "args": []any{}}, &text) != nil {
		return ""
	}
	return text
}

// screenshot stores a screenshot among the test's artifacts.
func (b *browser) screenshot(name string) {
	b.t.Helper()
	var encoded string
	b.call(http.MethodGet, "/screenshot", nil, &encoded)
	picture, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		b.t.Fatal(err)
	}
	file := filepath.Join(b.t.ArtifactDir(), name)
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("screenshot: %s", file)
}

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
