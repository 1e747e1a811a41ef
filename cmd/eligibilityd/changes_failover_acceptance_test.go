//go:build acceptance

package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// cutOff makes the replicas of a set lose contact with their primary, while sentinels see
// all of them. What is written then is lost with the primary.
func cutOff(t *testing.T, set *cachetest.Sentinel, primary *cachetest.Redis) {
	t.Helper()
	do := func(redis *cachetest.Redis, args ...any) {
		client := redis.Client()
		defer func() { _ = client.Close() }()
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	for _, one := range set.Servers {
		if one != primary {
			// The primary has no password, so it refuses this one.
			do(one, "CONFIG", "SET", "masterauth", "of another server")
		}
	}
	do(primary, "CLIENT", "KILL", "TYPE", "replica")
}

// changesAfterFailover flips customers for a minute. The replicas of Redis do not have
// the last seconds of it when the primary is killed. A customer may flip twice in
// the time for which nothing is stored.
func changesAfterFailover(t *testing.T) string { //nolint:thelper // a test of its own
	const customers, lost, within = 300, 5 * time.Second, 5 * time.Second
	set := cachetest.StartSentinel(t)
	f := startReplicas(t, 2, sentinelAt(set)...)
	ids := changingIDs('1', customers)
	f.script(ids, accountWords[0], 0)
	f.hammer(ids, func(*eligibilityv1.CheckEligibilityResponse) {})

	shown, begun := new(answers), time.Now()
	primary := set.Primary()
	playing, stop := context.WithCancel(t.Context())
	defer stop()
	var play sync.WaitGroup
	var flips int
	var failed int64
	before, kill := context.WithCancel(t.Context())
	defer kill()
	play.Go(func() { failed = f.load(playing, ids[:customers/2], 50, shown.see) })
	// Nobody asks about these after the loss: only the replica's own memory has them.
	play.Go(func() { f.load(before, ids[customers/2:], 50, shown.see) })
	play.Go(func() { flips = f.flip(playing, ids, 10*time.Second, 0) })
	pause(t.Context(), time.Minute-lost)
	cutOff(t, set, primary)
	pause(t.Context(), lost)
	kill()
	primary.Kill()
	killed := time.Now()
	set.AwaitFailover(primary)
	recovered := time.Now()
	stop()
	play.Wait()

	watching, leave := context.WithCancel(t.Context())
	defer leave()
	w := newWatcher(ids...)
	var follow sync.WaitGroup
	follow.Go(func() {
		req := &eligibilityv1.WatchEligibilityRequest{CustomerIds: ids, StartTime: timestamppb.New(begun.Add(-time.Minute))}
		for watching.Err() == nil {
			if err := w.stream(watching, f.clients[0], req); watching.Err() == nil {
				t.Logf("%v after the recovery a stream ended: %v", time.Since(recovered), err)
				pause(watching, 100*time.Millisecond)
			}
		}
	})
	took := time.Duration(0)
	for took == 0 && time.Since(recovered) < patience {
		if lost, _ := shown.missing(view(w, func(w *watcher) []received { return w.changes }), false); len(lost) == 0 {
			took = time.Since(recovered)
		}
		pause(t.Context(), 20*time.Millisecond)
	}
	leave()
	follow.Wait()
	missing, all := shown.missing(w.changes, false)
	if len(missing) > 0 || took > within {
		t.Errorf("%v after the recovery, %d of %d changes were missing, want none within %v:\n%s", took, len(missing), all, within, some(missing))
	}
	if len(w.faults) > 0 {
		t.Errorf("the watcher:\n%s", some(w.faults))
	}
	return fmt.Sprintf("%d flips in a minute, the last %v of which no replica had; primary away for %s, %d checks failed; all %d changes that answers showed were in the feed %s after the recovery",
		flips, lost, seconds(recovered.Sub(killed)), failed, all, seconds(took))
}
