package doctor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

func TestDoctorComparesReplicas(t *testing.T) {
	t.Parallel()
	redis := cachetest.StartRedis(t)
	environ := onRedis(t, redis.Address)
	cfg, _ := checkConfiguration(environ, "")
	own := app.Replica(cfg, cfg.Partners[0], app.Build{Version: "1.0.0"})
	announce := func(replica budget.Replica) {
		t.Helper()
		store, err := cache.New(cache.Config{Redis: app.PartnerRedisConfig(cfg, cfg.Partners[0])})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = store.Close() }()
		if _, err := store.SharedBudget().Announce(t.Context(), replica); err != nil {
			t.Fatal(err)
		}
	}
	consult(t, environ, Options{}).want(checkReplicas, VerdictOK, "none")
	announce(own)
	e := consult(t, environ, Options{})
	e.want(checkReplicas, VerdictOK, "1 running")
	e.want(checkRedisBudget, VerdictOK)
	other := own
	other.Host, other.PerMinute = "shop-2", 300
	announce(other)
	consult(t, environ, Options{}).want(checkReplicas, VerdictWarning, "shop-2 has partner_center.budget_per_minute 300 (here 400)", "same budget_per_minute")
	other = own
	other.Host, other.Policy = "shop-3", strings.Replace(own.Policy, "not_ready=block", "not_ready=allow", 1)
	announce(other)
	consult(t, environ, Options{}).want(checkReplicas, VerdictWarning, "shop-2 has", "shop-3 has not_ready allow (here block)")
	for _, key := range redis.Client().Keys(t.Context(), "*doctor*").Val() {
		t.Errorf("key %s is left behind", key)
	}
}

// What other replicas wrote is not shown unless it is a plain word.
func TestReplicasAreNotTrusted(t *testing.T) {
	t.Parallel()
	own := budget.Replica{Host: "a", PerMinute: 400, Policy: "not_ready=block when_undecidable=error"}
	replicas := []budget.Replica{
		{Host: "canary\n\x1b[31m", PerMinute: -1, Policy: "not_ready=canary\x1b when_undecidable=error"},
		{Host: strings.Repeat("canary", 100), PerMinute: 1 << 40, Policy: "canary"},
		{},
	}
	for i := range 50 {
		replicas = append(replicas, budget.Replica{Host: fmt.Sprint("host-", i), PerMinute: i})
	}
	got := compareReplicas(own, replicas)
	if got.Status != VerdictWarning || strings.Contains(got.Detail, "canary") || len(got.Detail) > 1500 || strings.ContainsAny(got.Detail, "\n\x1b") {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(got.Detail, "more differ") {
		t.Errorf("%+v", got)
	}
}
