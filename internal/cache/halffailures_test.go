package cache_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

var ctx = context.Background()

func share(store *cache.Store, evidence *eligibility.Evidence) {
	store.Put(key, evidence)
	store.Share(ctx, key, evidence, evidence.FetchTime.Add(time.Hour))
}

// within fails the test if something takes longer than limit.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > limit {
		t.Errorf("%s took %v, want at most %v", what, took, limit)
	} else {
		t.Logf("%s took %v", what, took)
	}
}

func rawKey() string {
	return "p:v2:global:partner:{" + cache.PartitionTag(key) + "}:abcd0000000000000000000000000000:account"
}

// A Redis that serves reads and refuses writes must not let any replica go on
// with what another has replaced.
func TestRefusedWritesKeepNoOlderEvidenceFresh(t *testing.T) {
	t.Parallel()
	for _, code := range cachetest.Refusals() {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			server := cachetest.StartRedis(t)
			one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
			share(one, allowed(time.Now()))
			if found := load(two); found.Evidence == nil || found.MustRevalidate {
				t.Fatalf("while Redis works: %+v", found)
			}
			server.RefuseWrites(code)
			share(one, blocked(time.Now()))
			within(t, 10*time.Second, "the message", func() {
				await(t, "the message", func() bool { return cache.Peek(two, key).Evidence.Status == eligibility.AccountStatusNotAllowed })
			})
			// A replica that missed the message has nothing but the reads of Redis.
			registry := prometheus.NewRegistry()
			cfg := sharing(server, "p")
			cfg.Registerer = registry
			three := bare(t, cfg)
			three.Heartbeat(ctx)
			if found := load(three); found.Evidence == nil || !found.MustRevalidate {
				t.Errorf("refused writes confirm %+v", found)
			}
			mustAcquire(t, three, anyEvidence) // nor does a claim return it
			if n := gathered(t, registry, "eligibility_cache_redis_writable"); n != 0 {
				t.Errorf("writable: %v", n)
			}
			server.AcceptWrites()
			within(t, 10*time.Second, "the repair", func() {
				await(t, "the repair", func() bool {
					three.Heartbeat(ctx)
					found := load(three)
					return found.Evidence.Status == eligibility.AccountStatusNotAllowed && !found.MustRevalidate
				})
			})
		})
	}
}

// A replica that sees older evidence in Redis than it holds repairs Redis, and the
// other replicas.
func TestOlderEvidenceInRedisIsWrittenOver(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	client := server.Client()
	defer func() { _ = client.Close() }()
	share(one, allowed(time.Now().Add(-2*time.Second)))
	older := client.Get(ctx, rawKey()).Val()
	share(one, blocked(time.Now()))
	client.Set(ctx, rawKey(), older, time.Hour)
	if found := load(one); found.Evidence.Status != eligibility.AccountStatusNotAllowed || found.Tier != eligibility.TierLocal {
		t.Errorf("the replica that knows better: %+v", found)
	}
	within(t, 10*time.Second, "the repair", func() {
		await(t, "the repair", func() bool { return client.Get(ctx, rawKey()).Val() != older })
	})
	if found := load(two); found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("the other replica: %+v", found)
	}
}

// After Redis has lost writes, its contents are usable, not fresh.
func TestAfterALossOfWritesNothingOlderIsFresh(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	cfg := sharing(server, "p")
	cfg.Registerer = registry
	one := replica(t, cfg)
	client := server.Client()
	defer func() { _ = client.Close() }()
	share(one, allowed(time.Now().Add(-time.Second)))
	older := client.Get(ctx, rawKey()).Val()
	share(one, blocked(time.Now()))
	// The server restarts, and somebody restores an old backup into it. The replica
	// that knew better is gone.
	server.Flush()
	client.Set(ctx, rawKey(), older, time.Hour)
	await(t, "its discovery", func() bool { return gathered(t, registry, "eligibility_cache_lost_writes_total") == 1 })
	late := bare(t, sharing(server, "p"))
	late.Heartbeat(ctx)
	if found := load(late); found.Evidence != nil && found.Evidence.Status == eligibility.AccountStatusAllowed && !found.MustRevalidate {
		t.Errorf("lost writes confirm %+v", found)
	}
	if got := late.Acquire(ctx, anyEvidence); got.Evidence != nil && got.Evidence.Status == eligibility.AccountStatusAllowed {
		t.Errorf("a claim returns %+v", got)
	}
	late.Release(ctx, key, nil)
	await(t, "trust in new evidence", func() bool {
		share(one, blocked(time.Now()))
		late.Heartbeat(ctx)
		found := load(late)
		return found.Evidence.Status == eligibility.AccountStatusNotAllowed && !found.MustRevalidate
	})
}

