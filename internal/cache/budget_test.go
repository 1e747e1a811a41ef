package cache_test

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func drawStep(t *rapid.T, perMinute float64) budget.Step {
	step := budget.Step{PerMinute: perMinute, ReviewShare: rapid.SampledFrom([]float64{0, 1, 0.2, 0.003}).Draw(t, "share"), Kind: budget.KindTake, Lane: evidence.Lane(rapid.IntRange(0, evidence.Lanes-1).Draw(t, "lane"))} //nolint:gosec // small
	switch rapid.IntRange(0, 19).Draw(t, "kind") {
	case 0:
		step.Kind, step.Pause = budget.KindPause, time.Duration(rapid.IntRange(0, 900_000_000).Draw(t, "pause"))*time.Microsecond
	case 1:
		step.Kind, step.Calls = budget.KindCharge, rapid.IntRange(0, 40).Draw(t, "calls")
	case 2:
		step.Kind = budget.KindLook
	}
	if step.Lane == evidence.LaneCheckout {
		step.Book = time.Duration(rapid.IntRange(0, 1_000_000).Draw(t, "book")) * time.Microsecond
	}
	step.Seed = budget.Seed{
		Lost: rapid.Bool().Draw(t, "lost"), Factor: rapid.SampledFrom([]int{0, 1, 100_000, 343_000, 1_000_000}).Draw(t, "known factor"),
		Pause: time.Duration(rapid.IntRange(0, 5).Draw(t, "known pause")) * time.Second,
	}
	return step
}

// The script and the code for a process without Redis make the same steps.
func TestTheBudgetInRedisIsThatOfAProcess(t *testing.T) {
	t.Parallel()
	client := cachetest.StartRedis(t).Client()
	key := 0
	rapid.Check(t, func(rt *rapid.T) {
		key++
		here, there := budget.NewState(), cache.BudgetSteps(client, fmt.Sprint("budget:", key))
		budgets := []float64{float64(rapid.IntRange(1, 2000).Draw(rt, "budget")), rapid.Float64Range(1, 2e6).Draw(rt, "another budget")}
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro()
		for i := range rapid.IntRange(1, 60).Draw(rt, "steps") {
			now += int64(rapid.OneOf(rapid.IntRange(0, 10_000), rapid.IntRange(0, 5_000_000), rapid.IntRange(-100_000_000, 900_000_000), rapid.IntRange(-10_000_000, 0)).Draw(rt, "passes"))
			step := drawStep(rt, rapid.SampledFrom(budgets).Draw(rt, "configured"))
			want := here.Do(float64(now), step)
			got, err := there(t.Context(), now, step)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				rt.Fatalf("step %d, %+v: %v (-process +redis):\n%s", i, step, err, diff)
			}
		}
	})
}

// Whatever the hash holds, the script runs, holds nobody up for longer than a pause
// can be, and leaves a hash that expires.
func TestADamagedBudgetIsRepaired(t *testing.T) {
	t.Parallel()
	client := cachetest.StartRedis(t).Client()
	ctx := t.Context()
	const key = "budget"
	steps := cache.BudgetSteps(client, key)
	now := time.Now().UnixMicro()
	take := budget.Step{Kind: budget.KindTake, PerMinute: 300, Lane: evidence.LaneCheckout, Book: time.Second}
	values := []string{"", "x", "nan", "-nan", "inf", "-inf", "-1", "1e300", "-1e300", "0x10", "9007199254740993", fmt.Sprint(now + 1e15), "1.5", "1e15", "\x00", strings.Repeat("9", 5000)}
	check := func(what string) {
		t.Helper()
		for range 3 { // repaired for good
			got, err := steps(ctx, now, take)
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got.Paused > budget.MaxPause || got.Wait > 30*time.Second || got.Factor < 100_000 || got.Factor > 1_000_000 || got.Debt > 12*time.Minute {
				t.Errorf("%s: %+v", what, got)
			}
		}
		if left := client.PTTL(ctx, key).Val(); left <= 0 || left > time.Hour {
			t.Errorf("%s: lives for %v", what, left)
		}
		for _, lane := range []evidence.Lane{evidence.LaneReview, evidence.LaneCheckout} {
			step := take
			step.Lane, step.ReviewShare = lane, 0.2
			later, err := steps(ctx, now+(13*time.Minute).Microseconds(), step)
			if err != nil || !later.Granted || later.ReviewDebt > time.Minute {
				t.Errorf("%s: after 13 minutes in lane %v: %+v, %v", what, lane, later, err)
			}
		}
		client.Del(ctx, key)
	}
	for _, field := range []string{"tat", "factor", "grown", "pause", "now", "review"} {
		for _, value := range values {
			if _, err := steps(ctx, now, take); err != nil {
				t.Fatal(err)
			}
			client.HSet(ctx, key, field, value)
			check(fmt.Sprintf("%s %.20q", field, value))
		}
		if _, err := steps(ctx, now, take); err != nil {
			t.Fatal(err)
		}
		client.HDel(ctx, key, field)
		check("without " + field)
	}
	client.Set(ctx, key, "a string", 0)
	check("a string")
	client.RPush(ctx, key, "a", "list")
	check("a list")
	rapid.Check(t, func(rt *rapid.T) {
		for _, field := range []string{"tat", "factor", "grown", "pause", "now", "review"} {
			client.HSet(ctx, key, field, rapid.OneOf(rapid.String(), rapid.SampledFrom(values)).Draw(rt, field))
		}
		check("random")
	})
}

