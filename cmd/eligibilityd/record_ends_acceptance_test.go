//go:build acceptance

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// press asks about customers over both transports until ctx ends. It returns when each
// question that was answered was answered.
func press(ctx context.Context, c *askers, replica int, ids []string, aSecond int) map[string]time.Time {
	var (
		mu     sync.Mutex
		when   = map[string]time.Time{}
		asking sync.WaitGroup
	)
	began := time.Now()
	for n := 0; pause(ctx, time.Until(began.Add(time.Duration(n)*time.Second/time.Duration(aSecond)))); n++ {
		asking.Go(func() {
			reqs, batch := []*eligibilityv1.CheckEligibilityRequest{about(ids[n%len(ids)])}, n%10 == 0
			for batch && len(reqs) < 20 {
				reqs = append(reqs, about(ids[rand.IntN(len(ids))]))
			}
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
			defer cancel()
			all := c.ask(within, replica, "anonymous", []string{"grpc", "rest"}[n%2], batch, reqs...)
			mu.Lock()
			defer mu.Unlock()
			for _, a := range all {
				if a.outcome != "" {
					when[a.id] = time.Now()
				}
			}
		})
	}
	asking.Wait()
	return when
}

// recordedIn counts the records of each question.
func recordedIn(t *testing.T, path string) map[string]int {
	t.Helper()
	found := map[string]int{}
	eachRecord(t, logFiles(t, path), func(r *decided) { found[r.DecisionID]++ })
	return found
}

// mustHave fails the test unless each question that was answered has exactly one record.
func mustHave(t *testing.T, answers map[string]time.Time, found map[string]int) {
	t.Helper()
	var faults []string
	for id := range answers {
		if found[id] != 1 {
			faults = append(faults, fmt.Sprintf("%s has %d records", id, found[id]))
		}
	}
	if len(faults) > 0 || len(answers) == 0 {
		t.Errorf("%d of %d answers without exactly one record:\n%s", len(faults), len(answers), some(faults))
	}
}

// recordWhenReplicasEnd kills one replica and stops another, both while they are asked.
func recordWhenReplicasEnd(t *testing.T) string { //nolint:thelper // a test of its own
	const aSecond, kills, stops = 400, 5, 5
	dir, ids := t.TempDir(), changingIDs('1', 300)
	path := filepath.Join(dir, "decisions.jsonl")
	f := startReplicas(t, 1, append(onFleet(cachetest.StartRedis(t)), "ELIGIBILITY_DECISION_LOG__FILE="+path, "ELIGIBILITY_DECISION_LOG__MAX_FILES=1000")...)
	f.script(ids, accountWords[0], 0)
	c := newAskers(t, nil, f.all[0].process)
	during := func(length time.Duration, end func()) map[string]time.Time {
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		pressed := make(chan map[string]time.Time, 1)
		go func() { pressed <- press(ctx, c, 0, ids, aSecond) }()
		pause(ctx, length/2)
		end()
		cancel()
		return <-pressed
	}
	all, lost, longest := map[string]time.Time{}, 0, time.Duration(0)
	for range kills {
		var killed time.Time
		answers := during(3*time.Second, func() {
			killed = time.Now()
			f.all[0].kill()
		})
		wholeLines(t, path)
		f.all[0].restart(t)
		found := recordedIn(t, path)
		for id, at := range answers {
			if found[id] == 0 {
				lost++
				longest = max(longest, killed.Sub(at))
				delete(answers, id)
			}
			all[id] = at
		}
		mustHave(t, answers, found)
	}
	if lost > kills*recordQueue {
		t.Errorf("%d records lost", lost)
	}
	stopped := 0
	for range stops {
		answers := during(3*time.Second, func() { f.all[0].terminate(t) })
		mustHave(t, answers, recordedIn(t, path))
		stopped += len(answers)
		f.all[0].restart(t)
	}
	return fmt.Sprintf("%d checks a second; of %d answers of a replica that was killed %d times, %d have no record, the oldest of them %d ms old; all lines are whole; none of %d answers of one that was stopped %d times is missing",
		aSecond, len(all), kills, lost, longest.Milliseconds(), stopped, stops)
}

// wholeLines fails the test if the log, after a kill, has more than a last line that is
// not whole.
func wholeLines(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if end := bytes.LastIndexByte(text, '\n'); end >= 0 && end+1 != len(text) {
		t.Logf("the last line is %d bytes of a record", len(text)-end-1)
		text = text[:end+1]
	}
	readRecords(t, path, strings.NewReader(string(text)), func(*decided) {})
}

// recordRotated asks while the log is rotated by size, and while logrotate renames it.
func recordRotated(t *testing.T) string { //nolint:thelper // a test of its own
	const aSecond, length, renames = 600, 12 * time.Second, 8
	dir, ids := t.TempDir(), changingIDs('1', 300)
	path := filepath.Join(dir, "decisions.jsonl")
	f := startReplicas(t, 1, append(onFleet(cachetest.StartRedis(t)),
		"ELIGIBILITY_DECISION_LOG__FILE="+path, "ELIGIBILITY_DECISION_LOG__MAX_BYTES=1MiB", "ELIGIBILITY_DECISION_LOG__MAX_FILES=1000")...)
	f.script(ids, accountWords[1], 0)
	c := newAskers(t, nil, f.all[0].process)
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	pressed := make(chan map[string]time.Time, 1)
	go func() { pressed <- press(ctx, c, 0, ids, aSecond) }()
	for i := range renames {
		pause(ctx, length/(renames+1))
		if err := os.Rename(path, filepath.Join(dir, fmt.Sprintf("decisions.jsonl.%d", i))); err != nil {
			t.Error(err)
		}
		if err := f.all[0].cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the log to be opened again", func() bool {
			_, err := os.Stat(path)
			return err == nil
		})
	}
	answers := <-pressed
	f.all[0].terminate(t)
	files := logFiles(t, path)
	mustHave(t, answers, recordedIn(t, path))
	gzipped := len(slices.DeleteFunc(slices.Clone(files), func(name string) bool { return !strings.HasSuffix(name, ".gz") }))
	if gzipped == 0 || len(files)-gzipped < renames {
		t.Errorf("%d files, %d of them gzipped", len(files), gzipped)
	}
	return fmt.Sprintf("%d answers in %v, rotated %d times by size (1 MiB) and %d times by logrotate (rename, SIGHUP): each has one record", len(answers), length, gzipped, renames)
}
