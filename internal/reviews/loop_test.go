package reviews_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/reviews"
)

func TestMain(m *testing.M) {
	// go-redis takes a second to notice that a client was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func customer(n int) (id eligibility.CustomerID) {
	binary.BigEndian.PutUint32(id[:4], uint32(n)*2654435761) //nolint:gosec // spreads them over the partitions
	binary.BigEndian.PutUint32(id[12:], uint32(n)+1)         //nolint:gosec // small
	return id
}

// source is Partner Center as the tests script it. It records when each customer was
// asked about.
type source struct {
	now func() time.Time

	mu    sync.Mutex
	ended map[eligibility.CustomerID]time.Time // when the review ends; guarded by mu
	calls map[eligibility.CustomerID][]time.Time
	lanes [evidence.Lanes]int
	fail  func(id eligibility.CustomerID) *eligibility.Error // nil: none; guarded by mu
	fails int
}

func newSource(now func() time.Time) *source {
	return &source{now: now, ended: make(map[eligibility.CustomerID]time.Time), calls: make(map[eligibility.CustomerID][]time.Time)}
}

func (s *source) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	query.Started()
	if query.Facet == eligibility.FacetQualifications {
		return eligibility.Evidence{}, eligibility.Call{Attempts: 1}, nil // nobody waits for it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if failure := s.fail(query.CustomerID); failure != nil {
			s.fails++
			return eligibility.Evidence{}, failure.Call, failure
		}
	}
	s.lanes[query.Priority.Lane()]++
	s.calls[query.CustomerID] = append(s.calls[query.CustomerID], s.now())
	if end, ends := s.ended[query.CustomerID]; ends && !s.now().Before(end) {
		return eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, eligibility.Call{Attempts: 1}, nil
	}
	return eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview"}, eligibility.Call{Attempts: 1}, nil
}

func (s *source) Room(context.Context, evidence.Lane) int {
	return math.MaxInt
}

func (*source) Obstacles(context.Context) []evidence.Obstacle { return nil }

func (s *source) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, calls := range s.calls {
		n += len(calls)
	}
	return n
}

func (s *source) failAll(failure *eligibility.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = func(eligibility.CustomerID) *eligibility.Error { return failure }
}

// fleet is replicas on one Redis, whose clock is that of the test.
type fleet struct {
	t       *testing.T
	server  *cachetest.Redis
	source  *source
	passed  atomic.Int64
	members []*member
}

// member is one replica.
type member struct {
	store    *cache.Store
	service  *evidence.Service
	list     reviews.List
	loop     *reviews.Loop
	registry *prometheus.Registry
}

func (f *fleet) now() time.Time { return start.Add(time.Duration(f.passed.Load())) }

// newFleet starts replicas. With a budget, they share it by the real clock.
func newFleet(t *testing.T, size, perMinute int) *fleet {
	t.Helper()
	f := &fleet{t: t, server: cachetest.StartRedis(t)}
	f.source = newSource(f.now)
	if perMinute == 0 { // the budget's own tests have its clock
		if err := f.server.Client().Do(t.Context(), "acl", "setuser", "default", "-time").Err(); err != nil {
			t.Fatal(err)
		}
	}
	for range size {
		f.join(perMinute)
	}
	return f
}

func (f *fleet) join(perMinute int) *member {
	f.t.Helper()
	now := f.now
	if perMinute > 0 {
		now, f.source.now = time.Now, time.Now
	}
	m := &member{registry: prometheus.NewRegistry()}
	var err error
	m.store, err = cache.New(cache.Config{
		Now: now, Reviews: cache.ReviewsConfig{Enabled: true},
		Redis: cache.RedisConfig{Addresses: []string{f.server.Address}, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	from := evidence.Source(f.source)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	if perMinute > 0 {
		calls, err := budget.New(budget.Config{PerMinute: perMinute, ReviewShare: 0.2, Shared: m.store.SharedBudget()})
		if err != nil {
			f.t.Fatal(err)
		}
		running.Go(func() { calls.Run(ctx) })
		running.Go(func() { _ = m.store.Run(ctx) })
		from = &budgeted{source: f.source, budget: calls}
	}
	if m.service, err = evidence.New(from, m.store, evidence.Config{Now: now}); err != nil {
		f.t.Fatal(err)
	}
	m.list = m.store.Reviews()
	if m.loop, err = reviews.New(m.service, m.list, reviews.Config{Registerer: m.registry}); err != nil {
		f.t.Fatal(err)
	}
	running.Go(func() { _ = m.service.Run(ctx) })
	f.t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = m.store.Close()
	})
	f.members = append(f.members, m)
	return m
}

// budgeted is the source within the budget of one replica.
type budgeted struct {
	*source
	budget *budget.Budget
}

func (b *budgeted) Room(ctx context.Context, lane evidence.Lane) int { return b.budget.Room(ctx, lane) }

func (*budgeted) Obstacles(context.Context) []evidence.Obstacle { return nil }

func (b *budgeted) Fetch(ctx context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	if got := b.budget.Take(ctx, query.Priority, false); !got.Granted {
		return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: got.Wait}
	}
	return b.source.Fetch(ctx, query)
}

