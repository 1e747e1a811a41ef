//go:build acceptance

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/pcsim"
)

// binary selects the program under test, to compare two releases.
var binary = flag.String("binary", "", "the eligibilityd that TestAcceptanceRedisHalf... starts, if not the tree's own")

const (
	// blockBound is how long any replica may answer ALLOWED from fresh evidence
	// after one has fetched the block, or after Redis has returned.
	blockBound = time.Second
	// watchLimit bounds the wait for the last such answer; the wait ends
	// earlier when there was none for calm.
	watchLimit = time.Minute
	calm       = 3 * time.Second
	pollEvery  = 5 * time.Millisecond
	// callerDeadline is a typical deadline of a checkout.
	callerDeadline = 2 * time.Second
)

const (
	allowedDecision = eligibilityv1.Decision_DECISION_ALLOWED
	blockedDecision = eligibilityv1.Decision_DECISION_BLOCKED
	fromRedis       = eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS
	fromFarSide     = eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER
)

// farSide is a simulator that can break every connection.
type farSide struct {
	*pcsim.Server

	t    *testing.T
	url  string
	away atomic.Bool
}

func startFarSide(t *testing.T) *farSide {
	t.Helper()
	sim, err := pcsim.New(pcsim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	f := &farSide{Server: sim, t: t}
	on := httptest.NewServer(f)
	f.url = on.URL
	t.Cleanup(func() {
		sim.Close()
		on.Close()
	})
	return f
}

func (f *farSide) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if f.away.Load() {
		panic(http.ErrAbortHandler)
	}
	f.Handler().ServeHTTP(w, req)
}

// set sets a customer's account status.
func (f *farSide) set(id, word string) {
	f.t.Helper()
	if err := f.SetCustomer(pcsim.Customer{ID: id, Account: []pcsim.Step{{Status: word}}}); err != nil {
		f.t.Fatal(err)
	}
}

// customers creates n customers who may buy.
func (f *farSide) customers(family byte, n int) []string {
	f.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%c0000000-0000-4000-9000-%012x", family, i)
		f.set(ids[i], "Allowed")
	}
	return ids
}

// replica is a process that runs serve.
type replica struct {
	*program

	t      *testing.T
	client eligibilityv1.EligibilityServiceClient
}

// replica starts one with that Redis and waits until it is ready.
func (f *farSide) replica(address string, environ ...string) *replica {
	f.t.Helper()
	r := f.starting(address, environ...)
	r.awaitReady(f.t)
	return r
}

// starting is replica, but does not wait.
func (f *farSide) starting(address string, environ ...string) *replica {
	f.t.Helper()
	file := *binary
	if file == "" {
		own, err := os.Executable()
		if err != nil {
			f.t.Fatal(err)
		}
		file = own
	}
	p := launchFile(f.t, file, nil, toServe(f.t, f.url, append(environ, redisAt(address)...)...), "serve")
	_ = p.stderr.SetReadDeadline(time.Time{})
	go func() { _, _ = io.Copy(io.Discard, p.stderr) }() // ends with the pipe
	conn := (&process{addresses: p.addresses}).dial(f.t)
	return &replica{program: p, t: f.t, client: eligibilityv1.NewEligibilityServiceClient(conn)}
}

// check sends one commercial question. If maxAge is negative, it is not sent.
func (r *replica) check(id string, maxAge, deadline time.Duration) checked {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	question := &eligibilityv1.CheckEligibilityRequest{CustomerId: id}
	if maxAge >= 0 {
		question.MaxAge = durationpb.New(maxAge)
	}
	c := checked{id: id, asked: time.Now()}
	c.resp, c.err = r.client.CheckEligibility(ctx, question)
	c.took = time.Since(c.asked)
	return c
}

// checks asks about all customers, from that many goroutines at once.
func (r *replica) checks(ids []string, callers int) []checked {
	all := make([]checked, len(ids))
	open := make(chan int, len(ids))
	for i := range ids {
		open <- i
	}
	close(open)
	var asking sync.WaitGroup
	for range callers {
		asking.Go(func() {
			for i := range open {
				all[i] = r.check(ids[i], -1, callerDeadline)
			}
		})
	}
	asking.Wait()
	return all
}

// mustKnow waits until the replica holds evidence for all customers.
func (r *replica) mustKnow(ids ...string) {
	r.t.Helper()
	for _, c := range r.checks(ids, 4) {
		if c.err != nil || c.resp.GetDecision() != allowedDecision {
			r.t.Fatalf("before any failure: %s: %v, %v", c.id, c.resp, c.err)
		}
	}
}

// mustFetchBlock makes the replica fetch that a customer is blocked.
func (r *replica) mustFetchBlock(id string) {
	r.t.Helper()
	if c := r.check(id, 0, patience); c.err != nil || c.resp.GetDecision() != blockedDecision {
		r.t.Fatalf("the customer is blocked, but: %v, %v", c.resp, c.err)
	}
}