func TestFlushWritesWhatAnOutageLeft(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store := newStore(t, sharing(server, "p"))
	server.Kill()
	share(store, blocked(time.Now()))
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if left := store.Flush(short); left != 1 {
		t.Errorf("%d writes left without Redis, want 1", left)
	}
	server.Start()
	long, cancelLong := context.WithTimeout(ctx, 10*time.Second)
	defer cancelLong()
	if left := store.Flush(long); left != 0 {
		t.Errorf("%d writes left", left)
	}
	if found := load(newStore(t, sharing(server, "p"))); found.Evidence == nil {
		t.Error("not stored")
	}
}

// If the outbox overflows, nothing that Redis still holds counts as fresh when it
// is back.
func TestAFullOutboxCountsAsLostWrites(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	registry := prometheus.NewRegistry()
	logs, records := observer.New(zapcore.WarnLevel)
	cfg := sharing(server, "p")
	cfg.Registerer, cfg.Logger = registry, zap.New(logs)
	one := bare(t, cfg)
	one.Heartbeat(ctx)
	share(one, allowed(time.Now()))
	server.RefuseWrites("NOREPLICAS")
	for i := range cache.MaxOutbox + 1 {
		id := eligibility.CustomerID{1, byte(i), byte(i >> 8)}
		one.AddToOutbox(eligibility.Key{CustomerID: id}, blocked(time.Now()))
	}
	if n := gathered(t, registry, "eligibility_cache_outbox_dropped_total"); n != 1 {
		t.Errorf("%v dropped, want 1", n)
	}
	if records.FilterMessageSnippet("redis").Len() == 0 {
		t.Error("not logged")
	}
	server.AcceptWrites()
	one.Heartbeat(ctx)
	two := bare(t, sharing(server, "p"))
	two.Heartbeat(ctx)
	if found := load(two); found.Evidence == nil || !found.MustRevalidate {
		t.Errorf("confirmed after an overflow: %+v", found)
	}
}

// A process may stop between any two commands.
func TestStoringAndPublishingIsOneCommand(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := newStore(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	share(one, allowed(time.Now().Add(-time.Second))) // loads the script
	load(two)
	var commands atomic.Int32
	one.AddHook(eachCommand(func(string) { commands.Add(1) }))
	share(one, blocked(time.Now()))
	await(t, "the message", func() bool { return cache.Peek(two, key).Evidence.Status == eligibility.AccountStatusNotAllowed })
	if n := commands.Load(); n != 1 {
		t.Errorf("%d commands, want 1", n)
	}
}

// eachCommand is a hook that calls a function before each command.
type eachCommand func(name string)

func (f eachCommand) DialHook(next redis.DialHook) redis.DialHook { return next }
func (f eachCommand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (f eachCommand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		f(cmd.Name())
		return next(ctx, cmd)
	}
}

// keyed is a configuration with an integrity key.
func keyed(server *cachetest.Redis, keys ...string) cache.Config {
	cfg := sharing(server, "p")
	cfg.Redis.IntegrityKey = []byte(keys[0])
	if len(keys) > 1 {
		cfg.Redis.PreviousIntegrityKey = []byte(keys[1])
	}
	return cfg
}

func TestWithoutTheIntegrityKeyNothingIsBelieved(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	registry := prometheus.NewRegistry()
	cfg := keyed(server, "the right key, thirty-two bytes!")
	cfg.Registerer = registry
	store := replica(t, cfg)
	forged := newStore(t, sharing(server, "p")) // writes and leases without a key
	genuine := blocked(time.Now().Add(-time.Second))

	share(forged, allowed(time.Now()))
	if found := load(store); found.Evidence != nil {
		t.Errorf("a forged value: %+v", found)
	}
	share(forged, allowed(time.Now()))
	share(store, genuine)
	if found := load(newStore(t, keyed(server, "the right key, thirty-two bytes!"))); found.Evidence == nil || found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("a forged newer value keeps evidence out: %+v", found)
	}

	publish(t, client, "p:v2:global:partner:messages", cache.EvidenceMessage(key, allowed(time.Now())))
	await(t, "the forged message", func() bool { return gathered(t, registry, "eligibility_cache_unreadable_messages_total") > 0 })
	if found := cache.Peek(store, key); found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("a forged message: %+v", found)
	}

	forged.Heartbeat(ctx)
	other := anyEvidence
	other.CustomerID = eligibility.CustomerID{7}
	if got := forged.Acquire(ctx, other); got.Evidence != nil || got.Err != nil {
		t.Fatalf("%+v", got)
	}
	lease := strings.Replace(rawKey(), "abcd", "0700", 1) + ":lease"
	if !client.PExpire(ctx, strings.Replace(lease, cache.PartitionTag(key), cache.PartitionTag(other.Key), 1), 2*time.Second).Val() {
		t.Fatal("no forged lease")
	}
	within(t, 1500*time.Millisecond, "a claim against a forged lease", func() {
		if got := store.Acquire(ctx, other); got.Evidence != nil || got.Err != nil {
			t.Errorf("%+v", got)
		}
	})
	if n := gathered(t, registry, "eligibility_cache_unreadable_values_total"); n < 3 {
		t.Errorf("%v unreadable values counted, want at least 3", n)
	}
}

