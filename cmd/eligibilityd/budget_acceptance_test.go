//go:build acceptance

package main

import (
	"context"
	bin "encoding/binary"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
	"github.com/eligibilityd/eligibilityd/internal/pcsim/pcsimtest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// ownBudgets is the last commit whose replicas have a budget each.
const ownBudgets = "b612242"

var measuredTime = flag.Duration("measured", 12*time.Minute, "how long the traffic of a fleet is measured")

// budgetFleet is several processes of the program with one Redis and one Partner
// Center that answers after 100 ms.
type budgetFleet struct {
	t       *testing.T
	far     *witness
	redis   *cachetest.Redis
	clients []eligibilityv1.EligibilityServiceClient
}

// startBudgetFleet starts replicas of program, or of this one if it is empty.
func startBudgetFleet(t *testing.T, far *witness, redis *cachetest.Redis, program string, replicas int, environ ...string) *budgetFleet {
	t.Helper()
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			t.Fatal(err)
		}
	}
	f := &budgetFleet{t: t, far: far, redis: redis, clients: make([]eligibilityv1.EligibilityServiceClient, replicas)}
	environ = slices.Concat(environ, redisAt(redis.Address), []string{"ELIGIBILITY_SERVER__DRAIN=0s"})
	processes := make([]*process, replicas)
	var starting sync.WaitGroup
	for i := range processes {
		starting.Go(func() {
			own := pcsimtest.Environ(far.url, pcsimtest.TokenFile(t), environ...)
			processes[i], _ = startBinary(t, program, own, "serve")
		})
	}
	starting.Wait()
	for i, p := range processes {
		f.clients[i] = eligibilityv1.NewEligibilityServiceClient(p.dial(t))
	}
	return f
}

func budgetOf(perMinute int) string {
	return fmt.Sprintf("ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=%d", perMinute)
}

// check asks without a deadline, so that the service's own of two seconds
// applies.
func (f *budgetFleet) check(ctx context.Context, replica int, req *eligibilityv1.CheckEligibilityRequest) checked {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := checked{replica: replica, id: req.GetCustomerId(), asked: time.Now()}
	// A deadline of the caller would replace the service's; the cancellation does not.
	bare, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	defer context.AfterFunc(ctx, leave)()
	c.resp, c.err = f.clients[replica].CheckEligibility(bare, req)
	c.took = time.Since(c.asked)
	return c
}

// load sends checks as a Poisson process until ctx ends, whether or not earlier ones
// were answered, and then waits for the answers.
func (f *budgetFleet) load(ctx context.Context, aSecond float64, next func() *eligibilityv1.CheckEligibilityRequest, see func(checked)) {
	var asking sync.WaitGroup
	defer asking.Wait()
	for due := time.Now(); pause(ctx, time.Until(due)); {
		due = due.Add(time.Duration(rand.ExpFloat64() / aSecond * float64(time.Second)))
		req, replica := next(), rand.IntN(len(f.clients))
		asking.Go(func() { see(f.check(context.WithoutCancel(ctx), replica, req)) })
	}
}

// cold returns a function whose every request is about another customer, for whom
// nobody has asked before. There must be as many customers.
func (f *budgetFleet) cold(far *pcsim.Server, family byte, n int) (next func() *eligibilityv1.CheckEligibilityRequest) {
	f.t.Helper()
	for i := range n {
		if err := far.SetCustomer(answering(coldID(family, i), "Allowed")); err != nil {
			f.t.Fatal(err)
		}
	}
	var mu sync.Mutex
	used := 0
	return func() *eligibilityv1.CheckEligibilityRequest {
		mu.Lock()
		defer mu.Unlock()
		used++
		return &eligibilityv1.CheckEligibilityRequest{CustomerId: coldID(family, (used-1)%n)}
	}
}

func coldID(family byte, n int) string {
	return fmt.Sprintf("%c0000000-0000-4000-9000-%012x", family, n)
}

