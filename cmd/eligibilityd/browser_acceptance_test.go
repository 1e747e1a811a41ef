//go:build acceptance

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium, controlled over the W3C's WebDriver.
type browser struct {
	t       *testing.T
	session string // its URL
}

// startBrowser needs chromium and chromedriver in PATH. The pages that it asks for are to be
// in the languages.
func startBrowser(t *testing.T, languages ...string) *browser {
	t.Helper()
	return startBrowserWith(t, nil, languages...)
}

// startBrowserWith is startBrowser with more capabilities.
func startBrowserWith(t *testing.T, capabilities map[string]any, languages ...string) *browser {
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
	all := map[string]any{
		"goog:chromeOptions": map[string]any{"args": []string{
			"--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
			"--disable-component-update", "--disable-sync", "--window-size=1000,700", "--user-data-dir=" + t.TempDir(),
		}, "prefs": map[string]string{"intl.accept_languages": cmp.Or(strings.Join(languages, ","), "en-US,en")}},
	}
	maps.Copy(all, capabilities)
	b.call(http.MethodPost, "", map[string]any{"capabilities": map[string]any{"alwaysMatch": all}}, &session)
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

// open loads a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call(http.MethodPost, "/url", map[string]string{"url": url}, nil)
}

// script runs the body of a function in the page, and stores what it returns in value.
func (b *browser) script(body string, value any, args ...any) {
	b.t.Helper()
	b.call(http.MethodPost, "/execute/sync", map[string]any{"script": body, "args": append([]any{}, args...)}, value)
}

// promise is script for the body of an async function. A failure is stored as an object
// with the member failure.
func (b *browser) promise(body string, value any, args ...any) {
	b.t.Helper()
	const wrapped = "const args = [...arguments], done = args.pop(); (async function () { %s }).apply(null, args).then(done, failure => done({failure: String(failure)}))"
	b.call(http.MethodPost, "/execute/async", map[string]any{"script": fmt.Sprintf(wrapped, body), "args": append([]any{}, args...)}, value)
}

// click clicks the first element that matches a CSS selector.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.call(http.MethodPost, b.find(selector)+"/click", map[string]any{}, nil)
}

// Keys of the W3C's WebDriver.
const (
	keyTab   = "\ue004"
	keyEnter = "\ue007"
)

// press presses a key and releases it; whatever has the focus gets it.
func (b *browser) press(key string) {
	b.t.Helper()
	b.call(http.MethodPost, "/actions", map[string]any{"actions": []any{map[string]any{"type": "key", "id": "keyboard", "actions": []any{
		map[string]string{"type": "keyDown", "value": key}, map[string]string{"type": "keyUp", "value": key},
	}}}}, nil)
}

// paste puts text into the element that has the focus, all at once, as a paste does.
func (b *browser) paste(text string) {
	b.t.Helper()
	b.devTools("Input.insertText", map[string]any{"text": text}, nil)
}

// devTools sends a command of the DevTools protocol.
func (b *browser) devTools(command string, params map[string]any, value any) {
	b.t.Helper()
	if params == nil {
		params = map[string]any{}
	}
	b.call(http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, value)
}

// show selects the width of the page, below that of the narrowest window if need be, and
// the colours that the user prefers: light or dark.
func (b *browser) show(width int, colours string) {
	b.t.Helper()
	b.devTools("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.devTools("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": colours}}}, nil)
}

// logged returns the messages of a log of the browser since the last call. The log must be
// one of the capability goog:loggingPrefs.
func (b *browser) logged(kind string) (messages []string) {
	b.t.Helper()
	var entries []struct{ Message string }
	b.call(http.MethodPost, "/se/log", map[string]string{"type": kind}, &entries)
	for _, entry := range entries {
		messages = append(messages, entry.Message)
	}
	return messages
}

// wholePage returns a screenshot of the page, whatever of it the window shows.
func (b *browser) wholePage() []byte {
	b.t.Helper()
	var shot struct{ Data []byte }
	b.devTools("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	return shot.Data
}
