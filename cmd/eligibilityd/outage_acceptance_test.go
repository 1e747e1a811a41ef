//go:build acceptance

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// shortFresh is the fresh age in the test of an outage.
const shortFresh = 5 * time.Second

// outage describes the expected answers while Partner Center and Redis are
// unavailable.
type outage struct {
	usable  map[string]time.Duration // customer → usable age of its evidence; cold customers are absent
	blocked map[string]bool
	warmed  time.Time // no evidence is older
	began   time.Time // no evidence is newer

	mu                 sync.Mutex
	stale, unavailable int
	answers, refusals  times
	faults             []string
}

// settling is how long the service may take to detect that Partner Center is
// unavailable; until then a refusal may name its own budget as the cause.
const settling = 10 * time.Second

// see judges a check that was made during the outage.
func (o *outage) see(c checked) {
	o.mu.Lock()
	defer o.mu.Unlock()
	reason, comeBack := refusal(c.err)
	wanted := eligibilityv1.Decision_DECISION_ALLOWED
	if o.blocked[c.id] {
		wanted = eligibilityv1.Decision_DECISION_BLOCKED
	}
	usable, answered := o.usable[c.id], c.asked.Add(c.took)
	switch {
	case c.err != nil && comeBack > 0 && answered.After(o.warmed.Add(usable*9/10)) &&
		(reason == "PARTNER_CENTER_UNAVAILABLE" || reason == "PARTNER_CENTER_THROTTLED" && answered.Before(o.began.Add(settling))):
		o.refusals = append(o.refusals, c.took)
		if reason == "PARTNER_CENTER_UNAVAILABLE" {
			o.unavailable++
		}
	case c.err == nil && c.resp.GetDecision() == wanted && c.asked.Before(o.began.Add(usable)) &&
		(c.resp.GetStale() || answered.Before(o.began.Add(shortFresh*11/10))):
		o.answers = append(o.answers, c.took)
		if c.resp.GetStale() {
			o.stale++
		}
	case len(o.faults) < 10:
		o.faults = append(o.faults, c.id+" after "+c.asked.Sub(o.began).String()+" in "+c.took.String()+": "+c.resp.String()+", "+errorText(c.err))
	}
}

func errorText(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

// If there is evidence within its usable age, the answer is stale; if there is
// none, the error names the system at fault. Nothing is restarted.
func TestAcceptanceRedisAndPartnerCenterAway(t *testing.T) {
	redis, halfway := cachetest.StartRedis(t), *outageTime/2
	service := startFleet(t, 3, append(redisAt(redis.Address),
		"ELIGIBILITY_CACHE__AGES__ALLOWED__FRESH="+shortFresh.String(),
		"ELIGIBILITY_CACHE__AGES__NOT_ALLOWED__FRESH="+shortFresh.String(),
		"ELIGIBILITY_CACHE__AGES__NO_STATUS__FRESH="+shortFresh.String(),
		"ELIGIBILITY_CACHE__AGES__NO_STATUS__USABLE="+halfway.String())...)
	o := &outage{usable: map[string]time.Duration{}, blocked: map[string]bool{}}
	var known []string
	for i, status := range []string{"Allowed", "NotAllowed", pcsim.StatusNone} {
		for _, id := range service.customers(byte('1'+i), 50, status) {
			o.usable[id] = []time.Duration{time.Hour, 24 * time.Hour, halfway}[i]
			o.blocked[id] = i == 1
			known = append(known, id)
		}
	}
	everybody := slices.Concat(known, service.customers('9', 20, "Allowed"))
	o.warmed = time.Now()
	service.warm(known, 20*time.Second)

	o.began = time.Now()
	redis.Kill()
	service.away.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), *outageTime)
	defer cancel()
	service.ask(ctx, everybody, *checksASecond/5, o.see)
	t.Logf("%v without Redis and Partner Center, 3 replicas: %d answers, %d of them flagged stale: %v",
		*outageTime, len(o.answers), o.stale, o.answers)
	t.Logf("%d refusals, %d of them PARTNER_CENTER_UNAVAILABLE: %v", len(o.refusals), o.unavailable, o.refusals)
	calls, busiest := service.called(o.began, time.Now())
	t.Logf("attempts to reach Partner Center: %.1f a second, %d in the busiest", calls, busiest)
	for _, fault := range o.faults {
		t.Error(fault)
	}
	if o.stale == 0 || o.unavailable == 0 {
		t.Error("nothing is proved")
	}

	redis.Start()
	service.away.Store(false)
	over := time.Now()
	service.recover(everybody)
	t.Logf("everybody had a fresh answer from every replica %v after both were back", time.Since(over).Round(time.Millisecond))
}

// recover asks until every replica has given a fresh answer about every
// customer.
func (f *fleet) recover(ids []string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
	defer cancel()
	var mu sync.Mutex
	fresh := map[string]bool{}
	f.ask(ctx, ids, *checksASecond/5, func(c checked) {
		mu.Lock()
		defer mu.Unlock()
		if c.err == nil && !c.resp.GetStale() {
			fresh[fmt.Sprint(c.replica, c.id)] = true
		}
		if len(fresh) == len(ids)*len(f.replicas) {
			cancel()
		}
	})
	if len(fresh) < len(ids)*len(f.replicas) {
		f.t.Errorf("%d of %d are answered again", len(fresh), len(ids)*len(f.replicas))
	}
}