// pass lets time pass, and the replicas look, all at once.
func (f *fleet) pass(d time.Duration) {
	f.t.Helper()
	f.passed.Add(int64(d))
	var all sync.WaitGroup
	for _, m := range f.members {
		m.store.Heartbeat(f.t.Context())
		all.Go(func() {
			m.loop.Tick(f.t.Context())
			m.loop.Wait()
		})
	}
	all.Wait()
}

// check is a caller's check at a replica.
func (f *fleet) check(m *member, n int) {
	f.t.Helper()
	m.store.Heartbeat(f.t.Context())
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	if _, err := m.service.Check(ctx, eligibility.Request{CustomerID: customer(n), Segment: eligibility.SegmentCommercial}); err != nil {
		f.t.Fatal(err)
	}
}

func (m *member) gauge(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "eligibility_reviews_"+name {
			continue
		}
		for _, metric := range family.GetMetric() {
			if len(labels) > 0 && metric.GetLabel()[0].GetValue() != labels[0] {
				continue
			}
			return value(metric)
		}
	}
	t.Fatalf("no %s", name)
	return 0
}

func value(metric *dto.Metric) float64 {
	return metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
}

// Without any caller, each customer is checked after a tenth of the time under review,
// by one of the replicas, until the review ends.
func TestEveryReviewIsMadeOnceInACadence(t *testing.T) {
	t.Parallel()
	const customers, step = 24, 10 * time.Second
	f := newFleet(t, 3, 0)
	for n := range customers {
		f.check(f.members[n%3], n)
		if n%4 == 0 {
			f.source.ended[customer(n)] = start.Add(time.Hour + time.Duration(n)*time.Minute)
		}
	}
	began := time.Now()
	for f.now().Before(start.Add(3*time.Hour)) && time.Since(began) < 2*time.Minute {
		f.pass(step)
	}
	lasted := f.now().Sub(start)
	t.Logf("%v in %v, %d calls", lasted, time.Since(began), f.source.count())
	for n := range customers {
		calls := f.source.calls[customer(n)]
		for i := 1; i < len(calls); i++ {
			pending, gap := calls[i-1].Sub(calls[0]), calls[i].Sub(calls[i-1])
			cadence := min(max(pending/10, 2*time.Minute), time.Hour)
			if gap < cadence*9/10-time.Second || gap > cadence*11/10+2*step {
				t.Errorf("customer %d, pending for %v: checked after %v, want %v", n, pending, gap, cadence)
			}
		}
		last := calls[len(calls)-1]
		end, ends := f.source.ended[customer(n)]
		switch longest := (lasted/10)*11/10 + 2*step; {
		case ends && (last.Before(end) || last.Sub(end) > longest || calls[len(calls)-2].After(end)):
			t.Errorf("customer %d, whose review ended at %v, was last checked at %v", n, end, last)
		case !ends && f.now().Sub(last) > longest:
			t.Errorf("customer %d was last checked %v ago", n, f.now().Sub(last))
		}
	}
	if got := f.members[0].gauge(t, "tracked"); got != customers*3/4 {
		t.Errorf("%v tracked", got)
	}
	ended := 0.0
	for _, m := range f.members {
		ended += m.gauge(t, "fetched_total", "ended")
		if n := m.gauge(t, "fetched_total", "pending"); n == 0 {
			t.Error("a replica makes no reviews")
		}
	}
	if ended != customers/4 {
		t.Errorf("%v ended", ended)
	}
	if f.source.lanes[evidence.LaneReview] != f.source.count()-customers {
		t.Errorf("by lane %v", f.source.lanes)
	}
}

// Redis has lost the evidence of a customer that is on its list: it is fetched, and
// goes or stays by what it is.
func TestAReviewWhoseEvidenceIsGone(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 0)
	for n := range 2 {
		f.check(f.members[0], n)
	}
	f.source.ended[customer(0)] = start
	client := f.server.Client()
	for n := range 2 {
		id := customer(n)
		for _, key := range client.Keys(t.Context(), fmt.Sprintf("*:%x:account", id[:])).Val() {
			client.Del(t.Context(), key)
		}
	}
	f.join(0) // has none in the process either
	f.members = f.members[2:]
	f.pass(3 * time.Minute)
	if n := f.source.count(); n != 4 {
		t.Errorf("%d calls, want 4", n)
	}
	// What a review has found is in Redis a moment after it has ended.
	for end := time.Now().Add(10 * time.Second); ; {
		f.pass(time.Second)
		got := f.members[0].gauge(t, "tracked")
		if got == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v tracked, want the one that is under review", got)
		}
	}
}

