//go:build acceptance

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// asWatchers is the variable that makes the test binary run as a crowd of watchers.
const asWatchers = "TEST_AS_WATCHERS"

func init() { //nolint:gochecknoinits // before TestMain, which is not ours
	if text := os.Getenv(asWatchers); text != "" {
		var c watcherCrowd
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			panic(err)
		}
		if err := c.watch(); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
}

// watcherCrowd is watchers of one process. Each follows a customer that all of them follow, and
// others.
type watcherCrowd struct {
	Address string
	Streams int
	Common  string
	Others  int // further customers of each
	Changes int // each watcher ends after so many of Common
}

// reached is when a change has reached the watchers of a crowd.
type reached struct {
	Evidence int64 // of the change: Unix ms
	Watchers int
	Median   int64 // Unix ns
	Last     int64 // Unix ns
}

// watch opens all streams, prints a line when each has received its initial answers, and
// then, once all changes have reached all watchers, when they did.
func (c watcherCrowd) watch() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var (
		mu    sync.Mutex
		times = map[int64][]int64{} // evidence → times of receipt
		order []int64
		fault error
		ready sync.WaitGroup
		all   sync.WaitGroup
	)
	ready.Add(c.Streams)
	var conn *grpc.ClientConn
	for i := range c.Streams {
		if i%200 == 0 {
			var err error
			if conn, err = grpc.NewClient(c.Address, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
				return err
			}
		}
		client := eligibilityv1.NewEligibilityServiceClient(conn)
		all.Go(func() {
			err := c.one(ctx, client, ready.Done, func(evidence int64) {
				now := time.Now().UnixNano()
				mu.Lock()
				defer mu.Unlock()
				if times[evidence] == nil {
					order = append(order, evidence)
				}
				times[evidence] = append(times[evidence], now)
			})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				fault = errors.Join(fault, err)
				cancel()
			}
		})
		if i%100 == 99 {
			pause(ctx, 20*time.Millisecond) // as consumers do that do not all start at once
		}
	}
	begun := make(chan struct{})
	go func() {
		ready.Wait()
		close(begun)
	}()
	select {
	case <-begun:
		_, _ = fmt.Fprintln(os.Stdout, connected)
	case <-ctx.Done():
	}
	all.Wait()
	if fault != nil {
		return fault
	}
	result := make([]reached, 0, len(order))
	for _, evidence := range order {
		of := times[evidence] // in order
		result = append(result, reached{evidence, len(of), of[len(of)/2], of[len(of)-1]})
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// one is one watcher, from its initial answers to the last change.
func (c watcherCrowd) one(ctx context.Context, client eligibilityv1.EligibilityServiceClient, ready func(), see func(evidence int64)) error {
	ids := []string{c.Common}
	for range c.Others {
		ids = append(ids, randomID())
	}
	stream, err := client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{CustomerIds: ids})
	if err != nil {
		return err
	}
	for begun, seen := false, 0; seen < c.Changes; {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if message.GetProgress().GetInitialComplete() && !begun {
			begun = true
			ready()
		}
		// The check before the test may arrive as a change, from nothing.
		if change := message.GetChange(); change.GetBefore() != nil {
			see(change.GetAfter().GetEvidenceTime().AsTime().UnixMilli())
			seen++
		}
	}
	return nil
}

// start runs the crowd in a process of its own. ended returns when its changes have
// arrived.
func (c watcherCrowd) start(t *testing.T) (ready func(), ended func() []reached) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program) //nolint:gosec // the test's own binary
	cmd.Env, cmd.Stderr = append(os.Environ(), asWatchers+"="+asJSON(c)), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	printed := bufio.NewReader(out)
	ready = func() {
		t.Helper()
		if line, err := printed.ReadString('\n'); err != nil || line != connected+"\n" {
			t.Fatalf("watchers printed %q, %v", line, err)
		}
	}
	ended = func() (all []reached) {
		t.Helper()
		failure := json.NewDecoder(printed).Decode(&all)
		if err := errors.Join(failure, cmd.Wait()); err != nil {
			t.Errorf("watchers: %v", err)
		}
		return all
	}
	return ready, ended
}

