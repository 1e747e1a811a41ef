package main

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The simulation plays Redis, since no real one has its clock. Here the same
// checks go to stores on a real one, whose evidence expires by the ages alone.
// Nobody listens to announcements, which real time would bring too late: the
// local tiers trust themselves for 0.9 s, as they do while they hear nothing.
func TestThePlayedRedisIsAskedLikeARealOne(t *testing.T) { //nolint:paralleltest // play counts goroutines
	const length = 15 * time.Minute
	d := day{customers: 300, exponent: 1, checksPerSecond: 5, replicas: 3, shared: true, ages: eligibility.DefaultAges()}
	server := cachetest.StartRedis(t)
	onRedis, err := newFleet(d, func(clock *clock) (eligibility.Store, error) { return beating{storeOn(t, server, clock.now)}, nil })
	if err != nil {
		t.Fatal(err)
	}
	var shared *sharedTier
	played, err := newFleet(d, func(clock *clock) (eligibility.Store, error) {
		if shared == nil {
			shared = newSharedTier(clock.now)
			shared.localMaxAge = 900 * time.Millisecond
		}
		local, err := localStore(clock)
		return shared.join(local), err
	})
	if err != nil {
		t.Fatal(err)
	}
	var want, got minute
	for sum, fleet := range map[*minute]*fleet{&want: onRedis, &got: played} {
		for _, m := range fleet.play(d, 0, length) {
			sum.add(m)
		}
	}
	if want.checks != got.checks {
		t.Fatalf("%d checks and %d: not the same day", want.checks, got.checks)
	}
	near(t, "calls", float64(got.calls), float64(want.calls), 0.02)
	near(t, "checks that waited", float64(got.waited), float64(want.waited), 0.02)
}

// beating is a store whose heartbeats follow its clock.
type beating struct{ *cache.Store }

func (b beating) Load(ctx context.Context, keys []eligibility.Key) []eligibility.Found {
	b.Heartbeat(ctx)
	return b.Store.Load(ctx, keys)
}

func (b beating) Lead(ctx context.Context, claim eligibility.Claim) eligibility.Lead {
	b.Heartbeat(ctx)
	return b.Store.Lead(ctx, claim)
}
