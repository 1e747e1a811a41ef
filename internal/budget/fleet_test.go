package budget_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// replica is one process with a connection to Redis of its own. Its Run ends with
// the test.
func replica(t *testing.T, server *cachetest.Redis, perMinute int, registerer prometheus.Registerer) *budget.Budget {
	t.Helper()
	store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
		Addresses: []string{server.Address}, Namespace: "partner", WriteTimeout: 2 * time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := budget.New(budget.Config{
		PerMinute: perMinute, ReviewShare: 0.2, Shared: store.SharedBudget(), Registerer: registerer, Replica: budget.Replica{Host: "test", PerMinute: perMinute},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = store.Close()
	})
	return b
}

// keys returns the keys of the budget.
func keys(t *testing.T, server *cachetest.Redis) (state, replicas string) {
	t.Helper()
	for _, key := range server.Client().Keys(t.Context(), "*").Val() {
		switch {
		case strings.HasSuffix(key, ":budget"):
			state = key
		case strings.HasSuffix(key, ":replicas"):
			replicas = key
		}
	}
	return state, replicas
}

func fleet(t *testing.T, server *cachetest.Redis, size, perMinute int) []*budget.Budget {
	t.Helper()
	replicas := make([]*budget.Budget, size)
	for i := range replicas {
		replicas[i] = replica(t, server, perMinute, nil)
	}
	eventually(t, "all replicas are announced", func() bool {
		_, key := keys(t, server)
		return key != "" && server.Client().HLen(t.Context(), key).Val() == int64(size)
	})
	for _, b := range replicas {
		budget.Announce(t.Context(), b) // counts those that came later
	}
	return replicas
}

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	late := time.After(30 * time.Second)
	for !happened() {
		select {
		case <-time.After(time.Millisecond):
		case <-late:
			t.Fatalf("still not: %s", what)
		}
	}
}

// take takes one call at once.
func take(t *testing.T, b *budget.Budget, lane evidence.Lane) budget.Admission {
	t.Helper()
	return b.Take(t.Context(), evidence.NewPriority(lane), true)
}

// drain takes calls in turn from all replicas until none admits any, and returns how
// many.
func drain(t *testing.T, replicas []*budget.Budget, lane evidence.Lane) (calls int) {
	t.Helper()
	for admitted := true; admitted; {
		admitted = false
		for _, b := range replicas {
			if take(t, b, lane).Granted {
				calls++
				admitted = true
			}
		}
	}
	return calls
}

// refilled is how many calls were refilled since then, and some more.
func refilled(since time.Time, perMinute int) int {
	return int(time.Since(since).Minutes()*float64(perMinute)) + 2
}

func TestReplicasHaveOneBudget(t *testing.T) {
	t.Parallel()
	began := time.Now()
	replicas := fleet(t, cachetest.StartRedis(t), 5, 300)
	calls := drain(t, replicas, evidence.LaneCheckout)
	if most := 30 + refilled(began, 300); calls < 30 || calls > most {
		t.Errorf("%d calls at once, want 30 to %d", calls, most)
	}
}

// A 429 of one replica stops the others, also those that wait for their place.
func TestAPauseHoldsForTheFleet(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 3, 100)
	drain(t, replicas, evidence.LaneCheckout)
	waiting := make(chan budget.Admission, 10)
	for range 10 {
		go func() {
			waiting <- replicas[1].Take(context.Background(), evidence.NewPriority(evidence.LaneCheckout), false)
		}()
	}
	granted := 0
	if (<-waiting).Granted { // the others have to wait longer
		granted++
	}
	if got := replicas[0].Throttled(t.Context(), 30*time.Second); got != 30*time.Second {
		t.Errorf("pause of %v", got)
	}
	for _, b := range replicas {
		eventually(t, "the replica pauses", func() bool { // within 100 ms; until then, it may refuse for lack of budget
			got := take(t, b, evidence.LaneCheckout)
			if got.Granted || got.Paused && got.Wait < 20*time.Second {
				t.Errorf("after the 429: %+v", got)
			}
			return got.Paused
		})
	}
	for range 9 {
		if got := <-waiting; got.Granted {
			granted++
		}
	}
	if granted > 1 {
		t.Errorf("%d calls that were waiting went in the pause", granted-1)
	}
	if got := replicas[2].Throttled(t.Context(), time.Second); got < 25*time.Second {
		t.Errorf("the pause was shortened to %v", got)
	}
	state, _ := keys(t, server)
	if got := server.Client().HGet(t.Context(), state, "factor").Val(); got != "700000" {
		t.Errorf("factor %s, want one cut", got)
	}
}