// exposure is how long a replica still sold to a blocked customer.
type exposure struct {
	last    time.Duration // until its last ALLOWED from fresh evidence; 0 if there was none
	blocked time.Duration // until its first BLOCKED; 0 if there was none
	answers int
	over    bool // watchLimit ended first
}

func (e exposure) String() string {
	ms := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return fmt.Sprint(d.Milliseconds(), " ms")
	}
	last := ms(e.last)
	if e.over {
		last = fmt.Sprint(">", watchLimit)
	}
	return fmt.Sprintf("last fresh ALLOWED after: %s; first BLOCKED after: %s (%d answers)", last, ms(e.blocked), e.answers)
}

// watch polls a replica over REST about a blocked customer. Durations count
// from since.
func (r *replica) watch(id string, since time.Time) (e exposure) {
	client := http.Client{Timeout: patience}
	defer client.CloseIdleConnections()
	began := time.Now()
	for tick := time.Tick(pollEvery); ; <-tick {
		resp, err := restCheck(&client, r.HTTP, id)
		now := time.Now()
		if err != nil {
			r.t.Errorf("a check over REST: %v", err)
			return e
		}
		e.answers++
		if resp.GetDecision() == allowedDecision && !resp.GetStale() {
			e.last = max(now.Sub(since), 1)
		}
		if resp.GetDecision() == blockedDecision && e.blocked == 0 {
			e.blocked = max(now.Sub(since), 1)
		}
		if now.Sub(since) > watchLimit {
			e.over = true
			return e
		}
		if now.Sub(since) > e.last+calm && now.Sub(began) > calm {
			return e
		}
	}
}

// restCheck asks over REST. If the service returns an error, the answer is
// empty.
func restCheck(client *http.Client, address, id string) (*eligibilityv1.CheckEligibilityResponse, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+address+"/v1/customers/"+id+"/eligibility", http.NoBody)
	if err != nil {
		return nil, err
	}
	got, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = got.Body.Close() }()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		return nil, err
	}
	resp := new(eligibilityv1.CheckEligibilityResponse)
	if got.StatusCode != http.StatusOK {
		return resp, nil
	}
	return resp, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(body, resp)
}

// mustBlock reports an exposure and fails the test if it exceeds the bound.
func (e exposure) mustBlock(t *testing.T, who string) {
	t.Helper()
	t.Logf("%s: %s", who, e)
	if e.over || e.last > blockBound {
		t.Errorf("%s answers ALLOWED from fresh evidence for longer than %v", who, blockBound)
	}
	if e.blocked == 0 {
		t.Errorf("%s never answers BLOCKED", who)
	}
}

// If Redis rejects a replica's writes, its block must still reach the others.
func TestAcceptanceRedisHalfRefusesWrites(t *testing.T) { //nolint:tparallel // no other test may use the CPU
	for _, code := range cachetest.Refusals() {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			far, server := startFarSide(t), cachetest.StartRedis(t)
			id := far.customers('1', 1)[0]
			a, b := far.replica(server.Address), far.replica(server.Address)
			a.mustKnow(id)
			b.mustKnow(id)
			server.RefuseWrites(code)
			far.set(id, "NotAllowed")
			a.mustFetchBlock(id)
			known := time.Now()
			ofB := make(chan exposure, 1)
			go func() { ofB <- b.watch(id, known) }()
			ofC := far.starting(server.Address).watch(id, known)
			(<-ofB).mustBlock(t, "another replica")
			ofC.mustBlock(t, "a new replica")
		})
	}
}

// lossOfState is a way in which Redis reverts to an earlier state.
type lossOfState struct {
	name string
	// saves stores the current state, and returns a function that restores it
	saves func(t *testing.T, server *cachetest.Redis) (restores func())
}

func lossesOfState() []lossOfState {
	return []lossOfState{
		{"a restart from an older snapshot", savedSnapshot},
		{"a restored backup", savedKeys},
	}
}

func savedSnapshot(t *testing.T, server *cachetest.Redis) (restores func()) {
	t.Helper()
	client := server.Client()
	defer func() { _ = client.Close() }()
	if err := client.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	return func() {
		server.Kill()
		server.Start()
	}
}

