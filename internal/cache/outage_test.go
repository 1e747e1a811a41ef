package cache_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// farAway is a Partner Center that may be away. The status of a customer is the
// first byte of its ID.
type farAway struct{ away atomic.Bool }

func (f *farAway) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	call := eligibility.Call{Attempts: 1}
	query.Started()
	if f.away.Load() {
		return eligibility.Evidence{}, call, &eligibility.Error{Kind: eligibility.KindUnavailable, RetryAfter: time.Second, Call: call}
	}
	if query.Facet == eligibility.FacetQualifications {
		return eligibility.Evidence{}, call, nil
	}
	return eligibility.Evidence{Status: eligibility.AccountStatus(query.CustomerID[0])}, call, nil
}

func (f *farAway) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*farAway) Obstacles(context.Context) []evidence.Obstacle { return nil }

// startService runs the domain on a store, by the same clock.
func startService(t *testing.T, far evidence.Source, cfg cache.Config) *evidence.Service {
	t.Helper()
	store := newStore(t, cfg)
	service, err := evidence.New(far, store, evidence.Config{Now: cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return service
}

// If neither Redis nor Partner Center is available, a replica answers from its usable
// evidence, flagged stale; for other customers it returns the error
// that names the cause. When both are back, so are fresh answers.
func TestRedisAndPartnerCenterAwayForMinutes(t *testing.T) {
	t.Parallel()
	redis, far := cachetest.StartRedis(t), new(farAway)
	passed := new(clock)
	cfg := sharing(redis, "p")
	passed.in(&cfg)
	service := startService(t, far, cfg)
	check := func(status eligibility.AccountStatus, customer byte) (eligibility.Answer, error) {
		return service.Check(context.Background(), eligibility.Request{
			CustomerID: eligibility.CustomerID{byte(status), customer}, Segment: eligibility.SegmentCommercial,
		})
	}
	warm := []struct { // with default ages
		status   eligibility.AccountStatus
		decision eligibility.Decision
		usable   time.Duration
	}{
		{eligibility.AccountStatusNone, eligibility.DecisionAllowed, 15 * time.Minute},
		{eligibility.AccountStatusAllowed, eligibility.DecisionAllowed, time.Hour},
		{eligibility.AccountStatusNotAllowed, eligibility.DecisionBlocked, 24 * time.Hour},
	}
	answered := func(when string, stale bool) {
		t.Helper()
		for _, want := range warm {
			if answer, err := check(want.status, 1); err != nil || answer.Decision != want.decision || answer.Stale != stale {
				t.Errorf("%s: status %d: %+v, %v", when, want.status, answer, err)
			}
		}
	}
	refused := func(when string, status eligibility.AccountStatus, customer byte) {
		t.Helper()
		answer, err := check(status, customer)
		if known, ok := errors.AsType[*eligibility.Error](err); !ok || known.Kind != eligibility.KindUnavailable || known.RetryAfter <= 0 {
			t.Errorf("%s: status %d: %+v, %v", when, status, answer, err)
		}
	}
	answered("at first", false)

	redis.Kill()
	far.away.Store(true)
	passed.set(5 * time.Minute)
	answered("after five minutes", true)
	refused("a customer that nobody knows", eligibility.AccountStatusAllowed, 2)
	for _, want := range warm {
		passed.set(want.usable * 9 / 10 * 99 / 100) // ages may end by a tenth sooner
		if answer, err := check(want.status, 1); err != nil || answer.Decision != want.decision || !answer.Stale {
			t.Errorf("within the usable age: status %d: %+v, %v", want.status, answer, err)
		}
		passed.set(want.usable)
		refused("beyond it", want.status, 1)
	}

	redis.Start()
	far.away.Store(false)
	passed.set(25 * time.Hour)
	answered("when both are back", false)
	if answer, err := check(eligibility.AccountStatusAllowed, 2); err != nil || answer.Stale {
		t.Errorf("a customer that nobody knew: %+v, %v", answer, err)
	}
}