// memory returns the resident memory of a replica and its heap after a collection.
func (r *instance) memory(t *testing.T) (resident, heap int) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(r.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &resident); err != nil {
		t.Fatal(err)
	}
	code, _, profile := get(t, "http://"+r.Admin+"/debug/pprof/heap?gc=1&debug=1")
	_, rest, _ = strings.Cut(profile, "# HeapAlloc = ")
	if _, err := fmt.Sscan(rest, &heap); code != http.StatusOK || err != nil {
		t.Fatalf("heap profile: %d %v", code, err)
	}
	return resident << 10, heap
}

// changesToManyWatchers measures how long a change takes to reach 10,000 watchers of one
// replica, which another replica finds out, and the memory of each watcher.
func changesToManyWatchers(t *testing.T) string { //nolint:thelper // a test of its own
	const crowds, each, changes = 4, 2500, 5
	const within, most = 5 * time.Second, 100 << 10 // a watcher's memory
	f := startReplicas(t, 2, onFleet(cachetest.StartRedis(t))...)
	common := coldID('1', 0)
	f.script([]string{common}, accountWords[0], 0)
	f.hammer([]string{common}, func(*eligibilityv1.CheckEligibilityResponse) {})
	residentBefore, heapBefore := f.all[0].memory(t)

	ended := make([]func() []reached, crowds)
	began := time.Now()
	for i := range ended {
		var ready func()
		ready, ended[i] = watcherCrowd{Address: f.all[0].GRPC, Streams: each, Common: common, Others: 9, Changes: changes}.start(t)
		ready()
	}
	opened := time.Since(began)
	resident, heap := f.all[0].memory(t)

	asked := map[int64]time.Time{} // evidence time of a change → when the check was sent
	for i := range changes {
		pause(t.Context(), 3*time.Second)
		f.script([]string{common}, accountWords[(i+1)%2*2], 0)
		sent := time.Now()
		resp, err := f.now(t.Context(), f.clients[1], common)
		if err != nil {
			t.Fatal(err)
		}
		asked[resp.GetEvidenceTime().AsTime().UnixMilli()] = sent
	}
	var medians, lasts times
	for _, of := range ended {
		for _, one := range of() {
			sent, known := asked[one.Evidence]
			if !known || one.Watchers != each {
				t.Errorf("a change of %d reached %d watchers, want %d", one.Evidence, one.Watchers, each)
				continue
			}
			medians, lasts = append(medians, time.Unix(0, one.Median).Sub(sent)), append(lasts, time.Unix(0, one.Last).Sub(sent))
		}
	}
	perHeap, perResident := (heap-heapBefore)/(crowds*each), (resident-residentBefore)/(crowds*each)
	t.Logf("%v until all watchers had begun; %d changes of %d crowds: medians %v, last ones %v", opened.Round(time.Millisecond), changes, crowds, medians, lasts)
	if last := lasts.quantile(1); last > within {
		t.Errorf("%v until the last watcher had a change, want at most %v", last, within)
	}
	if perHeap > most || perResident > 2*most {
		t.Errorf("%d bytes of heap and %d of resident memory for each watcher, want at most %d and %d", perHeap, perResident, most, 2*most)
	}
	return fmt.Sprintf("each follows 10 customers; from the check at another replica that finds a change out to half of the watchers %d ms, to the last one %d ms (median of %d changes; the worst: %d ms); "+
		"memory of a watcher: %.1f KiB of heap, %.1f KiB resident",
		medians.quantile(0.5).Milliseconds(), lasts.quantile(0.5).Milliseconds(), changes, lasts.quantile(1).Milliseconds(), float64(perHeap)/1024, float64(perResident)/1024)
}
