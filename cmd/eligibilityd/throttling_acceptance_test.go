//go:build acceptance

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

const (
	// hiddenLimit is what Partner Center allows in any minute without
	// announcing it.
	hiddenLimit = 500
	// onTheWay is how long a request may have been in flight when another one
	// received a 429.
	onTheWay = 250 * time.Millisecond
	// answersWithin bounds the wait of nearly every caller: a second for the
	// budget, a grace for the qualifications, and a busy machine.
	answersWithin = 5 * time.Second
)

// crowd is a service with many customers for whom it has no evidence.
type crowd struct {
	t      *testing.T
	far    *witness
	client eligibilityv1.EligibilityServiceClient

	mu       sync.Mutex
	answered times // guarded by mu
	refused  times // PARTNER_CENTER_THROTTLED; guarded by mu
}

func startCrowd(t *testing.T, budget string) *crowd {
	t.Helper()
	far := startWitness(t, pcsim.Config{RequestsPerMinute: hiddenLimit})
	p := startServe(t, far.url, "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE="+budget)
	return &crowd{t: t, far: far, client: eligibilityv1.NewEligibilityServiceClient(p.dial(t))}
}

// customers creates customers who may buy.
func (c *crowd) customers(family byte, n int) []string {
	c.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%c0000000-0000-4000-9000-%012x", family, i)
		err := c.far.SetCustomer(pcsim.Customer{ID: ids[i], Account: []pcsim.Step{{Status: "Allowed"}}})
		if err != nil {
			c.t.Fatal(err)
		}
	}
	return ids
}

// ask asks about one customer as a checkout does. A refusal must state when to
// retry; if the error is any other, the test fails.
func (c *crowd) ask(ctx context.Context, id string) (comeBack time.Duration, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*answersWithin)
	defer cancel()
	began := time.Now()
	resp, err := c.client.CheckEligibility(ctx, &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch reason, comeBack := refusal(err); {
	case err == nil:
		if resp.GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED {
			c.t.Errorf("%s: %v", id, resp)
		}
		c.answered = append(c.answered, took)
		return 0, true
	case reason == "PARTNER_CENTER_THROTTLED" && comeBack > 0:
		c.refused = append(c.refused, took)
		return comeBack, false
	default:
		c.t.Errorf("%s after %v: %v", id, took, err)
		return time.Second, false
	}
}

// refusal parses an error as a caller does.
func refusal(err error) (reason string, comeBack time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.RetryInfo:
			comeBack = detail.GetRetryDelay().AsDuration()
		}
	}
	return reason, comeBack
}

// swarm starts that many callers, each of which asks about its customers until
// it is answered or ctx ends. It returns how many were answered.
func (c *crowd) swarm(ctx context.Context, callers int, ids []string) int {
	open := make(chan string, len(ids))
	for _, id := range ids {
		open <- id
	}
	close(open)
	var done atomic.Int64
	var swarm sync.WaitGroup
	for range callers {
		swarm.Go(func() {
			for id := range open {
				for ctx.Err() == nil {
					comeBack, answered := c.ask(ctx, id)
					if answered {
						done.Add(1)
						break
					}
					pause(ctx, comeBack)
				}
			}
		})
	}
	swarm.Wait()
	return int(done.Load())
}

// batch asks about all customers at once, and repeats those that were not
// answered until ctx ends. It returns how many were answered.
func (c *crowd) batch(ctx context.Context, ids []string) int {
	open := slices.Clone(ids)
	for len(open) > 0 && ctx.Err() == nil {
		req := &eligibilityv1.BatchCheckEligibilityRequest{}
		for _, id := range open {
			req.Requests = append(req.Requests, &eligibilityv1.CheckEligibilityRequest{CustomerId: id})
		}
		callCtx, cancel := context.WithTimeout(ctx, time.Minute)
		resp, err := c.client.BatchCheckEligibility(callCtx, req)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				c.t.Errorf("batch: %v", err)
			}
			break
		}
		var left []string
		for i, result := range resp.GetResults() {
			if result.GetResponse() == nil {
				left = append(left, open[i])
			}
		}
		if open = left; len(open) > 0 {
			pause(ctx, time.Second)
		}
	}
	return len(ids) - len(open)
}

