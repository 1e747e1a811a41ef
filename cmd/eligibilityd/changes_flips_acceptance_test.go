//go:build acceptance

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

var flipsTime = flag.Duration("flips", 10*time.Minute, "how long customers flip while replicas are killed")

// accountWords are the statuses that customers flip between.
var accountWords = [...]string{"Allowed", "UnderReview", "NotAllowed"}

// flip gives random customers another status until ctx ends, each about every that often.
func (f *replicas) flip(ctx context.Context, ids []string, every, latency time.Duration) (flips int) {
	f.t.Helper()
	at := make([]int, len(ids)) // index in accountWords
	for begun := time.Now(); pause(ctx, time.Until(begun.Add(time.Duration(flips)*every/time.Duration(len(ids))))); flips++ {
		// Round by round, so that a status lasts long enough to be asked about.
		one := flips % len(ids)
		at[one] = (at[one] + 1 + rand.IntN(2)) % len(accountWords)
		f.far.put(f.t, flipping(ids[one], accountWords[at[one]], latency))
	}
	return flips
}

// killInTurn kills one replica after the other and starts it again, until ctx ends.
func (f *replicas) killInTurn(ctx context.Context, every, away time.Duration) (kills int) {
	f.t.Helper()
	for ; pause(ctx, every-away); kills++ {
		one := f.all[kills%len(f.all)]
		one.kill()
		pause(ctx, away)
		one.restart(f.t)
	}
	return kills
}

// changesOfFlips flips 1,000 customers, each about every 40 s. Checks ask Partner Center
// about each of them about every 5 s, at whichever replica runs.
func changesOfFlips(t *testing.T) string { //nolint:thelper // a test of its own
	const customers, watchers, latency = 1000, 50, 50 * time.Millisecond
	f := startReplicas(t, 3, onFleet(cachetest.StartRedis(t))...)
	ids := changingIDs('1', customers)
	f.script(ids, accountWords[0], latency)

	watching, leave := context.WithCancel(t.Context())
	defer leave()
	all := make([]*watcher, watchers)
	var follow, play sync.WaitGroup
	for i := range all {
		all[i] = newWatcher(ids...)
		follow.Go(func() {
			all[i].reconnect(watching, f, func() time.Duration { return 5*time.Second + rand.N(25*time.Second) })
		})
	}
	for _, w := range all {
		eventually(t, "each watcher to have begun", func() bool { return view(w, func(w *watcher) bool { return w.complete }) })
	}

	shown := new(answers)
	playing, stop := context.WithTimeout(t.Context(), *flipsTime)
	defer stop()
	var flips, kills int
	var failed int64
	play.Go(func() { failed = f.load(playing, ids, 200, shown.see) })
	play.Go(func() { flips = f.flip(playing, ids, 40*time.Second, latency) })
	kills = f.killInTurn(playing, 20*time.Second, 3*time.Second)
	play.Wait()
	f.hammer(ids, shown.see) // the last status of each

	asked := time.Now()
	for _, w := range all {
		eventually(t, "each watcher to have all changes", func() bool {
			return len(lostBy(w, shown)) == 0 || time.Since(asked) > patience-5*time.Second
		})
	}
	leave()
	follow.Wait()
	return flipsMeasured(t, all, shown, fmt.Sprintf("%s, %d flips, %d kills, %d checks failed", flipsTime, flips, kills, failed))
}

func lostBy(w *watcher, shown *answers) []string {
	changes := view(w, func(w *watcher) []received { return w.changes })
	lost, _ := shown.missing(changes, true)
	return lost
}

// flipsMeasured compares what each watcher received with what answers have shown.
func flipsMeasured(t *testing.T, all []*watcher, shown *answers, what string) string {
	t.Helper()
	var (
		took           times
		streams, again int
		spells         int
		most           time.Duration
	)
	for i, w := range all {
		lost, n := shown.missing(w.changes, true)
		spells = n
		if len(lost) > 0 {
			t.Errorf("watcher %d has not received %d of %d:\n%s", i, len(lost), n, some(lost))
		}
		if len(w.faults) > 0 {
			t.Errorf("watcher %d:\n%s", i, some(w.faults))
		}
		for _, c := range w.changes {
			if !c.late {
				took = append(took, c.at.Sub(time.UnixMilli(c.evidence)))
			}
		}
		streams, again, most = streams+w.streams, again+w.again, max(most, w.slowest)
	}
	if spells == 0 || again == 0 {
		t.Errorf("%d changes in answers, %d received again", spells, again)
	}
	t.Logf("the longest silence of a stream was %v", most)
	return fmt.Sprintf("%s; answers showed %d changes: each of %d watchers received all of them, in order for each customer, by %d streams; "+
		"%d came again, each marked and with its first id; from the fetch to a connected watcher: p50 %d ms, p99 %d ms",
		what, spells, len(all), streams, again, took.quantile(0.5).Milliseconds(), took.quantile(0.99).Milliseconds())
}