func TestIntegrityKeysRotate(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	const former, latter = "the former key, thirty-two bytes", "the latter key, thirty-two bytes"
	share(newStore(t, keyed(server, former)), blocked(time.Now()))
	if found := load(newStore(t, keyed(server, latter, former))); found.Evidence == nil {
		t.Error("a value of the previous key is not read")
	}
	share(newStore(t, keyed(server, latter, former)), allowed(time.Now()))
	if found := load(newStore(t, keyed(server, former, latter))); found.Evidence == nil {
		t.Error("a value of the next key is not read")
	}
	if found := load(newStore(t, keyed(server, latter))); found.Evidence == nil {
		t.Error("a value of the new key is not read")
	}
	if found := load(newStore(t, keyed(server, former))); found.Evidence != nil {
		t.Error("a value of a key that is not configured is read")
	}
}

// Messages from a clock that is ahead must not suppress a block that this process
// has just fetched, however often they come.
func TestMessagesFromAheadDoNotSuppressABlock(t *testing.T) {
	t.Parallel()
	var clock clock
	cfg := at(cachetest.StartRedis(t), start)
	clock.in(&cfg)
	store := newStore(t, cfg)
	for i := range 50 {
		now := time.Duration(i) * 100 * time.Millisecond
		clock.set(now)
		store.Healthy()
		store.Receive(cache.EvidenceMessage(key, allowed(start.Add(now+900*time.Millisecond))))
		if found := cache.Peek(store, key); found.Evidence != nil && found.Evidence.Status == eligibility.AccountStatusAllowed && !found.MustRevalidate {
			t.Fatalf("%v: evidence from ahead is trusted: %+v", now, found)
		}
		if i%4 != 3 {
			continue
		}
		own := blocked(time.Time{})
		if i%8 == 3 {
			own.Status, own.StatusText = eligibility.AccountStatusUnderReview, "UnderReview"
		}
		own.SetFetchTime(start.Add(now - 200*time.Millisecond))
		if kept := store.Put(key, own); kept != own {
			t.Fatalf("%v: suppressed by %+v", now, kept)
		}
		store.Receive(cache.EvidenceMessage(key, allowed(start.Add(now+900*time.Millisecond))))
		if found := cache.Peek(store, key); found.Evidence != own || !found.MustRevalidate {
			t.Fatalf("%v: replaced by, or trusted against, doubtful evidence: %+v", now, found)
		}
	}
	// A review, during which a policy may let some orders pass, yields to a block.
	clock.set(10 * time.Second)
	store.Healthy()
	review := blocked(time.Time{})
	review.Status, review.StatusText = eligibility.AccountStatusUnderReview, "UnderReview"
	review.SetFetchTime(start.Add(10*time.Second - 200*time.Millisecond))
	store.Put(key, review)
	store.Receive(cache.EvidenceMessage(key, blocked(start.Add(10*time.Second+900*time.Millisecond))))
	if found := cache.Peek(store, key); found.Evidence == nil || found.Evidence.Status != eligibility.AccountStatusNotAllowed || !found.MustRevalidate {
		t.Errorf("a review stands against a block: %+v", found)
	}
	// Either is replaced by what is surely newer.
	clock.set(20 * time.Second)
	store.Receive(cache.EvidenceMessage(key, allowed(start.Add(20*time.Second))))
	if found := cache.Peek(store, key); found.Evidence.Status != eligibility.AccountStatusAllowed {
		t.Errorf("newer evidence: %+v", found)
	}
}

