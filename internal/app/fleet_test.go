package app_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// consoleReplica is a whole service at a simulator, with a console without sign-in.
type consoleReplica struct {
	address string
	client  *http.Client
}

// startConsole starts a replica with further variables of the configuration.
func startConsole(t *testing.T, version, simulator, tokenFile string, variables ...string) *consoleReplica {
	t.Helper()
	cfg, err := config.Load("", pcsimtest.Environ(simulator, tokenFile, append([]string{
		"ELIGIBILITY_CONSOLE__ENABLED=true", "ELIGIBILITY_SERVER__DRAIN=0s", "ELIGIBILITY_SERVER__SHUTDOWN_TIMEOUT=1s",
	}, variables...)...), config.Dev)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	built, err := app.New(ctx, cfg, app.Build{Version: version}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	on, err := app.OpenListeners(ctx, cfg.Server)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- built.Run(ctx, on) }()
	transport := new(http.Transport)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &consoleReplica{address: "http://" + on.HTTP.Addr().String(), client: &http.Client{Transport: transport}}
}

// get returns a page or an answer, white space apart.
func (r *consoleReplica) get(ctx context.Context, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.address+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.Join(strings.Fields(string(text)), " "), err
}

// await waits until a page has all texts.
func (r *consoleReplica) await(t *testing.T, path string, texts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last, missing := "", ""
	for {
		if status, body, err := r.get(ctx, path); err == nil {
			last, missing = body, ""
			if status != http.StatusOK {
				missing = fmt.Sprint("status ", status)
			}
			for _, text := range texts {
				if !strings.Contains(body, text) {
					missing = text
				}
			}
			if missing == "" {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within a minute: %q in %s", missing, last)
		case <-tick.C:
		}
	}
}

// Two replicas with another budget and policy each share a Redis; Partner Center answers
// 429. The page of one of them has both, the pause and the reduced budget, the webhook
// of either and who asked. It stays within its bounds when Redis hangs, and states so.
func TestFleetPageOfAWholeService(t *testing.T) {
	t.Parallel()
	const id = "a0000000-0000-4000-8000-000000000002"
	simulator, err := pcsim.New(pcsim.Config{RequestsPerMinute: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := simulator.SetCustomer(pcsim.Customer{ID: id, Account: []pcsim.Step{{Status: "Allowed"}}}); err != nil {
		t.Fatal(err)
	}
	partnerCenter := httptest.NewServer(simulator.Handler())
	t.Cleanup(func() {
		simulator.Close()
		partnerCenter.Close()
	})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	t.Cleanup(receiver.Close)
	dir, server := t.TempDir(), cachetest.StartRedis(t)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokenFile := pcsimtest.TokenFile(t)
	shared := []string{
		"ELIGIBILITY_CACHE__REDIS__ADDRESSES=" + server.Address, "ELIGIBILITY_CACHE__REDIS__READ_TIMEOUT=2s", "ELIGIBILITY_CACHE__REDIS__WRITE_TIMEOUT=2s",
		"ELIGIBILITY_WEBHOOKS=[{name: orders, url: '" + receiver.URL + "', secret_file: " + secret + "}]",
	}
	first := startConsole(t, "1.0.0", partnerCenter.URL, tokenFile, append(shared,
		"ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=100", "ELIGIBILITY_DECISION_LOG__FILE="+filepath.Join(dir, "decisions.jsonl"))...)
	second := startConsole(t, "2.0.0", partnerCenter.URL, tokenFile, append(shared,
		"ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=50", "ELIGIBILITY_POLICY__NOT_READY=allow")...)

	first.await(t, "/v1/customers/"+id+"/eligibility", `"DECISION_ALLOWED"`)
	const fleet = "/console/fleet"
	first.await(t, fleet, "Neither is down", "2 replicas share the budget", "1.0.0", "2.0.0", `50 a minute <span class="badge warn">differs</span>`,
		`<td role="cell" data-label="Policy"><span class="badge warn">differs</span></td>`, "accepts writes", "messages arrive", "valid until", `<span class="badge ok">delivering</span>`)
	second.await(t, fleet, `100 a minute <span class="badge warn">differs</span>`, `<span class="badge ok">delivering</span>`)

	for n := range 5 { // more than the simulator admits
		if _, _, err := first.get(t.Context(), fmt.Sprintf("/v1/customers/a0000000-0000-4000-8000-00000000010%d/eligibility", n)); err != nil {
			t.Fatal(err)
		}
	}
	first.await(t, fleet, "Neither is down: Microsoft asked us to pause until", `<span class="badge warn">paused</span> calls to Partner Center until`,
		`<span class="badge warn">reduced</span> to 70 of 100 calls a minute, because Microsoft answered 429`, "0 calls could be made at once")
	second.await(t, fleet, "Neither is down: Microsoft asked us to pause until") // by what the first has met
	first.await(t, "/console/customers/"+id+"/asked", "anonymous", "Allowed", `<span class="badge allowed">allowed</span>`, "decisions*.jsonl*")
	second.await(t, "/console/customers/"+id+"/asked", "decision_log.file is empty")

	server.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // of which a busy machine may need some
	defer cancel()
	status, body, err := first.get(ctx, fleet)
	if err != nil || status != http.StatusOK || !regexp.MustCompile(`could not be read within a second.*<li>the webhook orders</li>`).MatchString(body) {
		t.Errorf("while Redis hangs: %d, %v: %s", status, err, body)
	}
	first.await(t, fleet, "It is us: our Redis does not work (timeout since", "refuses writes", "no messages", "Redis is out of reach, and this replica has its part of the budget")
	server.Resume()
	first.await(t, fleet, "accepts writes", "messages arrive", `<span class="badge ok">delivering</span>`)
}
