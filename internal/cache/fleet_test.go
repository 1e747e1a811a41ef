package cache_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// await waits for something that another goroutine or process brings about.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !happened() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// replica is a store that runs, as one process of a fleet does.
func replica(t *testing.T, cfg cache.Config) *cache.Store {
	t.Helper()
	if cfg.Redis.ReadTimeout == 0 {
		cfg.Redis.ReadTimeout, cfg.Redis.WriteTimeout = 5*time.Second, 5*time.Second // for a busy machine
	}
	store := running(t, cfg)
	await(t, "heartbeats", store.Works)
	return store
}

// running is a store that runs, whether or not its Redis works.
func running(t *testing.T, cfg cache.Config) *cache.Store {
	t.Helper()
	store := bare(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return store
}

var (
	anyEvidence = evidence.Claim{Key: key, Priority: evidence.NewPriority(evidence.LaneCheckout)}
	patient     = evidence.Claim{Key: key}
)

// acquire asks in the background, as the callers of a flight do.
func acquire(store *cache.Store, claim evidence.Claim) <-chan evidence.Acquisition {
	answer := make(chan evidence.Acquisition, 1)
	go func() { answer <- store.Acquire(context.Background(), claim) }()
	return answer
}

func mustAcquire(t *testing.T, store *cache.Store, claim evidence.Claim) {
	t.Helper()
	if got := store.Acquire(context.Background(), claim); got.Evidence != nil || got.Err != nil {
		t.Fatalf("%+v, want the lead", got)
	}
}

// mustBe compares evidence, whichever tier it came through.
func mustBe(t *testing.T, what string, want, got *eligibility.Evidence) {
	t.Helper()
	if diff := cmp.Diff(want, got, cachetest.Compare()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestMessagesReplaceOlderEvidence(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	old := allowed(time.Now().Add(-time.Second))
	one.Put(key, old)
	two.Put(key, old)
	news := blocked(time.Now())
	one.Put(key, news)
	began := time.Now()
	one.Share(context.Background(), key, news, began.Add(time.Hour))
	await(t, "the announcement", func() bool { return cache.Peek(two, key).Evidence.Status == eligibility.AccountStatusNotAllowed })
	if took := time.Since(began); took > time.Second {
		t.Logf("the announcement took %v", took)
	}
	mustBe(t, "the other replica", news, cache.Peek(two, key).Evidence)
	if cache.Peek(two, key).MustRevalidate {
		t.Error("an announcement is not trusted")
	}
}

// If newer evidence was announced, the result of a slow fetch or of a read in flight
// must not replace it.
func TestTombstonesRejectOlderResultsInFlight(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	var clock clock
	cfg := at(server, start)
	clock.in(&cfg)
	one, two := newStore(t, cfg), newStore(t, cfg)
	ctx := context.Background()
	old, news := allowed(start.Add(-time.Second)), blocked(start)
	one.Share(ctx, key, old, start.Add(time.Hour))
	two.Receive(cache.EvidenceMessage(key, news))
	if kept := two.Put(key, old); kept != nil {
		t.Errorf("kept %+v", kept)
	}
	if found := load(two); found.Evidence != nil {
		t.Errorf("loaded %+v", found.Evidence)
	}
	if found := cache.Peek(two, key); found.Evidence != nil {
		t.Errorf("holds %+v", found.Evidence)
	}
	one.Share(ctx, key, news, start.Add(time.Hour))
	mustBe(t, "Load", news, load(two).Evidence)
	mustBe(t, "Put of older evidence", news, two.Put(key, old))
}

func TestTombstonesBeyondTheBoundRejectByTheirTime(t *testing.T) {
	t.Parallel()
	store := newStore(t, at(cachetest.StartRedis(t), start))
	news := blocked(start)
	for i := range 5000 {
		store.Receive(cache.EvidenceMessage(eligibility.Key{CustomerID: eligibility.CustomerID{byte(i), byte(i >> 8)}}, news))
	}
	for i := range 5000 {
		key := eligibility.Key{CustomerID: eligibility.CustomerID{byte(i), byte(i >> 8)}}
		if kept := store.Put(key, allowed(start.Add(-1))); kept != nil {
			t.Fatalf("customer %d: kept what is older than announced", i)
		}
	}
}

// If a heartbeat arrives after the caller has read the clock, the entry needs no
// revalidation.
func TestTrustBearsACallersOlderClock(t *testing.T) {
	t.Parallel()
	var clock clock
	cfg := at(cachetest.StartRedis(t), start)
	clock.in(&cfg)
	store := newStore(t, cfg)
	store.Healthy()
	store.Put(key, allowed(start))
	clock.set(1400 * time.Millisecond)
	store.Healthy()
	if store.Peek(key, start.Add(1350*time.Millisecond)).MustRevalidate {
		t.Error("untrusted 50 ms before a sign of life")
	}
	if !store.Peek(key, start.Add(1250*time.Millisecond)).MustRevalidate {
		t.Error("trusted by a clock that was set back")
	}
}

// If its subscription fails, a replica serves entries for less than a second without
// revalidation. A new subscription may have missed messages.
func TestTrustEndsWithTheSubscription(t *testing.T) {
	t.Parallel()
	var clock clock
	cfg := at(cachetest.StartRedis(t), start)
	clock.in(&cfg)
	store := newStore(t, cfg)
	store.Put(key, allowed(start))
	clock.set(cache.UnsubscribedAge - 1)
	if cache.Peek(store, key).MustRevalidate {
		t.Error("untrusted at once")
	}
	clock.set(cache.UnsubscribedAge)
	if !cache.Peek(store, key).MustRevalidate {
		t.Error("trusted without a subscription")
	}
	store.Healthy()
	if cache.Peek(store, key).MustRevalidate {
		t.Error("untrusted although the subscription lives")
	}
	store.Resubscribe()
	if !cache.Peek(store, key).MustRevalidate {
		t.Error("trusted although something may have been missed")
	}
	store.Share(context.Background(), key, allowed(start), start.Add(time.Hour))
	if found := load(store); found.MustRevalidate || cache.Peek(store, key).MustRevalidate {
		t.Error("untrusted although Redis has confirmed it")
	}
}

func TestOneReplicaFetchesAndTheOthersGetItsEvidence(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	ctx := context.Background()
	mustAcquire(t, one, anyEvidence)
	waiting := []<-chan evidence.Acquisition{acquire(two, anyEvidence), acquire(two, anyEvidence), acquire(two, patient)}
	await(t, "the wait", func() bool { return cache.Waiting(two) == 3 })
	evidence := allowed(time.Now())
	one.Share(ctx, key, evidence, time.Now().Add(time.Hour))
	for _, answer := range waiting {
		got := <-answer
		mustBe(t, "the other replica", evidence, got.Evidence)
	}
	mustBe(t, "kept there", evidence, cache.Peek(two, key).Evidence)
	// A later claim finds it in Redis; a claim for newer evidence acquires the lease.
	mustBe(t, "a third replica", evidence, newStore(t, sharing(server, "p")).Acquire(ctx, anyEvidence).Evidence)
	newer := anyEvidence
	newer.NotBefore = evidence.FetchTime.Add(1)
	mustAcquire(t, two, newer)
}

func TestAClaimForNewerEvidenceAcquiresAfterAnEarlierFetch(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	mustAcquire(t, one, anyEvidence)
	fetched := allowed(time.Now().Add(-time.Second))
	now := anyEvidence
	now.NotBefore = fetched.FetchTime.Add(time.Millisecond)
	answer := acquire(two, now)
	await(t, "the wait", func() bool { return cache.Waiting(two) == 1 })
	one.Share(context.Background(), key, fetched, time.Now().Add(time.Hour))
	if got := <-answer; got.Evidence != nil || got.Err != nil {
		t.Errorf("%+v, want the lead", got)
	}
}

func TestAFailureIsSharedByThoseWhoWaited(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	unsubscribed := newStore(t, sharing(server, "p"))
	for kind, pause := range map[eligibility.Kind]time.Duration{
		eligibility.KindThrottled: 17 * time.Second, eligibility.KindUnavailable: time.Second,
		eligibility.KindCredentials: 0, eligibility.KindInvalidResponse: 0,
	} {
		mustAcquire(t, one, anyEvidence)
		unsubscribed.Healthy()
		waiting := []<-chan evidence.Acquisition{acquire(two, anyEvidence), acquire(unsubscribed, anyEvidence)}
		await(t, "the wait", func() bool { return cache.Waiting(two)+cache.Waiting(unsubscribed) == 2 })
		failure := &eligibility.Error{Kind: kind, RetryAfter: pause, Call: eligibility.Call{Attempts: 1}, Err: errors.New("a secret cause")}
		one.Release(context.Background(), key, failure)
		for _, answer := range waiting {
			got, ok := (<-answer).Err.(*eligibility.Error) //nolint:errorlint // the port promises this very type
			if !ok || got.Kind != kind || got.RetryAfter != pause {
				t.Errorf("%v: %+v", kind, got)
			}
		}
		// It is no evidence: the next claim is for a fetch of its own.
		mustAcquire(t, two, anyEvidence)
		two.Release(context.Background(), key, nil)
	}
}

// If a failure concerns the holder alone, only its lease ends.
func TestAFailureOfTheHolderAloneReleasesTheLease(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	for _, failure := range []error{
		nil,
		&eligibility.Error{Kind: eligibility.KindThrottled},
		&eligibility.Error{Kind: eligibility.KindInternal, Call: eligibility.Call{Attempts: 1}},
	} {
		mustAcquire(t, one, anyEvidence)
		answer := acquire(two, anyEvidence)
		await(t, "the wait", func() bool { return cache.Waiting(two) == 1 })
		one.Release(context.Background(), key, failure)
		if got := <-answer; got != (evidence.Acquisition{}) {
			t.Errorf("%v: %+v, want the lead", failure, got)
		}
		two.Release(context.Background(), key, nil)
	}
}

func TestAnotherTakesOverFromAHolderThatDied(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := sharing(server, "p")
	cfg.Registerer = registry
	dead, two := newStore(t, sharing(server, "p")), replica(t, cfg)
	mustAcquire(t, dead, anyEvidence)
	began := time.Now()
	mustAcquire(t, two, anyEvidence)
	if took := time.Since(began); took < cache.LeaseLife/2 {
		t.Errorf("took over after %v, within the lease's life", took)
	}
	if n := gathered(t, registry, "eligibility_cache_lease_takeovers_total"); n != 1 {
		t.Errorf("%v take-overs counted", n)
	}
	// If it was not dead but slow, it neither overwrites newer evidence nor ends the
	// lease, which belongs to another replica now.
	late, news := allowed(began.Add(-time.Second)), blocked(time.Now())
	dead.Share(context.Background(), key, late, began.Add(time.Hour))
	three := replica(t, sharing(server, "p"))
	later := anyEvidence
	later.NotBefore = began
	answer := acquire(three, later)
	await(t, "the wait", func() bool { return cache.Waiting(three) == 1 })
	two.Share(context.Background(), key, news, began.Add(time.Hour))
	mustBe(t, "the third replica", news, (<-answer).Evidence)
	dead.Share(context.Background(), key, late, began.Add(time.Hour))
	mustBe(t, "Redis", news, load(three).Evidence)
}

// A fetch may take longer than a lease lives.
func TestAHolderThatLivesKeepsItsLease(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	mustAcquire(t, one, anyEvidence)
	awaitRenewed(t, server, one)
	ctx, cancel := context.WithTimeout(context.Background(), cache.LeaseLife/2)
	defer cancel()
	got := two.Acquire(ctx, anyEvidence)
	if failure, ok := errors.AsType[*eligibility.Error](got.Err); !ok || failure.Kind != eligibility.KindUnavailable {
		t.Errorf("%+v, want to have waited in vain", got)
	}
}

// awaitRenewed waits until a lease of a store has lived longer than one that is not
// renewed. On a busy machine the store may lose it, and acquires it again.
func awaitRenewed(t *testing.T, server *cachetest.Redis, store *cache.Store) {
	t.Helper()
	client := server.Client()
	defer func() { _ = client.Close() }()
	acquired := time.Now()
	await(t, "a lease that was renewed", func() bool {
		if client.PTTL(ctx, rawKey()+":lease").Val() > 0 {
			return time.Since(acquired) > 2*cache.LeaseLife
		}
		store.Release(ctx, key, nil)
		mustAcquire(t, store, anyEvidence)
		acquired = time.Now()
		return false
	})
}

// An interactive check never queues behind another replica's batch for long.
func TestACheckoutClaimPreemptsABackgroundLease(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	mustAcquire(t, one, patient)
	ctx, cancel := context.WithTimeout(context.Background(), 2*cache.BackgroundPatience)
	defer cancel()
	if got := two.Acquire(ctx, patient); got.Err == nil {
		t.Errorf("%+v: background work took the lead from background work", got)
	}
	mustAcquire(t, two, anyEvidence)
}

func TestEachProcessFetchesAloneWithoutRedis(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := sharing(server, "p")
	cfg.Redis.ReadTimeout = 50 * time.Millisecond
	store := newStore(t, cfg)
	server.Stall()
	mustAcquire(t, store, anyEvidence)
	server.Kill()
	mustAcquire(t, store, anyEvidence)
	mustAcquire(t, newStore(t, cache.Config{}), anyEvidence)
}

// If Redis refused or may have lost evidence, it gets it when it is back.
func TestTheOutboxIsFlushedWhenRedisIsBack(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one := replica(t, sharing(server, "p"))
	shared, unshared := key, eligibility.Key{CustomerID: eligibility.CustomerID{2}}
	one.Share(context.Background(), shared, allowed(time.Now()), time.Now().Add(time.Hour))
	server.Kill()
	one.Share(context.Background(), unshared, blocked(time.Now()), time.Now().Add(time.Hour))
	server.Start() // empty
	two := newStore(t, sharing(server, "p"))
	await(t, "sharing again", func() bool {
		founds := two.Load(context.Background(), []eligibility.Key{shared, unshared})
		return founds[0].Evidence != nil && founds[1].Evidence != nil
	})
}

// While Redis hangs, not every caller waits to find that out.
func TestTheCircuitBreakerOpensAfterFaultsInARow(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := sharing(server, "p")
	cfg.Redis.ReadTimeout, cfg.Registerer = 500*time.Millisecond, registry
	var clock clock
	clock.in(&cfg)
	store := newStore(t, cfg)
	load(store)
	server.Stall()
	for range 100 {
		load(store)
	}
	if n := gathered(t, registry, faultsTotal); n != 5 {
		t.Errorf("%v faults, want 5 and a pause", n)
	}
	server.Resume()
	clock.set(time.Second)
	store.Share(context.Background(), key, allowed(start), start.Add(time.Hour))
	if found := load(store); found.Tier != eligibility.TierRedis {
		t.Errorf("after the pause: %+v", found)
	}
}

func TestUnreadableMessagesAreIgnoredAndCounted(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := sharing(server, "p")
	cfg.Registerer = registry
	store := replica(t, cfg)
	held := allowed(time.Now())
	store.Put(key, held)
	good := cache.EvidenceMessage(key, blocked(time.Now()))
	client := server.Client()
	defer func() { _ = client.Close() }()
	channel := client.PubSubChannels(context.Background(), "*:messages").Val()
	if len(channel) != 1 {
		t.Fatalf("channels %v", channel)
	}
	spoilt := [][]byte{nil, {1}, good[:18], good[:len(good)-1], append(slices.Clone(good), 0), cache.EvidenceMessage(key, blocked(time.Now().Add(time.Hour)))}
	for i := range good {
		damaged := slices.Clone(good)
		damaged[i] ^= 0x80
		spoilt = append(spoilt, damaged)
	}
	for _, payload := range spoilt {
		publish(t, client, channel[0], payload)
	}
	await(t, "the last one", func() bool {
		return gathered(t, registry, "eligibility_cache_unreadable_messages_total") >= float64(len(spoilt)-1)
	})
	if cache.Peek(store, key).Evidence != held {
		t.Error("a spoilt announcement was believed")
	}
}

func publish(t *testing.T, client *redis.Client, channel string, payload []byte) {
	t.Helper()
	if err := client.Publish(context.Background(), channel, payload).Err(); err != nil {
		t.Fatal(err)
	}
}

// A fetch in flight elsewhere cannot serve a claim for evidence of a later date,
// so the claim must not wait for it.
func TestAClaimForEvidenceStillToComeDoesNotWait(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	mustAcquire(t, one, anyEvidence)
	now := anyEvidence
	now.NotBefore = time.Now().Add(time.Minute)
	waiting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if got := two.Acquire(waiting, now); got != (evidence.Acquisition{}) {
		t.Errorf("%+v: waited for a fetch that cannot serve", got)
	}
}

// If the caller's time ends while a claim is on its way to Redis, another replica
// still fetches: the caller must not fetch beside it.
func TestAClaimThatOutlivesItsCallerIsInVain(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), newStore(t, sharing(server, "p"))
	mustAcquire(t, one, anyEvidence)
	waiting, leave := context.WithCancel(ctx)
	defer leave()
	var claims atomic.Int32
	two.AddHook(eachCommand(func(name string) {
		if strings.HasPrefix(name, "evalsha") && claims.Add(1) == 2 { // after it has waited once
			leave()
		}
	}))
	if got := two.Acquire(waiting, anyEvidence); got.Err == nil {
		t.Errorf("%+v, want to have waited in vain", got)
	}
}