// A new connection takes three round trips, a caller has time for one.
func TestAFarRedisIsUsedFromTheFirstCall(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	share(newStore(t, sharing(server, "p")), allowed(time.Now()))
	proxy := cachetest.StartProxy(t, server)
	const delay = 200 * time.Millisecond
	proxy.SetDelay(delay)
	cfg := sharing(server, "p")
	cfg.Redis.Addresses = []string{proxy.Address}
	// Enough for a round trip on a busy machine, not for the three of a new connection.
	cfg.Redis.ReadTimeout = 5 * delay / 2
	store := running(t, cfg)
	<-store.Connected()
	misses := 0
	for range 10 {
		if found := load(store); found.Evidence == nil || found.Tier != eligibility.TierRedis {
			misses++
		}
	}
	if misses > 5 { // a busy machine may be late
		t.Errorf("%d of 10 reads missed", misses)
	}
}

// Before a caller is refused, Redis gets all the time that the caller has.
func TestLoadWithinWaitsForALateRedis(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	share(newStore(t, sharing(server, "p")), blocked(time.Now()))
	proxy := cachetest.StartProxy(t, server)
	cfg := sharing(server, "p")
	cfg.Redis.Addresses = []string{proxy.Address}
	cfg.Redis.ReadTimeout = 20 * time.Millisecond
	store := newStore(t, cfg)
	proxy.SetDelay(200 * time.Millisecond)
	for range 10 { // opens the circuit breaker
		if found := load(store); found.Evidence != nil {
			t.Fatalf("found in time: %+v", found)
		}
	}
	patient, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if found := store.LoadWithin(patient, []eligibility.Key{key})[0]; found.Evidence == nil {
				t.Error("refused in spite of the evidence in Redis")
			}
		})
	}
	callers.Wait()
	short, cancelShort := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelShort()
	proxy.SetDelay(time.Minute)
	within(t, 1500*time.Millisecond, "a caller without time", func() { store.LoadWithin(short, []eligibility.Key{key}) })
}

// Claims and writes that hang, or are refused, do not stop reads.
func TestClaimsThatHangDoNotStopReads(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	cfg := sharing(server, "p")
	cfg.Redis.WriteTimeout = 100 * time.Millisecond
	store := newStore(t, cfg)
	share(store, allowed(time.Now()))
	release := make(chan struct{})
	store.AddHook(eachCommand(func(name string) {
		if strings.HasPrefix(name, "eval") {
			<-release
		}
	}))
	var claims sync.WaitGroup
	for i := range 64 {
		claims.Go(func() {
			claim := anyEvidence
			claim.CustomerID = eligibility.CustomerID{byte(i), 1} //nolint:gosec // below 64
			store.Acquire(ctx, claim)
		})
	}
	within(t, 10*time.Second, "reads", func() {
		for range 20 {
			if found := load(store); found.Tier != eligibility.TierRedis {
				t.Fatalf("beside claims that hang: %+v", found)
			}
		}
	})
	close(release)
	claims.Wait()
}

