//go:build acceptance

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// accountCalls returns the times of the calls about accounts since then, by customer. No
// more than 10,000 calls must have been made.
func (s simulated) accountCalls(t *testing.T, since time.Time) map[string][]time.Time {
	t.Helper()
	_, _, body := get(t, s.control+"/v1/requests")
	var journal struct{ Requests []pcsim.Request }
	if err := json.Unmarshal([]byte(body), &journal); err != nil {
		t.Fatal(err)
	}
	calls := map[string][]time.Time{}
	for _, one := range journal.Requests {
		if one.Resource == "account" && !one.Time.Before(since) {
			calls[one.CustomerID] = append(calls[one.CustomerID], one.Time)
		}
	}
	for _, of := range calls {
		slices.SortFunc(of, time.Time.Compare)
	}
	return calls
}

// A review is checked for the first time after two minutes, give or take a tenth, and
// then again. A replica that dies holds what it took for 30 s.
const (
	reviewCadence  = 2 * time.Minute
	reviewEarliest = reviewCadence * 9 / 10
	reviewLatest   = reviewCadence * 11 / 10
	reviewTaken    = 30 * time.Second
)

// changesByReviews asks once about 500 customers under review, and then never again. A
// tenth of them flips. A replica is killed in the middle of the first checks.
func changesByReviews(t *testing.T) string { //nolint:thelper // a test of its own
	const customers, flips, slack, latency = 500, 50, 5 * time.Second, time.Second
	f := startReplicas(t, 3, onFleet(cachetest.StartRedis(t))...)
	ids := changingIDs('1', customers)
	f.script(ids, accountWords[1], 0)
	f.hammer(ids, func(*eligibilityv1.CheckEligibilityResponse) {})
	asked := time.Now()
	pause(t.Context(), time.Second) // until the spare calls are over

	w := newWatcher(ids...)
	watching, leave := context.WithCancel(t.Context())
	defer leave()
	var follow sync.WaitGroup
	follow.Go(func() { w.reconnect(watching, f, func() time.Duration { return time.Hour }) })
	eventually(t, "the watcher to have begun", func() bool { return view(w, func(w *watcher) bool { return w.complete }) })
	pause(t.Context(), 10*time.Second)
	flipped := time.Now()
	f.script(ids[:flips], accountWords[0], latency)
	f.script(ids[flips:], accountWords[1], latency)

	// In the first seconds of the due times about every replica has calls under way.
	before := f.far.stats(t).Account
	limit := time.Now().Add(reviewLatest)
	for f.far.stats(t).Account < before+customers/4 && time.Now().Before(limit) {
		pause(t.Context(), 20*time.Millisecond)
	}
	f.all[0].kill()
	killed := time.Now()
	// The stream begins 10 s earlier, with the first answers about some.
	found := func() []received {
		return view(w, func(w *watcher) []received {
			return slices.DeleteFunc(slices.Clone(w.changes), func(c received) bool { return c.first })
		})
	}
	limit = asked.Add(reviewLatest + reviewTaken + slack)
	for len(found()) < flips && time.Now().Before(limit) {
		pause(t.Context(), 20*time.Millisecond)
	}
	reported := time.Since(flipped)
	f.all[0].restart(t)
	pause(t.Context(), time.Until(asked.Add(2*reviewLatest+reviewTaken+slack)))
	leave()
	follow.Wait()
	reviewed := found()
	for _, c := range reviewed {
		if c.after != eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED || !slices.Contains(ids[:flips], c.customer) {
			t.Errorf("a change of %s to %v", c.customer, c.after)
		}
	}
	if len(reviewed) != flips || len(w.faults) > 0 {
		t.Errorf("%d of %d flips were reported: %s", len(reviewed), flips, some(w.faults))
	}
	twice := reviewTimes(t, f.far.accountCalls(t, time.Time{}), ids, flips, asked, killed, slack)
	if twice == 0 {
		t.Error("the killed replica had no call under way")
	}
	return fmt.Sprintf("all %d flips were reported within %s; no customer was fetched twice in a cadence of %v ± 10 %%, except %d whose call was under way at the killed replica; none was left out",
		flips, seconds(reported), reviewCadence, twice)
}

// reviewTimes fails if the calls about customers do not follow the cadence. It returns
// the number of calls that were repeated because a replica was killed.
func reviewTimes(t *testing.T, calls map[string][]time.Time, ids []string, flipped int, asked, killed time.Time, slack time.Duration) (twice int) {
	t.Helper()
	const under = 3 * time.Second // the longest that a call is under way, on a busy machine
	for i, id := range ids {
		of := calls[id]
		want := 3 // the check, and two reviews
		if i < flipped {
			want = 2
		}
		for j := 1; j < len(of); j++ {
			gap := of[j].Sub(of[j-1])
			if before := killed.Sub(of[j-1]); gap < reviewEarliest-time.Second && before > -time.Second && before < under {
				twice++
				want++
			} else if gap < reviewEarliest-time.Second {
				t.Errorf("%s was fetched again after %v, %v before the end of a replica: %v", id, gap, before, of)
			}
			if gap > reviewLatest+reviewTaken+slack {
				t.Errorf("%s was fetched again only after %v", id, gap)
			}
		}
		if len(of) < want || i < flipped && len(of) > want {
			t.Errorf("%s was fetched %d times in %v, want %d", id, len(of), time.Since(asked).Round(time.Second), want)
		}
	}
	return twice
}
