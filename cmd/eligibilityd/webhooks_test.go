package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// webhooksConfig writes a configuration with a webhook of Redis at address, and
// returns its path.
func webhooksConfig(t *testing.T, address string) string {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	config := filepath.Join(dir, "config.yaml")
	text := "webhooks: [{name: orders, url: 'https://orders.shop.example/x?token=canary', secret_file: " + secret + "}]\n"
	if address != "" {
		text += "cache: {redis: {addresses: ['" + address + "']}}\n"
	}
	for path, text := range map[string]string{secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", config: text} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

func deadRecord(t *testing.T, id string, order int64) webhooks.Record {
	t.Helper()
	value, err := json.Marshal(webhooks.Letter{
		ID: id, CustomerID: "c0ffee00-0000-0000-0000-000000000001", Written: 1_767_225_600_000, Attempts: 80, Buried: 1_767_484_800_000, Body: []byte("{}"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return webhooks.Record{ID: id, Order: order, Value: value}
}

func TestWebhooksAreListedAndReplayed(t *testing.T) {
	t.Parallel()
	config := webhooksConfig(t, cachetest.StartRedis(t).Address)
	all, closeRedis, err := openWebhooks(nil, config)
	if err != nil {
		t.Fatal(err)
	}
	defer closeRedis()
	store := all[0].store
	list := func(args ...string) string {
		t.Helper()
		code, out, errOut := runCommand(t, "", append([]string{"webhooks", "list", "--config", config}, args...)...)
		if code != 0 || strings.Contains(out, "canary") {
			t.Errorf("list %v: exit code %d, %s%s", args, code, out, errOut)
		}
		return out
	}
	if got, want := list(), "orders: no sender, to orders.shop.example, sender none, lag 0s, 0 waiting, 0 dead letters\n"; got != want {
		t.Errorf("got %swant %s", got, want)
	}
	const holder = "id shop-\x1b[31m1"
	if _, err := store.Acquire(t.Context(), "orders", holder, time.Minute, time.Now().Add(-90*time.Second)); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Hour)
	state, _ := json.Marshal(webhooks.State{PausedUntil: until.UnixMilli()}) //nolint:errchkjson // numbers and strings
	commit := webhooks.Commit{State: state, Park: []webhooks.Record{deadRecord(t, "p", 0)}}
	for n := range 4 {
		commit.Bury = append(commit.Bury, deadRecord(t, fmt.Sprintf("c:account:%d", n), int64(n)))
	}
	if err := store.Commit(t.Context(), "orders", holder, commit); err != nil {
		t.Fatal(err)
	}
	got := list("orders")
	for _, want := range []string{
		"orders: backing off until " + until.UTC().Format(time.RFC3339) + ", to orders.shop.example, sender shop-\\x1b[31m1, lag 9", "1 waiting, 4 dead letters",
		"  c:account:0  customer c0ffee00-0000-0000-0000-000000000001, written 2026-01-01T00:00:00Z, 80 attempts\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	var reports []webhookReport
	if err := json.Unmarshal([]byte(list("orders", "--json")), &reports); err != nil || len(reports) != 1 || len(reports[0].Letters) != 4 || reports[0].State != "backing_off" {
		t.Errorf("%+v, error %v", reports, err)
	}
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"orders", "c:account:1"}, 0, "1 dead letters are sent again\n"},
		{[]string{"orders", "c:account:1", "c:account:2"}, 1, "1 dead letters are sent again\n1 events are not among the dead letters\n"},
		{[]string{"orders"}, 0, "the webhook is enabled and tries at once\n"},
		{[]string{"orders", "--all", "--json"}, 0, "{\n  \"replayed\": 2,\n  \"left\": 0,\n  \"missing\": 0\n}\n"},
		{[]string{"orders", "--all"}, 0, "0 dead letters are sent again\n"},
		{[]string{"orders", "--all", "x"}, 2, ""},
		{[]string{"invoices", "--all"}, 2, ""},
		{nil, 2, ""},
	} {
		code, out, errOut := runCommand(t, "", append([]string{"webhooks", "replay", "--config", config}, c.args...)...)
		if code != c.code || out != c.out {
			t.Errorf("replay %v: exit code %d, %s%s", c.args, code, out, errOut)
		}
	}
	if status, err := store.Inspect(t.Context(), "orders"); err != nil || status.Parked != 5 || status.Dead != 0 || status.Generation < 5 {
		t.Errorf("%+v, error %v", status, err)
	}
}

func TestWebhooksNeedRedis(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "unix:///nowhere/redis.sock"} {
		for _, args := range [][]string{{"list"}, {"replay", "orders"}} {
			code, out, errOut := runCommand(t, "", append([]string{"webhooks", "--config", webhooksConfig(t, address)}, args...)...)
			if code == 0 || out != "" || errOut == "" {
				t.Errorf("%q %v: exit code %d, %s%s", address, args, code, out, errOut)
			}
		}
	}
}

// A URL that is gone disables the webhook of a running service, in Redis; replay
// enables it, and the change arrives.
func TestAWebhookThatIsGoneIsEnabledByReplay(t *testing.T) {
	t.Parallel()
	var gone atomic.Bool
	var calls, accepted atomic.Int64
	gone.Store(true)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		if gone.Load() {
			w.WriteHeader(http.StatusGone)
			return
		}
		accepted.Add(1)
	}))
	t.Cleanup(receiver.Close)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, partnerCenter := pcsimtest.Start(t)
	environ := toServe(t, partnerCenter.URL, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+cachetest.StartRedis(t).Address,
		"ELIGIBILITY_WEBHOOKS=[{name: orders, url: '"+receiver.URL+"', secret_file: "+secret+"}]")
	p := start(t, func(ctx context.Context, out, log io.Writer) error { return serve(ctx, environ, "", false, out, log) })
	list := func() string {
		all, closeRedis, err := openWebhooks(environ, "")
		if err != nil {
			t.Fatal(err)
		}
		defer closeRedis()
		var out bytes.Buffer
		if err := listWebhooks(t.Context(), all, false, false, &out); err != nil {
			return err.Error()
		}
		return out.String()
	}
	all, closeRedis, err := openWebhooks(environ, "")
	if err != nil {
		t.Fatal(err)
	}
	defer closeRedis()
	awaitText(t, "position", func() string { // the webhook begins with what is written from then on
		status, _ := all[0].store.Inspect(t.Context(), "orders")
		return fmt.Sprint(webhooks.ParseState(status.State).Position != "")
	}, "true")
	get(t, "http://"+p.HTTP+"/v1/customers/"+allowedID+"/eligibility")
	awaitText(t, "disabled", list, "orders: disabled")
	gone.Store(false)
	before := calls.Load()
	if err := replayWebhook(t.Context(), all[0], nil, webhooksFlags{}, new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	awaitText(t, "delivered", func() string { return fmt.Sprint(accepted.Load()) }, "1")
	if before != 1 {
		t.Errorf("%d requests although the URL was gone", before)
	}
	awaitText(t, "enabled", list, "orders: delivering")
}

// awaitText waits until a text begins with want.
func awaitText(t *testing.T, what string, text func() string, want string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		got := text()
		if strings.HasPrefix(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s", what, got)
		}
		<-time.After(20 * time.Millisecond)
	}
}