// A subscription that is refused is no evidence about reads and writes.
func TestWithoutASubscriptionRedisIsReadAgain(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	if err := client.Do(ctx, "ACL", "SETUSER", "gate", "on", ">word", "~*", "resetchannels", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	cfg := sharing(server, "p")
	cfg.Redis.Username, cfg.Redis.Password = "gate", "word"
	one := running(t, cfg)
	cfg.Registerer = registry
	two := running(t, cfg)
	await(t, "heartbeats", func() bool { return gathered(t, registry, "eligibility_cache_redis_writable") == 1 })
	if n := gathered(t, registry, "eligibility_cache_redis_subscribed"); n != 0 {
		t.Errorf("subscribed: %v", n)
	}
	for i := range 10 {
		evidence := allowed(time.Now())
		if i%2 == 0 {
			evidence = blocked(time.Now())
		}
		share(one, evidence)
		if found := load(two); found.Tier != eligibility.TierRedis || found.MustRevalidate || found.Evidence.Status != evidence.Status {
			t.Fatalf("Redis is not used: %+v", found)
		}
	}
	within(t, 10*time.Second, "mistrust of the local tier", func() {
		await(t, "mistrust", func() bool { return cache.Peek(two, key).MustRevalidate })
	})
}

// A replica that may not publish makes the others read Redis again.
func TestAReplicaThatMayNotPublishSilencesNobody(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	if err := client.Do(ctx, "ACL", "SETUSER", "mute", "on", ">word", "~*", "resetchannels", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	two := replica(t, sharing(server, "p"))
	share(two, allowed(time.Now()))
	cfg := sharing(server, "p")
	cfg.Redis.Username, cfg.Redis.Password = "mute", "word"
	one := running(t, cfg)
	await(t, "the mark", func() bool { return !two.Works() })
	share(one, blocked(time.Now()))
	within(t, 10*time.Second, "mistrust of the local tier", func() {
		await(t, "mistrust", func() bool { return cache.Peek(two, key).MustRevalidate })
	})
	if found := load(two); found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("found %+v", found)
	}
}

// After the clock was set back, what was announced before must not keep out what
// is fetched now.
func TestAClockSetBackKeepsNothingOut(t *testing.T) {
	t.Parallel()
	var clock clock
	cfg := at(cachetest.StartRedis(t), start)
	clock.in(&cfg)
	store := newStore(t, cfg)
	store.Receive(cache.EvidenceMessage(key, allowed(start)))
	share(store, allowed(start))
	clock.set(-time.Hour)
	store.Healthy()
	own := blocked(time.Time{})
	own.SetFetchTime(start.Add(-time.Hour))
	if kept := store.Put(key, own); kept != own {
		t.Fatalf("kept %+v", kept)
	}
	share(store, own)
	if found := load(store); found.Evidence == nil || found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("found %+v", found)
	}
	if found := load(newStore(t, cfg)); found.Evidence == nil || found.Evidence.Status != eligibility.AccountStatusNotAllowed {
		t.Errorf("in Redis: %+v", found)
	}
}

// If Redis holds less than was announced and no replica fetches, a claim acquires the
// lease.
func TestAClaimDoesNotWaitForWhatRedisHasLost(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := newStore(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	share(one, allowed(time.Now().Add(-time.Second)))
	two.Receive(cache.EvidenceMessage(key, blocked(time.Now())))
	within(t, 10*time.Second, "the claim", func() { mustAcquire(t, two, anyEvidence) })
}

// A lease that does not have the form of ours delays no claim.
func TestForeignLeasesAreTakenOver(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	holder, store := newStore(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	mustAcquire(t, holder, anyEvidence)
	lease := rawKey() + ":lease"
	ours := client.Get(ctx, lease).Val()
	for what, foreign := range map[string]func(){
		"without expiry":   func() { client.Set(ctx, lease, ours, 0) },
		"for an hour":      func() { client.Set(ctx, lease, ours, time.Hour) },
		"another state":    func() { client.Set(ctx, lease, "x"+ours[1:], 2*time.Second) },
		"another level":    func() { client.Set(ctx, lease, "hx"+ours[2:], 2*time.Second) },
		"a damaged seal":   func() { client.Set(ctx, lease, ours[:len(ours)-1]+"\x00", 2*time.Second) },
		"too short":        func() { client.Set(ctx, lease, ours[:18], 2*time.Second) },
		"too long":         func() { client.Set(ctx, lease, ours+strings.Repeat("x", 100), 2*time.Second) },
		"a failed lease":   func() { client.Set(ctx, lease, "f"+ours[1:], 2*time.Second) },
		"a list":           func() { client.Del(ctx, lease); client.LPush(ctx, lease, "x") },
		"an empty string":  func() { client.Set(ctx, lease, "", 0) },
		"a foreign string": func() { client.Set(ctx, lease, "locked by somebody", 0) },
	} {
		foreign()
		within(t, 1500*time.Millisecond, what, func() { mustAcquire(t, store, anyEvidence) })
		store.Release(ctx, key, nil)
	}
}

func TestAnInstantBefore1970FindsEvidence(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store := newStore(t, sharing(server, "p"))
	store.Heartbeat(ctx)
	evidence := allowed(time.Now())
	share(newStore(t, sharing(server, "p")), evidence)
	for _, instant := range []time.Time{time.Unix(-1, 0), time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC), {}} {
		claim := anyEvidence
		claim.NotBefore = instant
		mustBe(t, instant.String(), evidence, store.Acquire(ctx, claim).Evidence)
	}
}

// A server whose replies are malformed costs neither the process nor its memory,
// and the text of its errors reaches no log.
func TestAHostileRedisIsAFault(t *testing.T) {
	t.Parallel()
	const password = "s3cret-of-redis"
	for what, reply := range map[string]string{
		"an echo of the arguments": "-ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `gate` `" + password + "`\r\n",
		"a huge string":            "$9999999999\r\n",
		"a huge array":             "*2000000000\r\n",
		"a huge map":               "%2000000000\r\n",
		"a negative length":        "*-7\r\n",
		"no message":               "*1\r\n:5\r\n",
		"an empty message":         "*0\r\n",
		"a message without a text": "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n:1\r\n",
		"a null message":           "*3\r\n$7\r\nmessage\r\n$-1\r\n$-1\r\n",
		"a short message":          "*2\r\n$7\r\nmessage\r\n$1\r\nc\r\n",
		"a pong without a text":    "*2\r\n$4\r\npong\r\n:1\r\n",
		"a subscription to what":   "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n$1\r\nx\r\n",
		"nested arrays":            strings.Repeat("*1\r\n", 1000) + ":1\r\n",
		"a line without an end":    "+" + strings.Repeat("x", 100_000),
		"noise":                    "\x00\xff\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			logs, records := observer.New(zapcore.DebugLevel)
			registry := prometheus.NewRegistry()
			cfg := cache.Config{Logger: zap.New(logs), Registerer: registry, Redis: cache.RedisConfig{
				Addresses: []string{hostile(t, reply)}, Username: "gate", Password: password, ReadTimeout: 200 * time.Millisecond, WriteTimeout: 200 * time.Millisecond,
			}}
			store := running(t, cfg)
			await(t, "faults", func() bool {
				load(store)
				return gathered(t, registry, faultsTotal) >= 3
			})
			for _, record := range records.All() {
				if text := fmt.Sprint(record.Message, record.ContextMap()); strings.Contains(text, password) {
					t.Errorf("logged: %s", text)
				}
			}
		})
	}
}