// A replica that dies with reviews that it has taken delays them by 30 s.
func TestAReplicaThatDiesDelaysItsReviews(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 0)
	for n := range 20 {
		f.check(f.members[0], n)
	}
	f.passed.Add(int64(3 * time.Minute))
	most := make([]int, 64)
	for i := range most {
		most[i] = 100
	}
	if got := f.members[0].list.Take(t.Context(), most); len(got) != 20 {
		t.Fatalf("%d taken", len(got))
	}
	f.members = f.members[1:] // the first has died
	f.pass(29 * time.Second)
	if n := f.source.count(); n != 20 {
		t.Errorf("%d calls too early", n-20)
	}
	f.pass(2 * time.Second)
	if n := f.source.count(); n != 40 {
		t.Errorf("%d calls, want 20", n-20)
	}
}

// A review that lasts is abandoned by one replica, with one event, and never made again.
func TestReviewsAreGivenUp(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, 0)
	f.check(f.members[0], 1)
	for _, d := range []time.Duration{24 * time.Hour, 719*time.Hour - 24*time.Hour} {
		f.pass(d)
	}
	if got := f.members[0].gauge(t, "tracked"); got != 1 {
		t.Fatalf("%v tracked after 719 h", got)
	}
	for range 5 {
		f.pass(70 * time.Minute)
	}
	calls := f.source.count()
	if calls < 3 || calls > 5 { // one may be due again later because its write timed out
		t.Errorf("%d calls", calls)
	}
	if n := f.abandonments(); n != 1 {
		t.Errorf("%d events", n)
	}
	for range 3 {
		f.pass(2 * time.Hour)
	}
	f.check(f.members[1], 1) // a caller may ask
	for range 3 {
		f.pass(2 * time.Hour)
	}
	if n := f.source.count(); n != calls+1 {
		t.Errorf("%d calls after it was given up", n-calls-1)
	}
	abandoned := 0.0
	for _, m := range f.members {
		abandoned += m.gauge(t, "abandoned_total")
	}
	if got := f.members[0].gauge(t, "tracked"); abandoned != 1 || got != 0 {
		t.Errorf("%v abandoned, %v tracked", abandoned, got)
	}
}

// abandonments returns how many are in the feed.
func (f *fleet) abandonments() (events int) {
	f.t.Helper()
	store := f.members[0].store
	store.Heartbeat(f.t.Context())
	for partition := range store.Feed().Partitions() {
		page := store.Feed().Read(f.t.Context(), []changes.Ask{{Partition: partition}}, 100)[0]
		if page.Err != nil {
			f.t.Fatal(page.Err)
		}
		for _, entry := range page.Entries {
			if entry.Type == changes.TypeAbandoned {
				events++
				if !entry.PendingSince.Equal(start) || entry.After.StatusText != "UnderReview" {
					f.t.Errorf("%+v", entry.Change)
				}
			}
		}
	}
	return events
}

// Failures are retried no sooner than 30 s later; if Partner Center is out of reach or
// refuses the credentials, a replica stops asking.
func TestFailedReviews(t *testing.T) {
	t.Parallel()
	called := eligibility.Call{Attempts: 1}
	for name, test := range map[string]struct {
		failure eligibility.Error
		most    int // calls of 50 customers and two replicas, in a minute
	}{
		"unavailable":         {eligibility.Error{Kind: eligibility.KindUnavailable, Call: called}, 100},
		"credentials":         {eligibility.Error{Kind: eligibility.KindCredentials, Call: called}, 100},
		"breaker open":        {eligibility.Error{Kind: eligibility.KindUnavailable}, 100},
		"credentials latched": {eligibility.Error{Kind: eligibility.KindCredentials}, 100},
		"throttled":           {eligibility.Error{Kind: eligibility.KindThrottled, RetryAfter: time.Minute}, 100},
		"unreadable":          {eligibility.Error{Kind: eligibility.KindInvalidResponse, Call: called}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 2, 0)
			for n := range 50 {
				f.check(f.members[0], n)
			}
			f.passed.Add(int64(3 * time.Minute))
			f.source.failAll(&test.failure)
			for range 4 {
				f.pass(5 * time.Second)
			}
			if f.source.fails == 0 || f.source.fails > test.most {
				t.Errorf("%d calls, want 1 to %d", f.source.fails, test.most)
			}
			first := f.source.fails
			for range 6 {
				f.pass(time.Second)
			}
			if test.failure.Kind != eligibility.KindInvalidResponse && f.source.fails > first {
				t.Errorf("%d calls more within seconds", f.source.fails-first)
			}
			f.source.mu.Lock()
			f.source.fail = nil
			f.source.mu.Unlock()
			for _, m := range f.members {
				m.loop.Resume()
			}
			f.pass(time.Minute)
			for range 3 { // a review whose write timed out is due again after 30 s
				if f.source.count() < 100 {
					f.pass(15 * time.Second)
				}
			}
			if got := f.source.count(); got != 100 {
				t.Errorf("%d calls once it works, want 50", got-50)
			}
			if got := f.members[0].gauge(t, "tracked"); got != 50 {
				t.Errorf("%v tracked", got)
			}
		})
	}
}

