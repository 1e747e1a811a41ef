//go:build acceptance

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

const (
	// previousRelease is the last commit with the keys v1 in Redis.
	previousRelease = "5b53719"
	upgradeTime     = time.Minute
	upgradeChecks   = 100 // a second
	upgradeIDs      = 1500
)

// Replicas of the previous release and of this one serve beside each other, on one
// Redis and with one configuration file. No check fails, and Partner Center is
// called at most twice as often as by the previous release alone.
func TestAcceptanceUpgrade(t *testing.T) {
	previous := buildRelease(t, previousRelease)
	alone := startUpgrade(t)
	alone.startPrevious(previous)
	alone.startPrevious(previous)
	callsAlone := alone.load("previous release alone", 0, 1)

	both := startUpgrade(t)
	old := both.startPrevious(previous)
	both.startThis()
	callsBoth := both.load("side by side", 0, 1)
	client := both.redis.Client()
	defer func() { _ = client.Close() }()
	layouts := map[string]int{}
	for _, key := range client.Keys(t.Context(), "*").Val() {
		layouts[strings.Join(strings.SplitN(key, ":", 3)[:2], ":")]++
	}
	t.Logf("keys in Redis by layout: %v", layouts)
	if layouts["eligibility:v1"] == 0 || layouts["eligibility:v2"] == 0 {
		t.Error("not both layouts are in Redis: nothing is proved")
	}
	if callsBoth > 2*callsAlone {
		t.Errorf("%d calls side by side, more than twice the %d of the previous release alone", callsBoth, callsAlone)
	}
	// The load balancer drops the old replica before it stops.
	stopped := make(chan error, 1)
	go func() { stopped <- old() }()
	both.startThis()
	both.load("this release alone, after the upgrade", 1, 2)
	if err := <-stopped; err != nil {
		t.Errorf("the previous release ended with: %v", err)
	}
}

// buildRelease builds the program of a commit from the history, and returns its path.
func buildRelease(t *testing.T, commit string) string {
	t.Helper()
	source, binary := t.TempDir(), filepath.Join(t.TempDir(), "eligibilityd")
	script := `git -C "$(git rev-parse --show-toplevel)" archive "$0" | tar -x -C "$1" && cd "$1" && go build -o "$2" ./cmd/eligibilityd`
	if out, err := exec.CommandContext(t.Context(), "bash", "-eo", "pipefail", "-c", script, commit, source, binary).CombinedOutput(); err != nil { //nolint:gosec // our own history
		t.Fatalf("building %s, which needs the whole history: %v\n%s", commit, err, out)
	}
	return binary
}

// upgrade is replicas on one Redis and one Partner Center.
type upgrade struct {
	t       *testing.T
	far     *fleet // counts the calls of Partner Center
	redis   *cachetest.Redis
	config  string // the configuration file of all replicas
	ids     []string
	clients []eligibilityv1.EligibilityServiceClient
}

func startUpgrade(t *testing.T) *upgrade {
	t.Helper()
	far, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrade{t: t, far: &fleet{t: t, far: far, calls: map[int64]int{}}, redis: cachetest.StartRedis(t)}
	on := httptest.NewServer(u.far)
	t.Cleanup(func() {
		far.Close()
		on.Close()
	})
	u.ids = u.far.customers('a', upgradeIDs, "Allowed")
	u.config = filepath.Join(t.TempDir(), "config.yaml")
	text := fmt.Sprintf(`
server: {grpc: {address: '127.0.0.1:0'}, http: {address: '127.0.0.1:0'}, admin: {address: '127.0.0.1:0'}, drain: 2s}
partner_center:
  base_url: %[1]s
  authority: %[1]s
  tenant_id: %[2]s
  client_id: %[3]s
  client_secret: %[4]s
  refresh_token_file: %[5]s
  budget_per_minute: 100000
cache:
  redis: {addresses: ['%[6]s'], read_timeout: 500ms, write_timeout: 500ms}
  ages: {allowed: {fresh: 20s}, qualifications: {fresh: 20s}}
log: {plain_per_second: 1}
`, on.URL, pcsim.DefaultTenantID, pcsim.DefaultClientID, pcsim.DefaultClientSecret, pcsimtest.TokenFile(t), u.redis.Address)
	if err := os.WriteFile(u.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return u
}

// startThis starts a replica of this release.
func (u *upgrade) startThis() {
	u.t.Helper()
	replica := start(u.t, func(ctx context.Context, out, log io.Writer) error {
		return serve(ctx, nil, u.config, false, out, withoutRPCs{log})
	})
	u.add(replica)
}

// startPrevious starts a replica of the previous release, and returns a function
// that stops it as a process manager does.
func (u *upgrade) startPrevious(binary string) (stop func() error) {
	u.t.Helper()
	p := &process{log: new(output)}
	cmd := exec.CommandContext(context.WithoutCancel(u.t.Context()), binary, "serve", "--config", u.config) //nolint:gosec // our own program
	cmd.Stderr = withoutRPCs{p.log}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	stop = sync.OnceValue(func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // if it has ended, Wait returns how
		return cmd.Wait()
	})
	u.t.Cleanup(func() { _ = stop() })
	p.log.await(u.t, "the record that it serves", func(printed string) bool {
		for line := range strings.SplitSeq(printed, "\n") {
			if strings.Contains(line, `"msg":"serving"`) && json.Unmarshal([]byte(line), &p.addresses) == nil {
				return true
			}
		}
		return false
	})
	u.add(p)
	return stop
}

func (u *upgrade) add(p *process) {
	conn, err := grpc.NewClient(p.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { _ = conn.Close() })
	u.clients = append(u.clients, eligibilityv1.NewEligibilityServiceClient(conn))
}

// load asks two of the replicas in turn for upgradeTime, whether or not earlier
// checks were answered, about all customers in turn. It returns how many calls
// Partner Center received.
func (u *upgrade) load(what string, one, other int) (calls int) {
	u.t.Helper()
	calls = -u.total()
	var mu sync.Mutex
	var took times
	failed := 0
	var asking sync.WaitGroup
	began := time.Now()
	checks := int(upgradeTime/time.Second) * upgradeChecks
	for n := range checks {
		pause(u.t.Context(), time.Until(began.Add(time.Duration(n)*time.Second/upgradeChecks)))
		replica := one
		if (n+n/upgradeIDs)%2 == 1 { // each customer at both
			replica = other
		}
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			asked := time.Now()
			answer, err := u.clients[replica].CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: u.ids[n%len(u.ids)]})
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(asked))
			if err != nil || answer.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
				failed++
				if failed <= 3 {
					u.t.Errorf("%s: replica %d: %v, %v", what, replica, answer, err)
				}
			}
		})
	}
	asking.Wait()
	calls += u.total()
	u.t.Logf("%s: %d checks in %v, %d failed, %d calls of Partner Center, answers %v", what, checks, time.Since(began).Round(time.Second), failed, calls, took)
	if failed > 0 {
		u.t.Errorf("%s: %d of %d checks failed", what, failed, checks)
	}
	return calls
}

// total is how many calls Partner Center has received.
func (u *upgrade) total() (n int) {
	u.far.mu.Lock()
	defer u.far.mu.Unlock()
	for _, calls := range u.far.calls {
		n += calls
	}
	return n
}
