package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"
)

// orderPipeline is examples/pipeline, built, with its directory and its orders.
type orderPipeline struct {
	program, dir, orders string
}

// buildExample builds a program of examples/.
func buildExample(t *testing.T, name string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), name)
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "-race" && setting.Value == "true" {
				args = append(args, "-race") // its packages are built already
			}
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", append(args, "../../examples/"+name)...).CombinedOutput(); err != nil { //nolint:gosec // our own program
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// buildPipeline builds examples/pipeline. Orders are of these customers, two of each.
func buildPipeline(t *testing.T, customers ...string) orderPipeline {
	t.Helper()
	p := orderPipeline{program: buildExample(t, "pipeline"), dir: t.TempDir()}
	var text strings.Builder
	for _, id := range customers {
		for n := range 2 {
			fmt.Fprintf(&text, "{\"id\":\"%s/%d\",\"customer_id\":%q}\n", id, n, id)
		}
	}
	p.orders = filepath.Join(p.dir, "orders.jsonl")
	if err := os.WriteFile(p.orders, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// start starts the pipeline. kill ends it as a crash would, and returns once it has
// ended.
func (p orderPipeline) start(t *testing.T, address string) (out *output, ended <-chan error, kill func()) {
	t.Helper()
	out = new(output)
	cmd := exec.CommandContext(context.Background(), p.program, "--address", address, "--dir", p.dir, "--orders", p.orders) //nolint:gosec // our own program
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end, gone := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(gone)
		end <- cmd.Wait()
	}()
	kill = func() {
		_ = cmd.Process.Kill()
		<-gone
	}
	t.Cleanup(kill)
	return out, end, kill
}

// run runs the pipeline until it ends by itself, which it reports, or is killed after d.
func (p orderPipeline) run(t *testing.T, address string, d time.Duration) (ended bool) {
	t.Helper()
	out, end, kill := p.start(t, address)
	select {
	case err := <-end:
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return true
	case <-time.After(d):
		kill()
		return false
	}
}

// placed returns how often each order was placed.
func (p orderPipeline) placed(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "placed.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		var order struct{ Key string }
		if err := json.Unmarshal([]byte(line), &order); err == nil { // else a kill cut it off
			all[order.Key]++
		}
	}
	return all
}

// setAccount scripts a customer without qualifications.
func setAccount(t *testing.T, sim *pcsim.Server, id, status string) {
	t.Helper()
	if err := sim.SetCustomer(pcsim.Customer{ID: id, Account: []pcsim.Step{{Status: status}}, Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}}}}); err != nil {
		t.Fatal(err)
	}
}

// The pipeline is killed again and again while reviews end. Each order of a customer who
// may buy is placed once, and no other.
func TestAPipelineSurvivesItsOwnEnd(t *testing.T) {
	t.Parallel()
	sim, url := pcsimtest.Start(t)
	service := startServe(t, url.URL, onFleet(cachetest.StartRedis(t))...)
	const allowed, reviewed, refused = 10, 40, 10 // customers in a row
	ids := make([]string, allowed+reviewed+refused)
	for i := range ids {
		ids[i] = fmt.Sprintf("d0000000-0000-4000-8000-%012d", i)
		status := "UnderReview"
		if i < allowed {
			status = "Allowed"
		}
		setAccount(t, sim, ids[i], status)
	}
	p := buildPipeline(t, ids...)
	kills := 0
	run := func() (ended bool) {
		kills++
		return p.run(t, service.GRPC, 100*time.Millisecond+rand.N(time.Second))
	}
	for range 3 {
		run()
	}
	for i, id := range ids[allowed:] {
		status := "Allowed"
		if i >= reviewed {
			status = "NotAllowed"
		}
		setAccount(t, sim, id, status)
		// Somebody else's check finds out; a review would, some minutes later.
		if _, err := service.ask(t, &eligibilityv1.CheckEligibilityRequest{CustomerId: id, MaxAge: durationpb.New(0)}); err != nil {
			t.Fatal(err)
		}
		if i%6 == 0 && run() {
			t.Error("the pipeline ended while reviews went on")
		}
	}
	if !p.run(t, service.GRPC, 2*patience) {
		t.Error("the pipeline has not ended")
	}
	placed := p.placed(t)
	for i, id := range ids {
		for n := range 2 {
			want := 1
			if i >= allowed+reviewed {
				want = 0
			}
			if got := placed[fmt.Sprintf("%s/%d", id, n)]; got != want {
				t.Errorf("order %s/%d was placed %d times, want %d", id, n, got, want)
			}
		}
	}
	t.Logf("killed %d times", kills)
}

// Without Redis, a service that is started again knows nothing, and takes none of the
// tokens of before.
func TestAPipelineOutlivesItsService(t *testing.T) {
	t.Parallel()
	const waits, clears = "d0000000-0000-4000-8000-100000000001", "d0000000-0000-4000-8000-100000000002"
	sim, url := pcsimtest.Start(t)
	setAccount(t, sim, waits, "UnderReview")
	setAccount(t, sim, clears, "UnderReview")
	p := buildPipeline(t, waits, clears)
	service := startServe(t, url.URL)
	out, _, kill := p.start(t, service.GRPC)
	out.await(t, "four orders to be parked", func(printed string) bool { return strings.Count(printed, `"state":"parked"`) == 4 })
	eventually(t, "a token to be stored", func() bool {
		journal, err := os.ReadFile(filepath.Join(p.dir, "journal.jsonl"))
		return err == nil && strings.Contains(string(journal), `"token":"`)
	})
	kill()
	if err := service.stop(); err != nil {
		t.Fatal(err)
	}
	setAccount(t, sim, clears, "Allowed")
	service = startServe(t, url.URL)
	out, _, kill = p.start(t, service.GRPC)
	out.await(t, "two orders to be placed", func(printed string) bool { return strings.Count(printed, `"state":"placed"`) == 2 })
	kill()
	if placed := p.placed(t); len(placed) != 2 || placed[clears+"/0"] != 1 || placed[clears+"/1"] != 1 {
		t.Errorf("placed: %v", placed)
	}
}
