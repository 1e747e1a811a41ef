//go:build acceptance

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// placedOrders returns how often each order is in the file of a pipeline. A last line
// that is not whole was not written: the process was killed.
func placedOrders(t *testing.T, dir string) map[string]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "placed.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	placed := map[string]int{}
	for line := range bytes.Lines(text) {
		var order struct{ Key string }
		if json.Unmarshal(line, &order) == nil {
			placed[order.Key]++
		}
	}
	return placed
}

// pipelineRuns starts the pipeline again and again until one process ends by itself.
// Those before are killed after some seconds, as long as ctx lives.
func pipelineRuns(ctx context.Context, t *testing.T, program, address, dir, orders string, out *output) (kills int) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Minute); time.Now().Before(limit); {
		cmd := exec.CommandContext(t.Context(), program, "-address", address, "-dir", dir, "-orders", orders) //nolint:gosec // our own program
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return kills
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		spell, last := time.Second+rand.N(5*time.Second), ctx.Err() != nil
		if last {
			spell = 3 * time.Minute
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the pipeline: %v", err)
			}
			return kills
		case <-time.After(spell):
			_ = cmd.Process.Kill()
			<-ended //nolint:errcheck // killed
			kills++
			if last {
				t.Error("the pipeline does not end")
				return kills
			}
		}
	}
	return kills
}

// changesForAPipeline runs examples/pipeline with orders of customers under review, kills
// it again and again, and both replicas too.
func changesForAPipeline(t *testing.T) string { //nolint:thelper // a test of its own
	const customers, blocked, unasked, length = 200, 20, 20, 100 * time.Second
	dir := t.TempDir()
	program := filepath.Join(dir, "pipeline")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../examples/pipeline").CombinedOutput(); err != nil { //nolint:gosec // our own program
		t.Fatalf("%v\n%s", err, out)
	}
	f := startReplicas(t, 2, onFleet(cachetest.StartRedis(t))...)
	ids := changingIDs('1', customers)
	f.script(ids, accountWords[1], 20*time.Millisecond)
	var orders bytes.Buffer
	for i, id := range ids {
		for n := range 2 {
			fmt.Fprintf(&orders, `{"id":"%d-%d","customer_id":"%s"}`+"\n", i, n, id)
		}
	}
	file := filepath.Join(dir, "orders.jsonl")
	if err := os.WriteFile(file, orders.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out := new(output)
	killing, spare := context.WithTimeout(t.Context(), length)
	defer spare()
	ended := make(chan int, 1)
	go func() { ended <- pipelineRuns(killing, t, program, f.all[0].GRPC, dir, file, out) }()
	out.await(t, "orders to be parked", func(printed string) bool {
		return strings.Count(printed, `"state":"parked"`) >= 2*customers
	})
	if placed := placedOrders(t, dir); len(placed) > 0 {
		t.Errorf("placed before any review was over: %v", placed)
	}
	replicaKills := 0
	for i, id := range ids {
		status := accountWords[0]
		if i < blocked {
			status = accountWords[2]
		}
		before := placedOrders(t, dir)
		if n := before[fmt.Sprintf("%d-0", i)] + before[fmt.Sprintf("%d-1", i)]; n > 0 {
			t.Errorf("the orders of %s were placed before its review was over", id)
		}
		f.script([]string{id}, status, 20*time.Millisecond)
		if i < customers-unasked { // the others are found out by reviews alone
			if _, err := f.now(t.Context(), f.clients[1], id); err != nil {
				t.Errorf("a check of %s: %v", id, err)
			}
		}
		if i%50 == 25 {
			f.all[0].kill()
			f.all[0].restart(t)
			replicaKills++
		}
		pause(t.Context(), length/2/customers)
	}
	kills := <-ended
	placed := placedOrders(t, dir)
	for i := range ids {
		for n := range 2 {
			want := 1
			if i < blocked {
				want = 0
			}
			if got := placed[fmt.Sprintf("%d-%d", i, n)]; got != want {
				t.Errorf("order %d-%d was placed %d times, want %d", i, n, got, want)
			}
		}
	}
	if kills < 5 || len(placed) != 2*(customers-blocked) {
		t.Errorf("%d kills, %d orders placed", kills, len(placed))
	}
	return fmt.Sprintf("%d orders of %d customers under review were parked; the pipeline was killed %d times and its replica %d times: each order of the %d customers who may buy then was placed once, none of the others, none before",
		2*customers, customers, kills, replicaKills, customers-blocked)
}