// hostile is a server that answers a handshake, and everything else with reply.
func hostile(t *testing.T, reply string) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					switch word := strings.ToLower(lines.Text()); {
					case strings.HasPrefix(word, "*"), strings.HasPrefix(word, "$"):
						continue
					case word == "hello" && !strings.HasPrefix(reply, "-"):
						_, err = conn.Write([]byte("%1\r\n$5\r\nproto\r\n:3\r\n"))
					case word == "client":
						_, err = conn.Write([]byte("+OK\r\n"))
					case word == "getrange", word == "subscribe", word == "evalsha", word == "ping", word == "hello", word == "auth":
						_, err = conn.Write([]byte(reply))
					}
					if err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

// While Redis stores nothing, messages are the only way to newer evidence.
func TestMessagesAreHeldWhileRedisRefusesWrites(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	store := replica(t, sharing(server, "p"))
	store.Receive(cache.EvidenceMessage(key, blocked(time.Now())))
	if found := cache.Peek(store, key); found.Evidence != nil {
		t.Errorf("held although nobody asked: %+v", found)
	}
	server.RefuseWrites("OOM")
	await(t, "the refusal", func() bool { return !store.Works() })
	news := time.Now()
	store.Receive(cache.EvidenceMessage(key, blocked(news)))
	if found := cache.Peek(store, key); found.Evidence == nil || found.MustRevalidate {
		t.Errorf("not held: %+v", found)
	}
	// Messages may come in any order.
	other := eligibility.Key{CustomerID: eligibility.CustomerID{9}}
	store.Receive(cache.EvidenceMessage(other, blocked(news)))
	store.Forget(other.CustomerID)
	store.Receive(cache.EvidenceMessage(other, allowed(news.Add(-time.Second))))
	if found := cache.Peek(store, other); found.Evidence != nil {
		t.Errorf("older evidence is held: %+v", found)
	}
}

// A fetch that a more urgent caller joins keeps its lease.
func TestALeaseRisesWithItsFetch(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	priority := evidence.NewPriority(evidence.LaneBatch)
	mustAcquire(t, one, evidence.Claim{Key: key, Priority: priority})
	priority.Raise(evidence.LaneCheckout)
	client := server.Client()
	defer func() { _ = client.Close() }()
	await(t, "the level in Redis", func() bool { return strings.HasPrefix(client.Get(ctx, rawKey()+":lease").Val(), "hc") })
	waiting, cancel := context.WithTimeout(ctx, 3*cache.BackgroundPatience)
	defer cancel()
	if got := two.Acquire(waiting, anyEvidence); got.Err == nil {
		t.Errorf("%+v: preempted a fetch of the same level", got)
	}
}

