package budget_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// The report of a budget has who shares it, what waits for it and what a 429 did to it,
// at each replica.
func TestReport(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 2, 100)
	report := replicas[0].Report()
	if report.PerMinute != 100 || report.Limit != 100 || report.Level < 9 || report.Paused != 0 || report.Alone || report.Announced.IsZero() {
		t.Errorf("%+v", report)
	}
	if of := report.Fleet; of.Size != 2 || len(of.Replicas) != 2 || of.Replicas[of.Place] != (budget.Replica{Host: "test", PerMinute: 100}) {
		t.Errorf("%+v", of)
	}
	drain(t, replicas, evidence.LaneCheckout)
	ctx, leave := context.WithCancel(t.Context())
	var takers sync.WaitGroup
	for _, lane := range []evidence.Lane{evidence.LaneBatch, evidence.LaneCheckout} {
		takers.Go(func() {
			for ctx.Err() == nil { // a checkout waits for a second at most
				replicas[0].Take(ctx, evidence.NewPriority(lane), false)
			}
		})
	}
	eventually(t, "both wait", func() bool {
		waiting := replicas[0].Report().Waiting
		return waiting[evidence.LaneBatch] == 1 && waiting[evidence.LaneCheckout] == 1
	})
	leave()
	takers.Wait()
	if report := replicas[0].Report(); report.Waiting != [evidence.Lanes]int{} || report.Level >= 9 {
		t.Errorf("after they left: %+v", report)
	}
	replicas[0].Throttled(t.Context(), time.Minute)
	budget.Announce(t.Context(), replicas[1]) // looks at the shared state
	for i, b := range replicas {
		if report := b.Report(); report.Limit != 70 || report.Level != 0 || report.Paused > time.Minute || report.Paused < 30*time.Second {
			t.Errorf("replica %d after a 429: %+v", i, report)
		}
	}
	server.Kill()
	budget.Announce(t.Context(), replicas[0]) // in vain
	if report := replicas[0].Report(); !report.Alone || report.Limit != 35 || report.Fleet.Size != 2 {
		t.Errorf("alone: %+v", report)
	}
}

// Without a shared budget, a replica is its own fleet.
func TestReportWithoutOthers(t *testing.T) {
	t.Parallel()
	b, err := budget.New(budget.Config{Replica: budget.Replica{Host: "here"}})
	if err != nil {
		t.Fatal(err)
	}
	report := b.Report()
	if report.PerMinute != budget.DefaultPerMinute || report.Limit != report.PerMinute || report.Level < 39 || !report.Announced.IsZero() || len(report.Fleet.Replicas) != 1 || report.Fleet.Replicas[0].Host != "here" {
		t.Errorf("%+v", report)
	}
}