func savedKeys(t *testing.T, server *cachetest.Redis) (restores func()) {
	t.Helper()
	client := server.Client()
	t.Cleanup(func() { _ = client.Close() })
	saved := map[string]string{}
	for _, facet := range []string{"account", "qualifications"} {
		for _, key := range client.Keys(t.Context(), "*:"+facet).Val() {
			saved[key] = client.Dump(t.Context(), key).Val()
		}
	}
	if len(saved) == 0 {
		t.Fatal("Redis holds nothing to save")
	}
	return func() {
		_, err := client.TxPipelined(t.Context(), func(all redis.Pipeliner) error {
			all.FlushAll(t.Context())
			for key, value := range saved {
				all.Restore(t.Context(), key, 10*time.Minute, value)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// If Redis reverts to its state before a block, no replica sells again.
func TestAcceptanceRedisHalfLosesState(t *testing.T) { //nolint:tparallel // no other test may use the CPU
	for _, loss := range lossesOfState() {
		t.Run(loss.name, func(t *testing.T) {
			t.Parallel()
			far, server := startFarSide(t), cachetest.StartRedis(t)
			id := far.customers('2', 1)[0]
			a, b := far.replica(server.Address), far.replica(server.Address)
			a.mustKnow(id)
			b.mustKnow(id)
			restores := loss.saves(t, server)
			far.set(id, "NotAllowed")
			a.mustFetchBlock(id)
			eventually(t, "the block in the other replica", func() bool {
				return b.check(id, -1, patience).resp.GetDecision() == blockedDecision
			})
			restores()
			restored := time.Now()
			ofB := make(chan exposure, 1)
			go func() { ofB <- b.watch(id, restored) }()
			ofC := far.starting(server.Address).watch(id, restored)
			(<-ofB).mustBlock(t, "another replica")
			ofC.mustBlock(t, "a new replica")
		})
	}
}

// If the replica that fetched the block is gone and no outbox covers the loss,
// the older evidence in Redis is not fresh.
func TestAcceptanceRedisHalfLosesMoreThanOutboxesCover(t *testing.T) {
	t.Parallel()
	far, server := startFarSide(t), cachetest.StartRedis(t)
	id := far.customers('3', 1)[0]
	a := far.replica(server.Address)
	_ = far.replica(server.Address) // has no evidence for the customer
	a.mustKnow(id)
	restores := savedSnapshot(t, server)
	far.set(id, "NotAllowed")
	a.mustFetchBlock(id)
	pause(t.Context(), 70*time.Second)
	a.signal(t, syscall.SIGKILL)
	a.exits(t)
	restores()
	far.starting(server.Address).watch(id, time.Now()).mustBlock(t, "a new replica")
}

// If a block was fetched during an outage of Redis, it survives the process.
func TestAcceptanceRedisHalfBackDuringShutdown(t *testing.T) {
	far, server := startFarSide(t), cachetest.StartRedis(t)
	id := far.customers('4', 1)[0]
	a, b := far.replica(server.Address), far.replica(server.Address)
	a.mustKnow(id)
	b.mustKnow(id)
	savedSnapshot(t, server) // so that Redis returns with the older evidence
	server.Kill()
	far.set(id, "NotAllowed")
	a.mustFetchBlock(id)
	a.signal(t, syscall.SIGTERM)
	pause(t.Context(), 2*time.Second)
	server.Start()
	b.watch(id, time.Now()).mustBlock(t, "another replica")
	if code := a.exits(t); code != 0 {
		t.Errorf("the replica that shut down: exit code %d", code)
	}
}

// share returns how many checks were ALLOWED and satisfy counts, and the
// durations of all.
func share(all []checked, counts func(checked) bool) (n int, took times) {
	for _, c := range all {
		took = append(took, c.took)
		if c.err == nil && c.resp.GetDecision() == allowedDecision && counts(c) {
			n++
		}
	}
	return n, took
}

// firstError describes the first failure.
func firstError(all []checked) string {
	for _, c := range all {
		if c.err != nil {
			reason, _ := refusal(c.err)
			return fmt.Sprintf("first error: %s %s", status.Code(c.err), reason)
		}
	}
	return "no error"
}

// A new replica uses a Redis with a high latency from its first check.
func TestAcceptanceRedisHalfFarAway(t *testing.T) {
	for _, distance := range []time.Duration{20 * time.Millisecond, 40 * time.Millisecond} {
		t.Run(distance.String(), func(t *testing.T) {
			far, server := startFarSide(t), cachetest.StartRedis(t)
			ids := far.customers('5', 100)
			far.replica(server.Address).mustKnow(ids...)
			proxy := cachetest.StartProxy(t, server)
			proxy.SetDelay(distance)
			all := far.replica(proxy.Address).checks(ids, 4)
			n, took := share(all, func(c checked) bool { return c.resp.GetSource() == fromRedis })
			t.Logf("Redis %v away: %d of the first %d checks answered from Redis; %s; %s", distance, n, len(all), took, firstError(all))
			if n < 90 {
				t.Error("a new replica hardly uses Redis")
			}
		})
	}
}

// If Partner Center is unavailable, a check waits longer for a slow Redis.
func TestAcceptanceRedisHalfLate(t *testing.T) {
	far, server := startFarSide(t), cachetest.StartRedis(t)
	ids := far.customers('6', 50)
	far.replica(server.Address).mustKnow(ids...)
	proxy := cachetest.StartProxy(t, server)
	r := far.replica(proxy.Address)
	proxy.SetDelay(200 * time.Millisecond)
	far.away.Store(true)
	all := r.checks(ids, 4)
	n, took := share(all, func(checked) bool { return true })
	t.Logf("Redis 200 ms late, Partner Center away: %d of %d checks answered; %s; %s", n, len(all), took, firstError(all))
	if n < len(all) {
		t.Error("callers are refused although Redis holds the evidence and there is time")
	}
}

// Redis is used for evidence even if its ACL permits no channel.
func TestAcceptanceRedisHalfWithoutChannels(t *testing.T) {
	far, server := startFarSide(t), cachetest.StartRedis(t)
	ids := far.customers('7', 50)
	client := server.Client()
	defer func() { _ = client.Close() }()
	if err := client.Do(t.Context(), "ACL", "SETUSER", "service", "on", ">pw", "~*", "+@all", "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	user := []string{"ELIGIBILITY_CACHE__REDIS__USERNAME=service", "ELIGIBILITY_CACHE__REDIS__PASSWORD=pw"}
	a, b := far.replica(server.Address, user...), far.replica(server.Address, user...)
	pause(t.Context(), 2*time.Second) // the subscription fails several times in this time
	a.mustKnow(ids...)
	all := b.checks(ids, 4)
	n, took := share(all, func(c checked) bool { return c.resp.GetSource() != fromFarSide })
	t.Logf("no channel permitted: %d of %d checks of a second replica answered from a tier; %s; %d account calls; %s",
		n, len(all), took, far.Stats().Account, firstError(all))
	if n < len(all) {
		t.Error("Redis is not used without its channels")
	}
	far.set(ids[0], "NotAllowed")
	a.mustFetchBlock(ids[0])
	b.watch(ids[0], time.Now()).mustBlock(t, "another replica")
}

// If the budget is spent, a commercial answer does not wait for qualifications
// that are only queued.
func TestAcceptanceRedisHalfBudgetSpent(t *testing.T) {
	for name, usable := range map[string]string{"no usable qualifications": "2s", "usable qualifications": "1h"} {
		t.Run(name, func(t *testing.T) {
			far, server := startFarSide(t), cachetest.StartRedis(t)
			ids := far.customers('8', 20)
			ages := []string{
				"ELIGIBILITY_CACHE__AGES__QUALIFICATIONS__FRESH=1s",
				"ELIGIBILITY_CACHE__AGES__QUALIFICATIONS__USABLE=" + usable,
			}
			far.replica(server.Address, ages...).mustKnow(ids...)
			r := far.replica(server.Address, append(ages, "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=10")...)
			r.checks(far.customers('9', 40), 40) // spends the budget
			pause(t.Context(), 3*time.Second)    // the qualifications expire
			all := r.checks(ids, 1)
			n, took := share(all, func(checked) bool { return true })
			t.Logf("%s, budget spent: %d of %d checks answered; %s; %s", name, n, len(all), took, firstError(all))
			if n < len(all) || took.quantile(0.5) > 50*time.Millisecond {
				t.Error("commercial answers wait for qualifications that nobody fetches")
			}
		})
	}
}

// Customers are decided even if the budget is the smallest possible.
func TestAcceptanceRedisHalfSmallestBudget(t *testing.T) {
	t.Parallel()
	far, server := startFarSide(t), cachetest.StartRedis(t)
	r := far.replica(server.Address, "ELIGIBILITY_PARTNER_CENTER__BUDGET_PER_MINUTE=6")
	began := time.Now()
	var decided atomic.Int64
	var last atomic.Int64
	var asking sync.WaitGroup
	for _, id := range far.customers('a', 10) {
		asking.Go(func() {
			for time.Since(began) < 2*time.Minute {
				c := r.check(id, -1, callerDeadline)
				if c.err == nil {
					decided.Add(1)
					last.Store(max(last.Load(), int64(time.Since(began))))
					return
				}
				_, comeBack := refusal(c.err)
				pause(t.Context(), min(max(comeBack, 100*time.Millisecond), 10*time.Second))
			}
		})
	}
	asking.Wait()
	stats := far.Stats()
	t.Logf("budget of 6 a minute: %d of 10 new customers decided within 2 min, the last after %v; %d account and %d qualifications calls",
		decided.Load(), time.Duration(last.Load()).Round(100*time.Millisecond), stats.Account, stats.Qualifications)
	if decided.Load() < 10 {
		t.Error("customers are not decided although the budget suffices for their accounts")
	}
}