// An outbox that hangs does not cost the leases of this replica.
func TestLeasesAreRenewedBesideAnOutboxThatHangs(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one, two := replica(t, sharing(server, "p")), replica(t, sharing(server, "p"))
	mustAcquire(t, one, anyEvidence)
	release, hangs := make(chan struct{}), make(chan struct{})
	var once sync.Once
	one.AddHook(pipelines(func() {
		once.Do(func() { close(hangs) })
		<-release
	}))
	defer close(release)
	one.AddToOutbox(eligibility.Key{CustomerID: eligibility.CustomerID{5}}, blocked(time.Now()))
	<-hangs
	awaitRenewed(t, server, one)
	waiting, cancel := context.WithTimeout(ctx, cache.LeaseLife/2)
	defer cancel()
	if got := two.Acquire(waiting, anyEvidence); got.Err == nil {
		t.Errorf("%+v: took over from a holder that lives", got)
	}
}

// A replica whose clock was set back receives messages from the future. What it holds
// may be out of date.
func TestAMessageFromTheFutureRequiresRevalidation(t *testing.T) {
	t.Parallel()
	store := newStore(t, at(cachetest.StartRedis(t), start))
	store.Put(key, allowed(start))
	store.Receive(cache.EvidenceMessage(key, blocked(start.Add(time.Hour))))
	if found := cache.Peek(store, key); found.Evidence == nil || !found.MustRevalidate {
		t.Errorf("found %+v, want evidence that needs confirmation", found)
	}
}

// If Redis does not confirm evidence, putting it into the local tier, as each check
// does before it answers, does not confirm it either.
func TestKeepingConfirmsNothing(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	one := replica(t, sharing(server, "p"))
	share(one, allowed(time.Now()))
	server.RefuseWrites("NOREPLICAS")
	store := bare(t, sharing(server, "p"))
	store.Heartbeat(ctx)
	found := load(store)
	if found.Evidence == nil || !found.MustRevalidate {
		t.Fatalf("refused writes confirm %+v", found)
	}
	store.Put(key, found.Evidence)
	if found := load(store); !found.MustRevalidate {
		t.Errorf("confirmed by Keep: %+v", found)
	}
}