// Reviews that had to wait for the budget are made in the order in which they were due.
func TestRefusedReviewsKeepTheirPlace(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 1, 0)
	for n := range 10 {
		f.check(f.members[0], n)
	}
	f.passed.Add(int64(time.Hour))
	before, err := f.members[0].list.Look(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	f.source.failAll(&eligibility.Error{Kind: eligibility.KindThrottled})
	f.pass(0)
	after, err := f.members[0].list.Look(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if *before[i] != *after[i] {
			t.Errorf("partition %d: %+v, before %+v", i, *after[i], *before[i])
		}
	}
	if f.source.fails == 0 || f.source.fails > 10 { // the first refusal may come before the last is asked for
		t.Errorf("%d refused", f.source.fails)
	}
}

// When the service stops, what it has taken is due at once for the others.
func TestReviewsAreReturnedAtTheShutdown(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, 0)
	for n := range 10 {
		f.check(f.members[0], n)
	}
	f.passed.Add(int64(3 * time.Minute))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	most := make([]int, 64)
	for i := range most {
		most[i] = 10
	}
	f.members[0].loop.Begin(ctx, f.members[0].list.Take(t.Context(), most))
	f.members[0].loop.Wait()
	f.members = f.members[1:]
	f.pass(time.Second)
	if n := f.source.count(); n < 20 {
		t.Errorf("%d calls, want 10 to 20", n-10)
	}
}

// After an outage, thousands of reviews are due at once. They are made at the pace of
// their share, the longest due first, by all replicas, while checkouts go at once.
func TestABacklogOfReviews(t *testing.T) {
	t.Parallel()
	const size, perMinute, backlog = 3, 600, 2000 // two reviews a second
	f := newFleet(t, size, perMinute)
	client := f.server.Client()
	for _, m := range f.members {
		m.store.Heartbeat(t.Context())
	}
	due := make(map[any]time.Time) // by member
	for n := range backlog {
		id := customer(n)
		due[fmt.Sprintf("%x:account", id[:])] = time.Now().Add(-time.Duration(backlog-n) * time.Second)
		f.members[0].store.Share(t.Context(), eligibility.Key{CustomerID: id},
			&eligibility.Evidence{Status: eligibility.AccountStatusUnderReview, StatusText: "UnderReview", FetchTime: time.Now().Add(-time.Hour).Truncate(time.Millisecond)}, time.Now().Add(time.Hour))
	}
	for _, key := range client.Keys(t.Context(), "*:reviews").Val() {
		tracked := client.ZRangeWithScores(t.Context(), key, 0, -1).Val()
		for i := range tracked {
			tracked[i].Score = float64(due[tracked[i].Member].UnixMilli())
		}
		client.ZAdd(t.Context(), key, tracked...)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	began := time.Now()
	for _, m := range f.members {
		running.Go(func() { _ = m.loop.Run(ctx) })
	}
	slowest := time.Duration(0)
	for n := 0; time.Since(began) < 20*time.Second; n++ {
		asked := time.Now()
		f.check(f.members[n%size], backlog+n)
		slowest = max(slowest, time.Since(asked))
		time.Sleep(250 * time.Millisecond) // less than the budget: 4 a second
	}
	stop()
	running.Wait()
	took := time.Since(began)
	f.source.mu.Lock()
	defer f.source.mu.Unlock()
	made, latest := 0, 0
	for n := range backlog {
		if calls := f.source.calls[customer(n)]; len(calls) > 1 {
			t.Errorf("customer %d was checked %d times", n, len(calls))
		} else if len(calls) == 1 {
			made, latest = made+1, n
		}
	}
	share := float64(made) / took.Minutes() / perMinute * 100
	t.Logf("%d reviews in %v: %.1f %% of the budget; the last was number %d; slowest checkout %v", made, took, share, latest, slowest)
	if share < 17 || share > 23 {
		t.Errorf("reviews have %.1f %% of the budget", share)
	}
	if latest > made+128 {
		t.Errorf("number %d was made before older ones, of %d", latest, made)
	}
	if slowest > 2*time.Second {
		t.Errorf("a checkout took %v", slowest)
	}
}
