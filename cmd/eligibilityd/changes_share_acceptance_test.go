//go:build acceptance

package main

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// batch asks about customers in batches and waits for the answers.
func (f *replicas) batch(ids []string) {
	f.t.Helper()
	const chunk = 1000
	for ; len(ids) > 0; ids = ids[min(chunk, len(ids)):] {
		req := new(eligibilityv1.BatchCheckEligibilityRequest)
		for _, id := range ids[:min(chunk, len(ids))] {
			req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
		}
		ctx, cancel := context.WithTimeout(f.t.Context(), patience)
		resp, err := f.clients[f.some()].BatchCheckEligibility(ctx, req)
		cancel()
		if err != nil {
			f.t.Fatal(err)
		}
		for _, result := range resp.GetResults() {
			if result.GetError() != nil {
				f.t.Fatalf("a batch: %v", result.GetError())
			}
		}
	}
}

// checkouts asks about cold customers at that rate for that time, as checkouts do, and
// returns how long they took.
func (f *replicas) checkouts(ids *[]string, aSecond float64, length time.Duration) times {
	f.t.Helper()
	var (
		mu     sync.Mutex
		took   times
		asking sync.WaitGroup
	)
	began := time.Now()
	for n := 0; time.Since(began) < length; n++ {
		id := (*ids)[0]
		*ids = (*ids)[1:]
		asking.Go(func() {
			ctx, cancel := context.WithTimeout(f.t.Context(), patience)
			defer cancel()
			sent := time.Now()
			if _, err := f.clients[f.some()].CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: id}); err != nil {
				f.t.Errorf("a checkout: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(sent))
		})
		pause(f.t.Context(), time.Until(began.Add(time.Duration(float64(n+1)/aSecond*float64(time.Second)))))
	}
	asking.Wait()
	return took
}

// changesWithASmallBudget lets 20,000 reviews become due with a budget of 600 a minute,
// beside checkouts of three cold customers a second.
func changesWithASmallBudget(t *testing.T) string { //nolint:thelper // a test of its own
	const tracked, budget, share, aSecond = 20_000, 600, 0.2, 3.0
	const busy, latency = 3 * time.Minute, 100 * time.Millisecond
	redis, far := cachetest.StartRedis(t), simulateApart(t)
	environ := append(onFleet(redis), "ELIGIBILITY_POLICY__QUALIFICATIONS_GRACE=0s")
	f := startReplicasWith(t, far, 1, environ...)
	reviews, cold := changingIDs('1', tracked), changingIDs('2', 2000)
	f.script(reviews, accountWords[1], 0)
	f.script(cold, accountWords[0], latency)
	began := time.Now()
	f.batch(reviews)
	filled := time.Now()
	f.all[0].terminate(t)
	client := redis.Client()
	defer func() { _ = client.Close() }()
	keys, err := client.Keys(t.Context(), "*:budget").Result() // of the larger budget
	if err != nil || len(keys) == 0 {
		t.Fatalf("the budget's key: %v, %v", keys, err)
	}
	if err := client.Del(t.Context(), keys...).Err(); err != nil {
		t.Fatal(err)
	}
	f = startReplicasWith(t, far, 3, append(environ, fmt.Sprintf("ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=%d", budget))...)
	t.Logf("%v for %d checks, %v until the fleet ran", filled.Sub(began).Round(time.Second), tracked, time.Since(filled).Round(time.Second))

	f.checkouts(&cold, aSecond, 5*time.Second) // until each replica has its connections and its token
	// The first reviews are due so long after the first batch began.
	before := f.checkouts(&cold, aSecond, time.Until(began.Add(reviewEarliest)))
	// The burst of the first due times is over half a minute after the last one.
	f.checkouts(&cold, aSecond, time.Until(filled.Add(reviewLatest+30*time.Second)))
	at := time.Now()
	during := f.checkouts(&cold, aSecond, busy)
	length, fetched, others := time.Since(at), 0, 0
	for id, of := range far.accountCalls(t, at) {
		if id[0] == '1' {
			fetched += len(of)
		} else {
			others += len(of)
		}
	}
	used := float64(fetched) / length.Minutes() / budget
	t.Logf("in %v %d reviews and %d checkouts; checkouts before %v, during %v", length, fetched, others, before, during)
	if len(before) < 60 {
		t.Errorf("only %d checkouts before the reviews were due", len(before))
	}
	if math.Abs(used-share) > 0.02 {
		t.Errorf("reviews used %.1f %% of the budget, want %.0f ± 2", used*100, share*100)
	}
	if p99 := during.quantile(0.99); p99 > before.quantile(0.99)*3/2+50*time.Millisecond {
		t.Errorf("p99 of checkouts %v, before the reviews were due %v", p99, before.quantile(0.99))
	}
	return fmt.Sprintf("three replicas, three checkouts of cold customers a second, Partner Center answers them after %v: in %v reviews used %.1f %% of the budget (`reviews.budget_share`: %.0f %%); p99 of checkouts %d ms, before any review was due %d ms",
		latency, length.Round(time.Second), used*100, share*100, during.quantile(0.99).Milliseconds(), before.quantile(0.99).Milliseconds())
}