// copyKeys copies all keys, as replication does.
func copyKeys(t *testing.T, from, to *cachetest.Redis) {
	t.Helper()
	source, target := from.Client(), to.Client()
	defer func() { _, _ = source.Close(), target.Close() }()
	for _, key := range source.Keys(ctx, "*").Val() {
		dump, err := source.Dump(ctx, key).Result()
		if err == nil {
			err = target.RestoreReplace(ctx, key, time.Hour, dump).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Heartbeats that one server stores confirm nothing that is read from another: a
// replica that lags, or one that was promoted unnoticed.
func TestHeartbeatsConfirmTheServerThatIsRead(t *testing.T) {
	t.Parallel()
	for name, connection := range map[string]struct{ reads, claims bool }{
		"reads":  {reads: true},
		"claims": {claims: true},
		"both":   {reads: true, claims: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, stale := cachetest.StartRedis(t), cachetest.StartRedis(t)
			one, two := bare(t, sharing(server, "p")), bare(t, sharing(server, "p"))
			one.Heartbeat(ctx)
			two.Heartbeat(ctx)
			share(one, allowed(time.Now()))
			copyKeys(t, server, stale)
			share(one, blocked(time.Now()))
			began := time.Now()
			await(t, "a later heartbeat", func() bool {
				two.Heartbeat(ctx)
				return time.Since(began) > 10*time.Millisecond
			})
			two.Connect(t, connection.reads, connection.claims, sharing(stale, "p").Redis)
			lead := two.Acquire(ctx, anyEvidence)
			if lead.Err != nil || lead.Evidence != nil && lead.Evidence.Status == eligibility.AccountStatusAllowed {
				t.Errorf("a claim returns %+v", lead)
			}
			found := load(two)
			if found.Evidence != nil && found.Evidence.Status == eligibility.AccountStatusAllowed && !found.MustRevalidate {
				t.Errorf("another server confirms %+v", found)
			}
			if !connection.reads && found.MustRevalidate {
				t.Errorf("the server does not confirm %+v", found)
			}
		})
	}
}

// Between reading what cannot be read and removing it, another replica may store
// evidence.
func TestRemovalSparesWhatHasReplacedTheValue(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	store := newStore(t, sharing(server, "p"))
	share(store, blocked(time.Now()))
	for what, value := range map[string][]byte{"other bytes": []byte("foreign"), "a hash": nil} {
		store.Remove(ctx, key, value)
		if client.Exists(ctx, rawKey()).Val() == 0 {
			t.Fatalf("removed a valid value, which had replaced %s", what)
		}
	}
	for what, foreign := range map[string]struct {
		set   func()
		value []byte
	}{
		"other bytes": {func() { client.Set(ctx, rawKey(), "foreign", 0) }, []byte("foreign")},
		"too long":    {func() { client.SetRange(ctx, rawKey(), 4<<20, "x") }, make([]byte, 4<<20+1)},
		"a hash":      {func() { client.HSet(ctx, rawKey(), "a", "b") }, nil},
	} {
		client.Del(ctx, rawKey())
		foreign.set()
		store.Remove(ctx, key, foreign.value)
		if client.Exists(ctx, rawKey()).Val() != 0 {
			t.Errorf("%s: not removed", what)
		}
	}
}

// A mark that no replica has set, or without expiry, has no effect.
func TestForeignMarksSilenceNobody(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	client := server.Client()
	defer func() { _ = client.Close() }()
	store := replica(t, sharing(server, "p"))
	mark := "p:v2:global:partner:{" + cache.PartitionTag(eligibility.Key{CustomerID: firstOfPartition(t, 0)}) + "}:silent"
	client.Set(ctx, mark, "1", 2*time.Second)
	await(t, "a mark of ours", func() bool { return !store.Works() })
	for what, foreign := range map[string]func(){
		"without expiry": func() { client.Set(ctx, mark, "1", 0) },
		"for an hour":    func() { client.Set(ctx, mark, "1", time.Hour) },
		"another value":  func() { client.Set(ctx, mark, "yes", 2*time.Second) },
		"a list":         func() { client.Del(ctx, mark); client.LPush(ctx, mark, "1") },
	} {
		foreign()
		store.Heartbeat(ctx)
		store.Healthy() // but for the mark
		if !store.Works() {
			t.Errorf("%s: silenced", what)
		}
	}
}

// firstOfPartition is a customer of a partition.
func firstOfPartition(t *testing.T, partition int) eligibility.CustomerID {
	t.Helper()
	for i := range 1 << 16 {
		if id := (eligibility.CustomerID{byte(i), byte(i >> 8)}); cache.PartitionOf(id) == partition {
			return id
		}
	}
	t.Fatal("no customer")
	return eligibility.CustomerID{}
}

// A message from the future replaces nothing that is known of the past: the clock
// that sent it may be the wrong one.
func TestAMessageFromTheFutureRemovesNoTombstone(t *testing.T) {
	t.Parallel()
	var clock clock
	cfg := at(cachetest.StartRedis(t), start)
	clock.in(&cfg)
	store := newStore(t, cfg)
	store.Receive(cache.EvidenceMessage(key, blocked(start)))
	store.Receive(cache.EvidenceMessage(key, allowed(start.Add(time.Hour))))
	if kept := store.Put(key, allowed(start.Add(-time.Second))); kept != nil {
		t.Errorf("kept %+v, which is older than a tombstone", kept)
	}
	// It counts once the clock was right and this process's was wrong.
	clock.set(time.Hour)
	if kept := store.Put(key, allowed(start.Add(time.Hour-time.Second))); kept != nil {
		t.Errorf("kept %+v, which is older than a tombstone", kept)
	}
}

// A read confirms what it returns, even if it takes longer than the local tier's own
// age.
func TestAReadConfirmsForLongerThanTheLocalAge(t *testing.T) {
	t.Parallel()
	server := cachetest.StartRedis(t)
	share(replica(t, sharing(server, "p")), allowed(time.Now()))
	cfg := sharing(server, "p")
	cfg.LocalMaxAge = time.Nanosecond
	if found := load(replica(t, cfg)); found.Evidence == nil || found.MustRevalidate {
		t.Errorf("found %+v, want evidence that Redis has confirmed", found)
	}
}