// judge checks the requests that Partner Center received, with 429s on at most
// so many occasions a minute, and how long the callers waited. If a request was
// in flight when another received a 429, both belong to the same occasion.
func (c *crowd) judge(aMinute int) {
	c.t.Helper()
	requests := c.far.requests(false)
	began := requests[0].came
	c.t.Logf("Partner Center: %d requests in %v, at most %d in any minute", len(requests),
		requests[len(requests)-1].came.Sub(began).Round(time.Second), busiest(requests))
	minutes := map[time.Duration]int{}
	var occasion time.Time
	for _, one := range requests {
		if one.status != http.StatusTooManyRequests {
			continue
		}
		c.t.Logf("  429 after %v, Retry-After %v", one.came.Sub(began).Round(time.Millisecond), one.retryAfter)
		if one.came.After(occasion.Add(onTheWay)) {
			occasion = one.went
			minutes[one.came.Sub(began).Truncate(time.Minute)]++
		}
		for _, other := range requests {
			if other.came.After(one.went.Add(onTheWay)) && other.came.Before(one.went.Add(one.retryAfter)) {
				c.t.Errorf("a request came %v into a Retry-After of %v", other.came.Sub(one.went), one.retryAfter)
			}
		}
	}
	for minute, n := range minutes {
		if n > aMinute {
			c.t.Errorf("429s on %d occasions in the minute after %v", n, minute)
		}
	}
	c.t.Logf("answers:  %v", c.answered)
	c.t.Logf("refusals: %v", c.refused)
	for what, took := range map[string]times{"answers": c.answered, "refusals": c.refused} {
		if p99 := took.quantile(0.99); p99 > answersWithin {
			c.t.Errorf("%s: p99 %v", what, p99)
		}
	}
}

// busiest returns the greatest number of requests within any minute.
func busiest(requests []seen) int {
	most := 0
	for first, last := 0, 0; last < len(requests); last++ {
		for requests[last].came.Sub(requests[first].came) >= time.Minute {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// 64 callers exceed the budget while a batch would use all of it.
func TestAcceptanceTheBudgetStaysBelowAHiddenLimit(t *testing.T) {
	t.Parallel()
	c := startCrowd(t, "400")
	callers, background := c.customers('1', 2000), c.customers('2', 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	batched := make(chan int, 1)
	go func() { batched <- c.batch(ctx, background) }()
	began := time.Now()
	answered := c.swarm(ctx, 64, callers)
	t.Logf("64 callers: %d of %d customers answered in %v", answered, len(callers), time.Since(began).Round(time.Second))
	cancel()
	t.Logf("batch: %d of %d customers answered meanwhile", <-batched, len(background))
	if answered != len(callers) {
		t.Errorf("%d of %d customers answered", answered, len(callers))
	}
	c.judge(0)
}

// If the budget is twice the limit, it exceeds the limit once a minute and then
// respects Retry-After. The first burst after that may overlap with the end of
// the burst a minute before, which then costs a second or so.
func TestAcceptanceNobodyCallsInsideARetryAfter(t *testing.T) {
	t.Parallel()
	c := startCrowd(t, "1000")
	callers, background := c.customers('1', 2000), c.customers('2', 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	batched := make(chan int, 1)
	go func() { batched <- c.batch(ctx, background) }()
	answered := c.swarm(ctx, 64, callers)
	cancel()
	t.Logf("%d of %d customers answered, and of a batch %d of %d", answered, len(callers), <-batched, len(background))
	c.judge(2)
	if c.far.Stats().Throttled == 0 {
		t.Error("the limit was never met: nothing is proved")
	}
}

// Occasional callers are not delayed when a batch uses the whole budget.
func TestAcceptanceABatchKeepsNoCallerWaiting(t *testing.T) {
	t.Parallel()
	c := startCrowd(t, "400")
	callers, background := c.customers('1', 180), c.customers('2', 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	batched := make(chan int, 1)
	go func() { batched <- c.batch(ctx, background) }()
	var asking sync.WaitGroup
	for _, id := range callers {
		asking.Go(func() { c.ask(ctx, id) })
		pause(ctx, 500*time.Millisecond)
	}
	asking.Wait()
	t.Logf("callers, two a second: %v", c.answered)
	if len(c.refused) > 0 {
		t.Errorf("%d callers were refused", len(c.refused))
	}
	if n := <-batched; n != len(background) {
		t.Errorf("batch: %d of %d customers answered", n, len(background))
	}
	c.judge(0)
	if p99 := c.answered.quantile(0.99); p99 > 2*time.Second { // the grace, and a busy machine
		t.Errorf("p99 %v", p99)
	}
}
