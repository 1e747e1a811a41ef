//go:build acceptance

package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// nginxConfig is a proxy with the defaults of nginx: it buffers answers, and closes a
// connection to a replica that sends nothing for 60 s. The numbers are its directory, its
// address and the upstream servers.
const nginxConfig = `
daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
	log_format watch '$status "$http_last_event_id" $upstream_addr';
	access_log %[1]s/access.log watch;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	upstream replicas { %[3]s }
	server {
		listen %[2]s;
		location / {
			proxy_pass http://replicas;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_read_timeout 60s;
		}
	}
}
`

// startNginx starts nginx in front of addresses. log returns its lines so far: a status,
// Last-Event-ID and the replica of each request that has ended.
func startNginx(t *testing.T, addresses ...string) (address string, log func() []string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = listener.Addr().String()
	_ = listener.Close()
	dir, err := os.MkdirTemp("", "nginx") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nginx's workers have another user
		t.Fatal(err)
	}
	var upstream strings.Builder
	for _, one := range addresses {
		fmt.Fprintf(&upstream, "server %s max_fails=0; ", one)
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, dir, address, upstream.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.Background(), "nginx", "-c", config, "-e", filepath.Join(dir, "error.log")) //nolint:gosec // our own arguments
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin")
	if cmd.Path == "nginx" || cmd.Err != nil {
		cmd.Path, cmd.Err = "/usr/sbin/nginx", nil
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("make acceptance-changes installs nginx: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	eventually(t, "nginx", func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	return address, func() []string {
		text, _ := os.ReadFile(filepath.Join(dir, "access.log"))
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

//go:embed testdata/changes.html
var changesPage []byte

// pageState is what the page has received.
type pageState struct {
	Opens, Errors, Closed, Progress int
	Ends                            []string
	Changes                         []struct {
		ID, Customer, After, Token string
		Initial, Redelivered       bool
	}
}

// page returns the state of the page in b.
func (b *browser) page() (state pageState) {
	b.t.Helper()
	b.call(http.MethodPost, "/execute/sync", map[string]any{"script": "return window.state", "args": []any{}}, &state)
	return state
}

// shows reports whether the page has received a change of a customer to that status,
// other than the initial answer.
func (s pageState) shows(customer, after string) bool {
	for _, c := range s.Changes {
		if c.Customer == customer && c.After == after && !c.Initial {
			return true
		}
	}
	return false
}

// initial returns the number of current answers that the page has received.
func (s pageState) initial() (n int) {
	for _, c := range s.Changes {
		if c.Initial {
			n++
		}
	}
	return n
}

// changesInABrowser follows customers with EventSource.
func changesInABrowser(t *testing.T) string { //nolint:thelper // a test of its own
	const silence = 130 * time.Second // more than two idle timeouts
	window := startBrowser(t)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(changesPage)
	}))
	defer page.Close()
	f := startReplicas(t, 2, append(onFleet(cachetest.StartRedis(t)),
		"ELIGIBILITY_SERVER__HTTP__CORS__ORIGINS="+page.URL, "ELIGIBILITY_SERVER__DRAIN=2s")...)
	proxy, requests := startNginx(t, f.all[0].HTTP, f.all[1].HTTP)
	ids := changingIDs('1', 5)
	f.script(ids, accountWords[0], 0)
	f.hammer(ids, func(*eligibilityv1.CheckEligibilityResponse) {})

	window.call(http.MethodPost, "/url", map[string]string{
		"url": page.URL + "/?watch=http://" + proxy + "/v1/eligibility:watch?customer_ids=" + strings.Join(ids, ","),
	}, nil)
	eventually(t, "the initial answers on the page", func() bool { return window.page().initial() == len(ids) })
	// found lets a replica find out that a customer may not buy any longer.
	found := func(replica int, id string) {
		f.script([]string{id}, accountWords[2], 0)
		if _, err := f.now(t.Context(), f.clients[replica], id); err != nil {
			t.Fatal(err)
		}
	}
	shown := func(id string) time.Duration {
		began := time.Now()
		eventually(t, "the change of "+id+" on the page", func() bool { return window.page().shows(id, "ACCOUNT_STATUS_NOT_ALLOWED") })
		return time.Since(began)
	}
	found(0, ids[0])
	live := shown(ids[0])

	pause(t.Context(), silence)
	state := window.page()
	if state.Opens != 1 || state.Errors != 0 || state.Progress < 8 {
		t.Errorf("after %v of silence: %+v", silence, state)
	}
	found(1, ids[1])
	afterSilence := shown(ids[1])

	// Each replica is killed once: the page is connected to one of them.
	var again []time.Duration
	for i, one := range f.all {
		one.kill()
		found(1-i, ids[2+i])
		again = append(again, shown(ids[2+i]))
		one.restart(t)
	}
	// And each is stopped once.
	for i, one := range f.all {
		one.terminate(t)
		if i == 0 {
			found(1, ids[4])
			again = append(again, shown(ids[4]))
		}
		one.restart(t)
	}
	eventually(t, "the page to be connected", func() bool { s := window.page(); return s.Opens > s.Errors })
	state = window.page()
	fetched := map[string]string{}
	for _, c := range state.Changes {
		if former, had := fetched[c.ID]; had && former != c.Customer+c.After || c.Token == "" {
			t.Errorf("changes on the page: %+v", state.Changes)
		}
		fetched[c.ID] = c.Customer + c.After
	}
	resumed := 0
	for _, line := range requests() {
		if !strings.HasPrefix(line, "200 ") {
			t.Errorf("nginx: %s", line)
		}
		if !strings.Contains(line, `"-"`) {
			resumed++
		}
	}
	t.Logf("the page: %+v; nginx:\n%s", state, strings.Join(requests(), "\n"))
	if state.Closed > 0 || state.Errors < 2 || resumed == 0 {
		t.Errorf("%d errors, %d of them final; %d requests with Last-Event-ID", state.Errors, state.Closed, resumed)
	}
	return fmt.Sprintf("a change is on the page after %d ms; %v without a change: one connection, no error, the next change after %d ms; both replicas killed and stopped in turn: %d reconnections by `Last-Event-ID`, the changes that the other replica had found out within %s",
		live.Milliseconds(), silence, afterSilence.Milliseconds(), state.Opens-1, seconds(max(again[0], again[1], again[2])))
}