// A pause that Redis could not store at once is stored when it can be.
func TestAPauseIsStoredLater(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 2, 300)
	server.Kill()
	replicas[0].Throttled(t.Context(), 5*time.Minute)
	server.Start()
	eventually(t, "the other replica pauses", func() bool { return take(t, replicas[1], evidence.LaneCheckout).Paused })
}

// The calls that can be made at once, whatever becomes of Redis, are no more than a
// fifth of the budget, and nothing but the rate comes on top.
func TestRedisThatDiesAddsNoMoreThanAFifth(t *testing.T) {
	t.Parallel()
	const perMinute = 300
	for _, size := range []int{1, 5, 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			replicas := fleet(t, server, size, perMinute)
			began, calls := time.Now(), 0
			var log []string
			step := func(what string) {
				n := drain(t, replicas, evidence.LaneCheckout)
				calls += n
				log = append(log, fmt.Sprintf("%s: %d", what, n))
			}
			step("redis works")
			for range 2 {
				server.Kill()
				step("killed")
				server.Start()
				step("back")
				eventually(t, "the hash counts again", func() bool {
					step("back")
					state, _ := keys(t, server)
					return state != ""
				})
				step("counting")
			}
			if most := perMinute/5 + refilled(began, perMinute); calls > most {
				t.Errorf("%d calls at once, want at most %d: %v", calls, most, log)
			}
		})
	}
}

// Many small shares are no more than the budget either.
func TestManyReplicasOfASmallBudget(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	began := time.Now()
	replicas := fleet(t, server, 20, 20)
	calls := drain(t, replicas, evidence.LaneCheckout)
	server.Kill()
	calls += drain(t, replicas, evidence.LaneCheckout)
	if most := 4 + refilled(began, 40); calls > most {
		t.Errorf("%d calls at once, want at most %d", calls, most)
	}
}

// When Redis dies, replicas that are more than a share's calls begin one after the
// other: no minute has more than 1.2 times the budget.
func TestNoMinuteOfManyReplicasExceedsASmallBudget(t *testing.T) {
	t.Parallel()
	const size = 20
	server := cachetest.StartRedis(t)
	clock := time.Now()
	budgets := []int{5, 5, 10, 5, 5, 10}
	fleets := make([][]*budget.Budget, len(budgets))
	for i, perMinute := range budgets {
		for range size {
			store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
				Addresses: []string{server.Address}, Namespace: fmt.Sprint(i), WriteTimeout: 2 * time.Second,
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			b, err := budget.New(budget.Config{PerMinute: perMinute, Shared: store.SharedBudget(), Now: func() time.Time { return clock }})
			if err != nil {
				t.Fatal(err)
			}
			fleets[i] = append(fleets[i], b)
		}
		for range 2 { // the second time, all are counted
			for _, b := range fleets[i] {
				budget.Announce(t.Context(), b)
			}
		}
		drain(t, fleets[i][:1], evidence.LaneCheckout)
	}
	server.Kill()
	calls := make([][]time.Duration, len(fleets)) // when each was made; those before at 0
	for i := range calls {
		calls[i] = []time.Duration{0}
	}
	for at := time.Duration(0); at < 5*time.Minute; at += time.Second {
		for i := range fleets {
			for range drain(t, fleets[i], evidence.LaneCheckout) {
				calls[i] = append(calls[i], at)
			}
		}
		clock = clock.Add(time.Second)
	}
	for i, perMinute := range budgets {
		most := perMinute * 6 / 5
		for j := most; j < len(calls[i]); j++ {
			if calls[i][j]-calls[i][j-most] < time.Minute {
				t.Errorf("budget %d: more than %d calls within a minute: %v", perMinute, most, calls[i])
				break
			}
		}
		if len(calls[i]) < perMinute*4 {
			t.Errorf("budget %d: %d calls in 5 minutes", perMinute, len(calls[i]))
		}
	}
}

func TestTheHashCountsAgainWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 2, 300)
	server.Kill()
	drain(t, replicas, evidence.LaneCheckout)
	server.Start()
	began := time.Now()
	eventually(t, "both use it", func() bool {
		drain(t, replicas, evidence.LaneCheckout)
		return !budget.Alone(replicas[0]) && !budget.Alone(replicas[1])
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// Whoever can write to Redis cannot make one process exceed its own budget.
func TestAProcessKeepsToItsBudgetWhateverRedisSays(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	began := time.Now()
	b := fleet(t, server, 1, 60)[0]
	state, _ := keys(t, server)
	calls := 0
	for range 100 {
		server.Client().HSet(t.Context(), state, "tat", 0, "factor", 1_000_000, "pause", 0)
		if take(t, b, evidence.LaneCheckout).Granted {
			calls++
		}
	}
	if most := 6 + refilled(began, 60); calls > most {
		t.Errorf("%d calls at once, want at most %d", calls, most)
	}
}

// However many calls of a lane wait, they cost Redis one script for each call that is
// admitted, and are admitted in order.
func TestWaitersAskInTurn(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	b := fleet(t, server, 1, 600)[0] // one call in 113 ms
	drain(t, []*budget.Budget{b}, evidence.LaneCheckout)
	state, _ := keys(t, server)
	server.Client().HSet(t.Context(), state, "factor", 1_000_000)
	before := scripts(t, server)
	const calls = 8
	var order []int
	var mu sync.Mutex
	var waiting sync.WaitGroup
	for i := range calls {
		waiting.Go(func() {
			if got := b.Take(t.Context(), evidence.NewPriority(evidence.LaneBatch), false); !got.Granted || !got.Waited {
				t.Errorf("call %d: %+v", i, got)
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
		})
		eventually(t, "it waits", func() bool { return budget.Waiting(b, evidence.LaneBatch) > i })
	}
	waiting.Wait()
	for i := range order {
		if order[i] != i {
			t.Errorf("order %v", order)
			break
		}
	}
	// One that refuses, and one that admits; and those of Run.
	if got := scripts(t, server) - before; got > 2*calls+10 {
		t.Errorf("%d scripts for %d calls", got, calls)
	}
}

// scripts returns how many scripts the server has run.
func scripts(t *testing.T, server *cachetest.Redis) (n int) {
	t.Helper()
	for line := range strings.Lines(server.Client().Info(t.Context(), "commandstats").Val()) {
		if calls, is := strings.CutPrefix(line, "cmdstat_evalsha:calls="); is {
			_, _ = fmt.Sscan(strings.SplitN(calls, ",", 2)[0], &n)
		}
	}
	return n
}

// A call that rises leaves its queue and goes at once.
func TestACallThatRisesGoesAtOnce(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	b := fleet(t, server, 1, 300)[0]
	drain(t, []*budget.Budget{b}, evidence.LanePrefetch) // 3.3 s until the next in this lane
	first, second := evidence.NewPriority(evidence.LanePrefetch), evidence.NewPriority(evidence.LanePrefetch)
	ended := make(chan budget.Admission, 2)
	for i, priority := range []*evidence.Priority{first, second} {
		go func() { ended <- b.Take(context.Background(), priority, false) }()
		eventually(t, "it waits", func() bool { return budget.Waiting(b, evidence.LanePrefetch) > i })
	}
	for _, priority := range []*evidence.Priority{second, first} { // one that waits for its turn, and the first in turn
		priority.Raise(evidence.LaneCheckout)
		if got := <-ended; !got.Granted || got.Lane != evidence.LaneCheckout || !got.Waited {
			t.Errorf("%+v", got)
		}
	}
}

// A spare call takes none that an account needs, in another process either.
func TestSpareCallsOfAnotherProcessLeaveTheRest(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 2, 80) // a burst of 8, and one call in 0.8 s
	if spare := drain(t, replicas[:1], evidence.LaneSpare); spare > 3 {
		t.Errorf("%d spare calls", spare)
	}
	if account := drain(t, replicas[1:], evidence.LaneCheckout); account < 6 {
		t.Errorf("%d calls are left for accounts, want 6", account)
	}
	if got := take(t, replicas[0], evidence.LaneSpare); got.Granted {
		t.Errorf("spare although the budget is spent: %+v", got)
	}
}

// Checkouts of all replicas are served in order, and wait no longer than a second.
func TestCheckoutsWaitASecondAtMost(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 3, 200) // one in 0.34 s
	drain(t, replicas, evidence.LaneCheckout)
	var granted, refused atomic.Int32
	var calling sync.WaitGroup
	for i := range 30 {
		calling.Go(func() {
			began := time.Now()
			got := replicas[i%3].Take(t.Context(), evidence.NewPriority(evidence.LaneCheckout), false)
			switch took := time.Since(began); {
			case got.Granted:
				granted.Add(1)
			case took > 900*time.Millisecond || got.Wait < 500*time.Millisecond:
				t.Errorf("refused after %v: %+v", took, got)
			default:
				refused.Add(1)
			}
		})
	}
	calling.Wait()
	if n := granted.Load(); n < 2 || n > 8 {
		t.Errorf("%d of 30 were admitted", n)
	}
}

// A rush of checkouts costs Redis few steps and no failure, and the replica keeps to
// the budget of the fleet.
func TestARushOfCheckouts(t *testing.T) {
	t.Parallel()
	const rush = 10_000
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	store, err := cache.New(cache.Config{Redis: cache.RedisConfig{Addresses: []string{server.Address}, Namespace: "partner", WriteTimeout: 10 * time.Second}, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	b, err := budget.New(budget.Config{PerMinute: 300, Shared: store.SharedBudget()})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // the fleet has others: a share is a third
		other := replica(t, server, 300, nil)
		budget.Announce(t.Context(), other)
	}
	budget.Announce(t.Context(), b)
	before := scripts(t, server)
	var calling sync.WaitGroup
	var granted, alone atomic.Int32
	var longest atomic.Int64
	began := time.Now()
	start := make(chan struct{})
	for range rush {
		calling.Go(func() {
			<-start
			began := time.Now()
			if b.Take(t.Context(), evidence.NewPriority(evidence.LaneCheckout), false).Granted {
				granted.Add(1)
			}
			if budget.Alone(b) {
				alone.Add(1)
			}
			for took := int64(time.Since(began)); ; {
				if held := longest.Load(); took <= held || longest.CompareAndSwap(held, took) {
					break
				}
			}
		})
	}
	close(start)
	calling.Wait()
	steps, took := scripts(t, server)-before, time.Since(began)
	t.Logf("%d granted, %d steps, longest wait %v, in %v", granted.Load(), steps, time.Duration(longest.Load()), took)
	if n := alone.Load(); n > 0 {
		t.Errorf("%d callers found the shared budget out of reach", n)
	}
	if n := faults(t, registry); n > 0 {
		t.Errorf("%v failures of redis", n)
	}
	// The burst, and what is refilled until a second after the last one asked.
	if n, most := int(granted.Load()), 30+5+refilled(began, 300); n < 32 || n > most {
		t.Errorf("%d were admitted, want 32 to %d", n, most)
	}
	if got := time.Duration(longest.Load()); got > 10*time.Second { // one second, and what 10,000 goroutines take on a busy machine
		t.Errorf("the longest wait was %v", got)
	}
	if steps > 600 {
		t.Errorf("%d steps", steps)
	}
}

// faults returns how many operations on Redis failed.
func faults(t *testing.T, registry *prometheus.Registry) (n float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "eligibility_cache_redis_faults_total" {
			for _, metric := range family.GetMetric() {
				n += metric.GetCounter().GetValue()
			}
		}
	}
	return n
}

// What is refilled while checkouts keep coming is used.
func TestARushUsesTheWholeBudget(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	b := fleet(t, server, 1, 600)[0] // one in 113 ms
	drain(t, []*budget.Budget{b}, evidence.LaneCheckout)
	before, began := scripts(t, server), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var granted atomic.Int32
	var calling sync.WaitGroup
	for range 200 {
		calling.Go(func() {
			for ctx.Err() == nil {
				if b.Take(t.Context(), evidence.NewPriority(evidence.LaneCheckout), false).Granted {
					granted.Add(1)
				} else {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	calling.Wait()
	want := int(time.Since(began).Seconds() / 0.113)
	t.Logf("%d granted of %d, %d steps", granted.Load(), want, scripts(t, server)-before)
	if n := int(granted.Load()); n < want*8/10 || n > want+10 {
		t.Errorf("%d were admitted, want about %d", n, want)
	}
}

func TestRoom(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 2, 300)
	for lane, want := range map[evidence.Lane]int{evidence.LaneCheckout: 74, evidence.LanePrefetch: 59, evidence.LaneSpare: 51} {
		if got := replicas[1].Room(t.Context(), lane); got < want-1 || got > want {
			t.Errorf("%v: room for %d, want %d", lane, got, want)
		}
	}
	drain(t, replicas[:1], evidence.LaneCheckout)
	if got := replicas[1].Room(t.Context(), evidence.LanePrefetch); got > 35 {
		t.Errorf("spent by another replica: room for %d", got)
	}
	replicas[0].Throttled(t.Context(), time.Minute)
	if got := replicas[1].Room(t.Context(), evidence.LanePrefetch); got != 0 {
		t.Errorf("in a pause: room for %d", got)
	}
}

// The room of reviews is that of their share, of the next seconds, and divided among
// the replicas; a share that is spent leaves none, and takes nothing from callers.
func TestRoomOfReviews(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	replicas := fleet(t, server, 2, 3000) // 600 reviews a minute: a burst of 12, and one in 103 ms
	if got := replicas[0].Room(t.Context(), evidence.LaneReview); got < 14 || got > 16 {
		t.Errorf("room for %d, want half of 31", got)
	}
	began := time.Now()
	calls := drain(t, replicas, evidence.LaneReview)
	if most := 12 + refilled(began, 600); calls < 11 || calls > most {
		t.Errorf("%d reviews at once, want 12 to %d", calls, most)
	}
	if got := replicas[1].Room(t.Context(), evidence.LaneReview); got > 10 {
		t.Errorf("spent by both: room for %d", got)
	}
	if got := replicas[1].Room(t.Context(), evidence.LaneCheckout); got < 600 {
		t.Errorf("room for %d checkouts", got)
	}
	replicas[0].Throttled(t.Context(), time.Minute)
	if got := replicas[1].Room(t.Context(), evidence.LaneReview); got != 0 {
		t.Errorf("in a pause: room for %d", got)
	}
}

// When Redis dies, the replicas keep to the share together, also those that are more
// than its calls.
func TestTheShareOfReviewsWithoutRedis(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ size, perMinute int }{{1, 300}, {5, 300}, {20, 100}} {
		t.Run(fmt.Sprint(test.size), func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			clock := time.Now()
			var replicas []*budget.Budget
			for range test.size {
				store, err := cache.New(cache.Config{Redis: cache.RedisConfig{Addresses: []string{server.Address}, Namespace: "a", WriteTimeout: 2 * time.Second}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = store.Close() })
				b, err := budget.New(budget.Config{PerMinute: test.perMinute, ReviewShare: 0.2, Shared: store.SharedBudget(), Now: func() time.Time { return clock }})
				if err != nil {
					t.Fatal(err)
				}
				replicas = append(replicas, b)
			}
			for range 2 { // the second time, all are counted
				for _, b := range replicas {
					budget.Announce(t.Context(), b)
				}
			}
			drain(t, replicas, evidence.LaneReview)
			server.Kill()
			if at := drain(t, replicas, evidence.LaneReview); at > 0 { // the clock stands
				t.Errorf("%d reviews more at once", at)
			}
			calls := make([]int, 300)
			total := 0
			for second := range calls {
				calls[second] = drain(t, replicas, evidence.LaneReview)
				total += calls[second]
				clock = clock.Add(time.Second)
			}
			most := test.perMinute / 5 * 6 / 5
			for begin := range len(calls) - 60 {
				minute := 0
				for _, n := range calls[begin : begin+60] {
					minute += n
				}
				if minute > most {
					t.Fatalf("%d reviews within a minute, want at most %d: %v", minute, most, calls)
				}
			}
			if least := test.perMinute / 5 * 5 * 8 / 10; total < least {
				t.Errorf("%d reviews in 5 minutes, want %d or more", total, least)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	b := replica(t, server, 300, registry)
	drain(t, []*budget.Budget{b}, evidence.LaneCheckout)
	b.Throttled(t.Context(), time.Minute)
	want := `
# HELP eligibility_partner_center_budget_level Calls that could be made at once, as far as this replica knows.
# TYPE eligibility_partner_center_budget_level gauge
eligibility_partner_center_budget_level 0
# HELP eligibility_partner_center_budget_limit Calls a minute that the budget allows now: the configured ones, fewer after a 429. While Redis is unavailable, this replica's part of them.
# TYPE eligibility_partner_center_budget_limit gauge
eligibility_partner_center_budget_limit 210
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		"eligibility_partner_center_budget_level", "eligibility_partner_center_budget_limit"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(registry, "eligibility_partner_center_budget_refused_total"); n != evidence.Lanes {
		t.Errorf("%d series of refusals", n)
	}
}

// Redis that hangs or refuses costs an admission its timeout at most; each replica
// continues with its part.
func TestASickRedisIsNoRedis(t *testing.T) {
	t.Parallel()
	for name, sick := range map[string]struct{ begin, end func(*cachetest.Redis) }{
		"hangs":   {(*cachetest.Redis).Stall, (*cachetest.Redis).Resume},
		"refuses": {func(r *cachetest.Redis) { r.RefuseWrites("MISCONF") }, (*cachetest.Redis).AcceptWrites},
		"full":    {func(r *cachetest.Redis) { r.RefuseWrites("OOM") }, (*cachetest.Redis).AcceptWrites},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			replicas := fleet(t, server, 2, 300)
			sick.begin(server)
			began, calls := time.Now(), drain(t, replicas, evidence.LaneCheckout)
			if most := 30 + refilled(began, 300); calls < 28 || calls > most {
				t.Errorf("%d calls at once, want 30 to %d", calls, most)
			}
			sick.end(server)
			eventually(t, "both use it again", func() bool {
				drain(t, replicas, evidence.LaneCheckout)
				return !budget.Alone(replicas[0]) && !budget.Alone(replicas[1])
			})
		})
	}
}

// A caller that leaves gets no call, wherever it is then.
func TestACallerThatLeavesTakesNone(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	b := fleet(t, server, 1, 300)[0]
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, lane := range []evidence.Lane{evidence.LaneCheckout, evidence.LaneBatch} {
		if got := b.Take(gone, evidence.NewPriority(lane), false); got.Granted {
			t.Errorf("%v: %+v", lane, got)
		}
	}
	server.Stall()
	defer server.Resume()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := b.Take(short, evidence.NewPriority(evidence.LaneCheckout), true); got.Granted {
		t.Errorf("while redis hangs: %+v", got)
	}
}