func newBudgetStore(t *testing.T, server *cachetest.Redis, namespace string) *cache.Store {
	t.Helper()
	store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
		Addresses: []string{server.Address}, Namespace: namespace, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestKeysOfTheBudget(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store := newBudgetStore(t, server, "eu/partner@host")
	shared := store.SharedBudget()
	if _, err := shared.Do(t.Context(), budget.Step{Kind: budget.KindTake, PerMinute: 300}); err != nil {
		t.Fatal(err)
	}
	if _, err := shared.Announce(t.Context(), budget.Replica{Host: "a"}); err != nil {
		t.Fatal(err)
	}
	state, replicas := store.BudgetKeys()
	for _, key := range []string{state, replicas} {
		if !strings.HasPrefix(key, "eligibility:v2:eu/partner@host:{") || server.Client().Exists(t.Context(), key).Val() != 1 {
			t.Errorf("key %s", key)
		}
		if left := server.Client().PTTL(t.Context(), key).Val(); left <= 0 {
			t.Errorf("key %s does not expire", key)
		}
	}
	none, err := cache.New(cache.Config{})
	if err != nil || none.SharedBudget() != nil {
		t.Errorf("a shared budget without Redis: %v", err)
	}
}

// What others wrote about replicas is bounded and never trusted.
func TestReplicas(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client, ctx := server.Client(), t.Context()
	a, b := newBudgetStore(t, server, "p"), newBudgetStore(t, server, "p")
	announce := func(store *cache.Store, host string) budget.Fleet {
		t.Helper()
		all, err := store.SharedBudget().Announce(ctx, budget.Replica{Host: host, Version: "1", PerMinute: 300, Policy: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	announce(a, "a")
	first, second := announce(b, "b"), announce(a, "a")
	if first.Size != 2 || second.Size != 2 || first.Place+second.Place != 1 {
		t.Fatalf("two replicas: %+v, %+v", first, second)
	}
	if !slices.Equal(first.Replicas, second.Replicas) || first.Replicas[first.Place].Host != "b" || second.Replicas[second.Place].Host != "a" {
		t.Errorf("two replicas: %+v, %+v", first, second)
	}
	_, key := a.BudgetKeys()
	now := time.Now().UnixMilli()
	for name, value := range map[string]string{
		"old":                       fmt.Sprint(now-120_000, " {}"),
		"older":                     fmt.Sprint(now-600_000, " {}"),
		"future":                    fmt.Sprint(now+600_000, " {}"),
		"no time":                   "{}",
		"no JSON":                   fmt.Sprint(now, " x"),
		"other types":               fmt.Sprint(now, ` {"Host":1}`),
		"huge":                      fmt.Sprint(now, ` {"host":"`, strings.Repeat("x", 5000), `"}`),
		"empty":                     "",
		strings.Repeat("long", 100): fmt.Sprint(now, " {}"),
	} {
		client.HSet(ctx, key, name, value)
	}
	if got := announce(a, "a"); got.Size != 2 || got.Place > 1 {
		t.Errorf("odd entries count: %+v", got)
	}
	if got := client.HLen(ctx, key).Val(); got != 5 { // two replicas, one old, two without readable text
		t.Errorf("%d entries are left: %v", got, client.HKeys(ctx, key).Val())
	}
	for i := range 1000 {
		client.HSet(ctx, key, fmt.Sprint(i), fmt.Sprint(now, " {}"))
	}
	if got := announce(a, "a"); got.Size != 1 || got.Place != 0 || len(got.Replicas) != 1 || got.Replicas[0].Host != "a" {
		t.Errorf("a flooded hash: %+v", got)
	}
	client.Del(ctx, key)
	client.Set(ctx, key, "a string", 0)
	if got := announce(b, "b"); got.Size != 1 {
		t.Errorf("a string: %+v", got)
	}
}

// A user who may not call TIME has the replica's clock.
func TestTheBudgetWithoutTheServersClock(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	if err := server.Client().Do(t.Context(), "acl", "setuser", "default", "-time").Err(); err != nil {
		t.Fatal(err)
	}
	shared := newBudgetStore(t, server, "p").SharedBudget()
	for range 30 {
		got, err := shared.Do(t.Context(), budget.Step{Kind: budget.KindTake, PerMinute: 300, Lane: evidence.LaneCheckout})
		if err != nil || !got.Granted {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	got, err := shared.Do(t.Context(), budget.Step{Kind: budget.KindTake, PerMinute: 10, Lane: evidence.LaneCheckout})
	if err != nil || got.Granted {
		t.Errorf("beyond the burst: %+v, %v", got, err)
	}
}

// Two replicas have the budget together, not each.
func TestReplicasShareABudget(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	granted := 0
	for range 10 {
		shared := newBudgetStore(t, server, "p").SharedBudget()
		for range 10 {
			got, err := shared.Do(t.Context(), budget.Step{Kind: budget.KindTake, PerMinute: 50, Lane: evidence.LaneCheckout})
			if err != nil {
				t.Fatal(err)
			}
			if got.Granted {
				granted++
			}
		}
	}
	if granted < 5 || granted > 12 { // some refills while the test runs
		t.Errorf("%d calls at once of a burst of 5", granted)
	}
}

func TestTheBudgetOnACluster(t *testing.T) {
	t.Parallel()
	cluster := cachetest.StartCluster(t)
	for _, namespace := range []string{"eu", "us", "asia"} { // in different partitions
		store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
			Mode: cache.RedisCluster, Addresses: cluster.Addresses, Namespace: namespace, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		}})
		if err != nil {
			t.Fatal(err)
		}
		shared := store.SharedBudget()
		got, err := shared.Do(t.Context(), budget.Step{Kind: budget.KindTake, PerMinute: 300, Lane: evidence.LaneCheckout})
		if err != nil || !got.Granted {
			t.Errorf("%s: %+v, %v", namespace, got, err)
		}
		if all, err := shared.Announce(t.Context(), budget.Replica{Host: "a"}); err != nil || all.Size != 1 {
			t.Errorf("%s: %+v, %v", namespace, all, err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Replicas of the release before reviews and of this one have one budget together,
// and reviews keep to their share of it.
func TestTheBudgetDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/budget_before_reviews.lua")
	if err != nil {
		t.Fatal(err)
	}
	client := cachetest.StartRedis(t).Client()
	key := 0
	rapid.Check(t, func(rt *rapid.T) {
		key++
		name := fmt.Sprint("upgrade:", key)
		newer, older := cache.BudgetSteps(client, name), cache.OldBudgetSteps(client, name, string(text))
		perMinute := float64(rapid.IntRange(5, 60).Draw(rt, "budget"))
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro()
		var all, reviews []int64
		for range rapid.IntRange(20, 150).Draw(rt, "steps") {
			now += int64(rapid.IntRange(0, 1_000_000).Draw(rt, "passes"))
			step := budget.Step{Kind: budget.KindTake, PerMinute: perMinute, ReviewShare: 0.2, Lane: evidence.LaneCheckout}
			switch rapid.IntRange(0, 2).Draw(rt, "who") {
			case 0:
				granted, err := older(t.Context(), now, step)
				if err != nil {
					rt.Fatal(err)
				}
				if granted {
					all = append(all, now)
				}
				continue
			case 1:
				step.Lane = evidence.LaneReview
			}
			reply, err := newer(t.Context(), now, step)
			if err != nil {
				rt.Fatal(err)
			}
			if reply.Granted {
				all = append(all, now)
				if step.Lane == evidence.LaneReview {
					reviews = append(reviews, now)
				}
			}
		}
		for what, c := range map[string]struct {
			calls []int64
			most  int
		}{"all": {all, int(perMinute)}, "reviews": {reviews, int(math.Ceil(perMinute * 0.2))}} {
			for i := c.most; i < len(c.calls); i++ {
				if c.calls[i]-c.calls[i-c.most] < time.Minute.Microseconds() {
					rt.Fatalf("%s: more than %d within a minute", what, c.most)
				}
			}
		}
	})
}