// answering is a customer with that status and without qualifications.
func answering(id, status string) pcsim.Customer {
	const latency = 100 * time.Millisecond
	return pcsim.Customer{
		ID:             id,
		Account:        []pcsim.Step{{Status: status, Latency: latency}},
		Qualifications: []pcsim.Step{{Items: []pcsim.Qualification{}, Latency: latency}},
	}
}

// busiestIn returns the largest number of requests that came within any span of that
// length.
func busiestIn(requests []seen, span time.Duration) (most int) {
	first := 0
	for i, one := range requests {
		for one.came.Sub(requests[first].came) >= span {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// between returns the requests that came in that time.
func between(requests []seen, from, to time.Time) (of []seen) {
	for _, one := range requests {
		if !one.came.Before(from) && one.came.Before(to) {
			of = append(of, one)
		}
	}
	return of
}

// outcomes counts answers by what became of them.
type outcomes struct {
	mu                           sync.Mutex
	fresh, waited, stale, errors int // guarded by mu
	took                         times
}

func (y *outcomes) see(c checked) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.took = append(y.took, c.took)
	switch {
	case c.err != nil:
		y.errors++
	case c.resp.GetStale():
		y.stale++
	case c.resp.GetSource() == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER:
		y.waited++
	default:
		y.fresh++
	}
}

func (y *outcomes) String() string {
	all := float64(y.fresh+y.waited+y.stale+y.errors) / 100
	return fmt.Sprintf("%.0f checks: fresh at once %.1f %%, waited %.1f %%, stale %.1f %%, no answer %.2f %%",
		all*100, float64(y.fresh)/all, float64(y.waited)/all, float64(y.stale)/all, float64(y.errors)/all)
}

// The traffic of docs/scaling.md.
const (
	shopCustomers = 100_000
	shopChecks    = 6 // a second
	shopBudget    = 300
	shopReplicas  = 20
)

// shop is the customers of docs/scaling.md.
type shop struct{ drawn []float64 }

func newShop() *shop {
	s := &shop{drawn: make([]float64, shopCustomers)}
	sum := 0.0
	for i := range s.drawn {
		sum += 1 / float64(i+1)
		s.drawn[i] = sum
	}
	return s
}

func (s *shop) customer() int {
	at := rand.Float64() * s.drawn[len(s.drawn)-1]
	return min(sort.SearchFloat64s(s.drawn, at), len(s.drawn)-1)
}

// status returns the account status of a customer, and whether a qualification is in
// review: in the proportions of bench/scaling.
func (s *shop) status(customer int) (account string, inReview bool) {
	switch lot := mixed(uint64(customer)) % 100; { //nolint:gosec // not negative
	case lot < 90:
		account = "Allowed"
	case lot < 94:
		account = pcsim.StatusNone
	case lot < 96:
		account = "UnderReview"
	default:
		account = "NotAllowed"
	}
	return account, mixed(^uint64(customer))%100 == 0 //nolint:gosec // not negative
}

func (s *shop) id(customer int) eligibility.CustomerID {
	var id eligibility.CustomerID
	bin.BigEndian.PutUint64(id[:8], mixed(uint64(customer)))    //nolint:gosec // not negative
	bin.BigEndian.PutUint64(id[8:], mixed(^uint64(customer)+7)) //nolint:gosec // not negative
	return id
}

// mixed spreads x over all bits, after splitmix64.
func mixed(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fill makes the customers of a simulator those of the shop.
func (s *shop) fill(t *testing.T, far *pcsim.Server) {
	t.Helper()
	for _, seed := range far.Customers() {
		far.DeleteCustomer(seed.ID)
	}
	for i := range shopCustomers {
		status, inReview := s.status(i)
		c := answering(s.id(i).String(), status)
		if inReview {
			c.Qualifications[0].Items = []pcsim.Qualification{{Qualification: "Education", VettingStatus: "InReview"}}
		}
		if err := far.SetCustomer(c); err != nil {
			t.Fatal(err)
		}
	}
}

// evidence returns the evidence of a facet, fetched then.
func (s *shop) evidence(customer int, facet eligibility.Facet, fetched time.Time) *eligibility.Evidence {
	status, inReview := s.status(customer)
	e := &eligibility.Evidence{Facet: facet, FetchTime: fetched.Truncate(time.Millisecond), CorrelationID: s.id(customer).String()}
	switch {
	case facet == eligibility.FacetQualifications && inReview:
		e.Qualifications = []eligibility.Qualification{{
			Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: eligibility.VettingInReview, VettingStatusText: "InReview",
		}}
	case facet == eligibility.FacetQualifications:
	case status == pcsim.StatusNone:
		e.Status = eligibility.AccountStatusNone
	default:
		e.Status, e.StatusText = eligibility.ParseAccountStatus(status), status
	}
	return e
}

// history returns the evidence that six hours of the traffic leave behind: one budget
// for the fleet in which the burst is a tenth of a minute, and of which the
// qualifications of commercial checks leave three quarters. No evidence is
// refreshed early.
func (s *shop) history(now time.Time) map[eligibility.Key]*eligibility.Evidence {
	const length, aSecond, burst = 6 * time.Hour, shopBudget / 60.0, shopBudget / 10.0
	held, ages := make(map[eligibility.Key]*eligibility.Evidence), eligibility.DefaultAges()
	level, at := burst, now.Add(-length)
	for {
		passed := time.Duration(rand.ExpFloat64() / shopChecks * float64(time.Second))
		if at = at.Add(passed); !at.Before(now) {
			return held
		}
		level = min(level+passed.Seconds()*aSecond, burst)
		customer, education := s.customer(), rand.IntN(5) == 0
		for _, facet := range []eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications} {
			key := eligibility.Key{CustomerID: s.id(customer), Facet: facet}
			if e := held[key]; e != nil && at.Before(ages.LifetimeOf(key, e, eligibility.Policy{}, eligibility.OperationPurchase, at).FreshUntil) {
				continue
			}
			needed := 1.0
			if facet == eligibility.FacetQualifications && !education {
				needed += burst * 3 / 4
			}
			if level >= needed {
				level--
				held[key] = s.evidence(customer, facet, at)
			}
		}
	}
}

// seed writes evidence to Redis as replicas did that ran until now.
func seed(t *testing.T, redis *cachetest.Redis, namespace string, held map[eligibility.Key]*eligibility.Evidence, now time.Time) {
	t.Helper()
	store, err := cache.New(cache.Config{Redis: cache.RedisConfig{
		Addresses: []string{redis.Address}, Namespace: namespace, ReadTimeout: patience, WriteTimeout: patience,
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	ages, keys := eligibility.DefaultAges(), make(chan eligibility.Key)
	var writing sync.WaitGroup
	for range 8 {
		writing.Go(func() {
			for key := range keys {
				if until := ages.KeepUntil(held[key]); until.After(time.Now()) {
					store.Share(t.Context(), key, held[key], until)
				}
			}
		})
	}
	for key := range held {
		keys <- key
	}
	close(keys)
	writing.Wait()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	// Redis has lost nothing since then. Replicas may start later than this by the
	// ten seconds for which a fleet may be silent.
	floor := bin.BigEndian.AppendUint64(nil, uint64(now.Add(-7*time.Hour).UnixNano()))
	key := "eligibility:v2:" + namespace + ":{53t}:watermark"
	if err := client.Set(t.Context(), key, floor, 48*time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
}

// 20 replicas with one budget, and with a twentieth of it each.
func TestAcceptanceBudgetOfTheFleet(t *testing.T) { //nolint:tparallel // the group waits for its subtests, which are parallel
	t.Parallel()
	customers, earlier := newShop(), buildRelease(t, ownBudgets)
	type figures struct {
		counted *outcomes
		calls   float64 // a minute
		busiest int     // calls in any minute, from the start
	}
	var mu sync.Mutex
	got := map[string]figures{}
	t.Run("fleet", func(t *testing.T) {
		for name, row := range map[string]struct {
			program, namespace string
			budget             int
		}{
			"20 × 15 a minute, before": {earlier, "", shopBudget / shopReplicas},
			"one budget of 300":        {"", "default/", shopBudget},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				far := startWitness(t, pcsim.Config{})
				customers.fill(t, far.Server)
				redis := cachetest.StartRedis(t)
				now := time.Now()
				held := customers.history(now)
				seed(t, redis, row.namespace+pcsim.DefaultTenantID+"@"+strings.TrimPrefix(far.url, "http://"), held, now)
				f := startBudgetFleet(t, far, redis, row.program, shopReplicas, budgetOf(row.budget))
				t.Logf("seeded with %d facets; %v until the fleet ran", len(held), time.Since(now).Round(time.Second))
				next := func() *eligibilityv1.CheckEligibilityRequest {
					req := &eligibilityv1.CheckEligibilityRequest{CustomerId: customers.id(customers.customer()).String()}
					if rand.IntN(5) == 0 {
						req.Segment = eligibilityv1.Segment_SEGMENT_EDUCATION
					}
					return req
				}
				play := func(length time.Duration) *outcomes {
					counted := new(outcomes)
					ctx, cancel := context.WithTimeout(t.Context(), length)
					defer cancel()
					f.load(ctx, shopChecks, next, counted.see)
					return counted
				}
				t.Logf("run-in of two minutes: %v", play(2*time.Minute))
				from := time.Now()
				counted := play(*measuredTime)
				requests := far.requests(false)
				mu.Lock()
				defer mu.Unlock()
				got[name] = figures{counted, float64(len(between(requests, from, time.Now()))) / measuredTime.Minutes(), busiestIn(requests, time.Minute)}
			})
		}
	})
	for name, of := range got {
		t.Logf("%s: %.0f calls a minute, busiest minute %d; %v; %v", name, of.calls, of.busiest, of.counted, of.counted.took)
	}
	after, measured := got["one budget of 300"]
	if !measured {
		t.Fatal("nothing was measured")
	}
	if after.busiest > shopBudget {
		t.Errorf("%d calls in a minute, want at most %d", after.busiest, shopBudget)
	}
	if all := len(after.counted.took); after.counted.errors*100 >= all {
		t.Errorf("%d of %d checks were not answered, want fewer than 1 in 100", after.counted.errors, all)
	}
}

// 5 replicas are configured for twice of what Partner Center allows in each minute
// of the clock.
func TestAcceptanceBudgetAdaptsToAHiddenLimit(t *testing.T) {
	t.Parallel()
	const limit, windows = 200, 12
	far := startWitness(t, pcsim.Config{RequestsPerMinute: limit, FixedWindows: true})
	f := startBudgetFleet(t, far, cachetest.StartRedis(t), "", 5, budgetOf(2*limit))
	next := f.cold(far.Server, '1', 2*limit*(windows+1))
	first := time.Now().Truncate(time.Minute).Add(time.Minute)
	pause(t.Context(), time.Until(first))
	ctx, cancel := context.WithTimeout(t.Context(), windows*time.Minute)
	defer cancel()
	counted := new(outcomes)
	f.load(ctx, 2*limit/60.0, next, counted.see)
	used, requests := 0, far.requests(false)
	for window := range windows {
		from := first.Add(time.Duration(window) * time.Minute)
		passed, refused := 0, 0
		for _, one := range between(requests, from, from.Add(time.Minute)) {
			if one.status == 429 {
				refused++
			} else {
				passed++
			}
		}
		t.Logf("window %d: %d calls passed, %d got 429", window+1, passed, refused)
		if window < 2 {
			continue
		}
		used += passed
		if refused > 1 {
			t.Errorf("window %d: %d answers 429, want at most one", window+1, refused)
		}
	}
	share := float64(used) / (limit * (windows - 2))
	t.Logf("from the third window on, %.1f %% of the limit was used; %v", share*100, counted)
	if share < 0.85 {
		t.Errorf("%.1f %% of the limit was used, want 85", share*100)
	}
}

// One replica receives a 429 with Retry-After: 30.
func TestAcceptanceBudgetPausesTheFleet(t *testing.T) {
	t.Parallel()
	const wait = 30 * time.Second
	far := startWitness(t, pcsim.Config{})
	f := startBudgetFleet(t, far, cachetest.StartRedis(t), "", 5, budgetOf(600))
	next := f.cold(far.Server, '1', 2000)
	ctx, cancel := context.WithTimeout(t.Context(), 70*time.Second)
	defer cancel()
	throttled := pcsim.Customer{ID: coldID('2', 0), Account: []pcsim.Step{{Raw: &pcsim.Raw{
		Status: 429, Headers: map[string]string{"Retry-After": "30"}, Body: `{"statusCode":429}`,
	}}}}
	if err := far.SetCustomer(throttled); err != nil {
		t.Fatal(err)
	}
	counted := new(outcomes)
	var loading sync.WaitGroup
	loading.Go(func() { f.load(ctx, 8, next, counted.see) })
	pause(ctx, 20*time.Second)
	f.check(ctx, 0, &eligibilityv1.CheckEligibilityRequest{CustomerId: throttled.ID})
	loading.Wait()
	requests := far.requests(false)
	place := slices.IndexFunc(requests, func(one seen) bool { return one.status == 429 })
	if place < 0 {
		t.Fatal("nobody got the 429")
	}
	at := requests[place].went
	within := between(requests, at, at.Add(100*time.Millisecond))
	during := between(requests, at.Add(100*time.Millisecond), at.Add(wait))
	resumed := between(requests, at.Add(wait), at.Add(wait+5*time.Second))
	t.Logf("%d calls within 100 ms of the 429, %d until %v after it, %d in the five seconds after", len(within), len(during), wait, len(resumed))
	if len(during) > 0 {
		t.Errorf("%d calls during the pause, the first %v after the 429", len(during), during[0].came.Sub(at))
	}
	if len(resumed) == 0 {
		t.Error("no call after the pause")
	}
	// Nothing has accumulated: at 10 a second, and one call that was due.
	if n := busiestIn(resumed, time.Second); n > 12 {
		t.Errorf("%d calls within a second after the pause", n)
	}
}

// Callers of one customer do not wait for a batch of 10,000, on any replica.
func TestAcceptanceBudgetLetsCheckoutsPassABatch(t *testing.T) {
	t.Parallel()
	const many, chunk = 10_000, checkChunk
	far := startWitness(t, pcsim.Config{})
	f := startBudgetFleet(t, far, cachetest.StartRedis(t), "", 2, budgetOf(shopBudget))
	next, single := f.cold(far.Server, '1', many), f.cold(far.Server, '2', 1000)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	chunks, done, reasons := 0, 0, map[string]int{}
	var loading sync.WaitGroup
	loading.Go(func() {
		for sent := 0; sent < many && ctx.Err() == nil; sent += chunk {
			req := new(eligibilityv1.BatchCheckEligibilityRequest)
			for range chunk {
				req.Requests = append(req.Requests, next())
			}
			// Without a deadline, so that the service's own applies.
			resp, err := f.clients[0].BatchCheckEligibility(context.WithoutCancel(ctx), req)
			if err != nil {
				t.Errorf("batch: %v", err)
			}
			for _, result := range resp.GetResults() {
				if result.GetResponse() != nil {
					done++
				} else {
					reasons[result.GetError().GetReason()]++
				}
			}
			chunks++
		}
	})
	pause(ctx, 15*time.Second) // until the batch has spent its part of the burst
	took := make([]times, len(f.clients))
	for pause(ctx, time.Second) {
		for replica := range f.clients {
			c := f.check(ctx, replica, single())
			if c.err != nil && ctx.Err() == nil {
				t.Errorf("checkout at replica %d after %v: %v", replica, c.took, status.Convert(c.err).Details())
			}
			if ctx.Err() == nil {
				took[replica] = append(took[replica], c.took)
			}
		}
	}
	loading.Wait()
	t.Logf("the batch: %d chunks of %d, %d customers answered in 2 min, others %v", chunks, chunk, done, reasons)
	for replica, of := range took {
		t.Logf("checkouts at replica %d (the batch is at 0): %v", replica, of)
		if slowest := of.quantile(1); slowest > time.Second || len(of) < 30 {
			t.Errorf("replica %d: %v, want at most 1 s", replica, of)
		}
	}
}

// Redis is killed under a demand above the budget, and comes back empty.
func TestAcceptanceBudgetSurvivesRedis(t *testing.T) {
	t.Parallel()
	const budget = 300
	far, redis := startWitness(t, pcsim.Config{}), cachetest.StartRedis(t)
	f := startBudgetFleet(t, far, redis, "", 5, budgetOf(budget))
	next := f.cold(far.Server, '1', 5000)
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	counted := new(outcomes)
	var loading sync.WaitGroup
	loading.Go(func() { f.load(ctx, 8, next, counted.see) })
	pause(ctx, 2*time.Minute)
	redis.Kill()
	killed := time.Now()
	pause(ctx, 2*time.Minute)
	redis.Start()
	started := time.Now()
	client := redis.Client()
	defer func() { _ = client.Close() }()
	counts := time.Duration(0)
	for pause(ctx, 50*time.Millisecond) && counts == 0 {
		if keys, err := client.Keys(ctx, "*:budget").Result(); err == nil && len(keys) > 0 {
			counts = time.Since(started)
		}
	}
	loading.Wait()
	requests := far.requests(false)
	t.Logf("busiest minute with Redis %d, of all %d, without Redis %d; the hash counts %v after the start; %v",
		busiestIn(between(requests, time.Time{}, killed), time.Minute), busiestIn(requests, time.Minute),
		busiestIn(between(requests, killed, started), time.Minute), counts.Round(time.Millisecond), counted)
	if n := busiestIn(requests, time.Minute); n > budget*12/10 {
		t.Errorf("%d calls in a minute, want at most %d", n, budget*12/10)
	}
	if n := len(between(requests, killed.Add(time.Minute), started)); n < budget/2 {
		t.Errorf("%d calls in the second minute without Redis", n)
	}
	if counts == 0 || counts > 5*time.Second {
		t.Errorf("the hash counts %v after the start, want within 5 s", counts)
	}
}

// While the budget is spent, commercial checks cost one call each.
func TestAcceptanceBudgetSpentServesAccountsOnly(t *testing.T) {
	t.Parallel()
	const budget = 300
	far := startWitness(t, pcsim.Config{})
	f := startBudgetFleet(t, far, cachetest.StartRedis(t), "", 5, budgetOf(budget))
	next := f.cold(far.Server, '1', 5000)
	play := func(length time.Duration) *outcomes {
		counted := new(outcomes)
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		f.load(ctx, 7, next, counted.see)
		return counted
	}
	play(30 * time.Second) // spends the burst
	before := far.Stats()
	counted := play(2 * time.Minute)
	stats := far.Stats()
	accounts, qualifications := stats.Account-before.Account, stats.Qualifications-before.Qualifications
	each := float64(accounts+qualifications) / float64(counted.waited)
	t.Logf("%d calls about accounts and %d about qualifications, %.2f for each check that was answered; %v", accounts, qualifications, each, counted)
	if each > 1.02 {
		t.Errorf("%.2f calls for each check, want one", each)
	}
}

// One partner of a fleet is throttled, the other one is not affected.
func TestAcceptanceBudgetOfTwoPartners(t *testing.T) {
	t.Parallel()
	far := startWitness(t, pcsim.Config{})
	const usClient = "c0000000-0000-4000-8000-000000000002"
	us, err := far.AddPartner("us", pcsim.Config{
		TenantID: "70000000-0000-4000-8000-000000000002", ClientID: usClient, ClientSecret: "us-secret", RefreshToken: "us-refresh-token",
	})
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	for name, of := range map[string]struct{ tenant, client, secret, token string }{
		"EU": {pcsim.DefaultTenantID, pcsim.DefaultClientID, pcsim.DefaultClientSecret, pcsim.DefaultRefreshToken},
		"US": {us.TenantID(), us.ClientID(), "us-secret", "us-refresh-token"},
	} {
		file := filepath.Join(t.TempDir(), "refresh-token")
		if err := os.WriteFile(file, []byte(of.token), 0o600); err != nil {
			t.Fatal(err)
		}
		for key, value := range map[string]string{
			"BASE_URL": far.url, "AUTHORITY": far.url, "TENANT_ID": of.tenant, "CLIENT_ID": of.client, "CLIENT_SECRET": of.secret,
			"REFRESH_TOKEN_FILE": file, "BUDGET_PER_MINUTE": "600",
		} {
			environ = append(environ, "ELIGIBILITY_PARTNERS__"+name+"__"+key+"="+value)
		}
	}
	f := startPartnersFleet(t, far, cachetest.StartRedis(t), 3, environ)
	eu, of := f.cold(far.Server, '1', 1500), f.cold(us, '1', 1500)
	for name, next := range map[string]func() *eligibilityv1.CheckEligibilityRequest{"eu": eu, "us": of} {
		if c := f.check(t.Context(), 0, named(next, name)()); c.err != nil {
			t.Fatalf("%s: %v", name, c.err)
		}
	}
	play := func(length time.Duration) (euTally, usTally *outcomes, euCalls, usCalls uint64) {
		euTally, usTally = new(outcomes), new(outcomes)
		euBefore, usBefore := far.Stats(), us.Stats()
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		var loading sync.WaitGroup
		loading.Go(func() { f.load(ctx, 4, named(eu, "eu"), euTally.see) })
		f.load(ctx, 4, named(of, "us"), usTally.see)
		loading.Wait()
		return euTally, usTally, far.Stats().Account - euBefore.Account, us.Stats().Account - usBefore.Account
	}
	euBefore, usBefore, euCalls, usCalls := play(time.Minute)
	t.Logf("before: eu %d calls, %v, %v; us %d calls, %v, %v", euCalls, euBefore, euBefore.took, usCalls, usBefore, usBefore.took)
	throttled := pcsim.Customer{ID: coldID('2', 0), Account: []pcsim.Step{{Raw: &pcsim.Raw{
		Status: 429, Headers: map[string]string{"Retry-After": "120"}, Body: `{"statusCode":429}`,
	}}}}
	if err := far.SetCustomer(throttled); err != nil {
		t.Fatal(err)
	}
	f.check(t.Context(), 0, &eligibilityv1.CheckEligibilityRequest{CustomerId: throttled.ID, Partner: "eu"})
	pause(t.Context(), time.Second)
	euDuring, usDuring, euCalls, usDuringCalls := play(time.Minute)
	t.Logf("eu throttled: eu %d calls, %v, %v; us %d calls, %v, %v", euCalls, euDuring, euDuring.took, usDuringCalls, usDuring, usDuring.took)
	if euCalls != 0 || euDuring.errors != len(euDuring.took) {
		t.Errorf("the throttled partner: %d calls, %v", euCalls, euDuring)
	}
	if usDuring.errors > 0 || usBefore.errors > 0 {
		t.Errorf("the other partner: %v, before %v", usDuring, usBefore)
	}
	if before, during := usBefore.took.quantile(0.5), usDuring.took.quantile(0.5); math.Abs(float64(during-before)) > float64(before)/2 {
		t.Errorf("the other partner's checks take %v, before %v", during, before)
	}
}

// named returns requests for a partner.
func named(next func() *eligibilityv1.CheckEligibilityRequest, partner string) func() *eligibilityv1.CheckEligibilityRequest {
	return func() *eligibilityv1.CheckEligibilityRequest {
		req := next()
		req.Partner = partner
		return req
	}
}

// startPartnersFleet starts replicas whose partners environ configures.
func startPartnersFleet(t *testing.T, far *witness, redis *cachetest.Redis, replicas int, environ []string) *budgetFleet {
	t.Helper()
	f := &budgetFleet{t: t, far: far, redis: redis}
	for range replicas {
		own := anyPort(slices.Concat(environ, redisAt(redis.Address), []string{"ELIGIBILITY_SERVER__DRAIN=0s"})...)
		p, _ := startProgram(t, own, "serve")
		f.clients = append(f.clients, eligibilityv1.NewEligibilityServiceClient(p.dial(t)))
	}
	return f
}
