package cache

import (
	"context"
	"math"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/budget"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Peek is the store's, at its own time.
func Peek(s *Store, key eligibility.Key) evidence.Found { return s.Peek(key, s.now()) }

// Healthy makes all heartbeats of now succeed and come back, without any I/O.
func (s *Store) Healthy() {
	if s.redis == nil {
		return
	}
	now := s.now().UnixNano()
	for i := range s.redis.health.partitions {
		health := &s.redis.health.partitions[i]
		health.floor.CompareAndSwap(math.MaxInt64, 0)
		health.accepted(now)
		health.returned.Store(now)
	}
}

// Works reports whether heartbeats are stored and come back.
func (s *Store) Works() bool {
	health, now := &s.redis.health.partitions[0], s.now().UnixNano()
	return health.writable(now) && health.subscribed(now)
}

// Receive applies a message as the subscription does.
func (s *Store) Receive(payload []byte) { s.receive(payload, s.now()) }

// RenewLeases is what Run does about leases from time to time.
func (s *Store) RenewLeases(ctx context.Context) { s.renew(ctx) }

// FlushOutbox is what Run does about the outbox.
func (s *Store) FlushOutbox(ctx context.Context) { s.outbox.flush(ctx, s.redis) }

// Resubscribe is what a new subscription brings about.
func (s *Store) Resubscribe() {
	s.redis.health.missed(s.now().UnixNano())
	s.outbox.repeatAll()
	s.Healthy()
}

// The times of the leases and of the trust without a subscription, and the bounds
// of the outbox and of what is kept out.
const (
	LeaseLife          = leaseLife
	BackgroundPatience = backgroundPatience
	UnsubscribedAge    = unsubscribedAge
	MaxOutbox          = maxOutbox
	WarmConnections    = warmConnections
	WatermarkLife      = watermarkLife
	HeartbeatScript    = heartbeatScript
)

// EvidenceMessage is what a replica sends to the others.
func EvidenceMessage(key eligibility.Key, evidence *eligibility.Evidence) []byte {
	return append(messageHeader(kindEvidence, key), new(sealer).encode(key, evidence)...)
}

// Connect makes the reads, or the claims, of the store go to another server than its
// writes.
func (s *Store) Connect(tb testing.TB, reads, claims bool, cfg RedisConfig) {
	tb.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		tb.Fatal(err)
	}
	for _, client := range []struct {
		moves  bool
		client *redis.UniversalClient
	}{{reads, &s.redis.reader}, {claims, &s.redis.claimer}} {
		if client.moves {
			_ = (*client.client).Close()
			*client.client = newClient(cfg, cfg.PoolSize, nil)
		}
	}
	s.redis.batcher.client, s.redis.patient.client = s.redis.reader, s.redis.reader
}

// Remove removes a value that was read and cannot be read as evidence.
func (s *Store) Remove(ctx context.Context, key eligibility.Key, value []byte) {
	s.redis.remove(ctx, removal{key: key, value: value})
}

// Waiting is how many claims of the store wait for another replica.
func Waiting(s *Store) int {
	var m dto.Metric
	_ = s.metrics.waits.Write(&m) // a gauge writes
	return int(m.GetGauge().GetValue())
}

// OutboxEntries is how many writes Redis has not stored.
func OutboxEntries(s *Store) int { return s.outbox.countPending() }

// AddHook lets a test come between the store and Redis.
func (s *Store) AddHook(hook redis.Hook) {
	for _, client := range s.redis.clients() {
		client.AddHook(hook)
	}
}

// MaxInFlight is how many batches of reads are in flight at once.
const MaxInFlight = maxInFlight

// Batched is how many keys wait for the next batch.
func Batched(s *Store) int {
	g := s.redis.batcher
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		return 0
	}
	return len(g.next.keys)
}

// BatchLong lets batches wait for the one in flight however long it takes.
func BatchLong(s *Store) { s.redis.batcher.wait = time.Hour }

// IdleConnections is how many connections to Redis are idle.
func IdleConnections(s *Store) int { return int(s.redis.reader.PoolStats().IdleConns) }

// PartitionTag is the hash tag of the partition of key.
func PartitionTag(key eligibility.Key) string { return partitionTags[partitionOf(key.CustomerID)] }

// PartitionOf is the partition of a customer.
func PartitionOf(id eligibility.CustomerID) int { return partitionOf(id) }

// AddToOutbox records evidence that Redis has not stored.
func (s *Store) AddToOutbox(key eligibility.Key, evidence *eligibility.Evidence) {
	s.addToOutbox(key, evidence, evidence.FetchTime.Add(time.Hour), false, nil)
}

// Forget evicts a customer from the local tier.
func (s *Store) Forget(id eligibility.CustomerID) { s.local.customers.Invalidate(id) }

// DropFromOutbox is what a full outbox does with evidence for key.
func (s *Store) DropFromOutbox(key eligibility.Key) { s.outbox.lose(partitionOf(key.CustomerID)) }

// watermarkLife is how long a server keeps the watermark.
const watermarkLife = 48 * time.Hour

// BudgetSteps makes steps of the shared budget at times that the test gives, by the
// script that replicas use.
func BudgetSteps(client redis.UniversalClient, key string) func(ctx context.Context, now int64, step budget.Step) (budget.Reply, error) {
	script := redis.NewScript("local now = tonumber(ARGV[1])\n" + budgetScript)
	return func(ctx context.Context, now int64, step budget.Step) (budget.Reply, error) {
		answer, err := script.Run(ctx, client, []string{key}, stepArgs(time.UnixMicro(now), step)...).Int64Slice()
		if err != nil {
			return budget.Reply{}, err
		}
		return decodeStep(answer)
	}
}

// BudgetKeys are the keys of the shared budget.
func (s *Store) BudgetKeys() (state, replicas string) {
	return s.redis.keys.ofPartner("budget"), s.redis.keys.ofPartner("replicas")
}

// AllowanceKey is the key of a caller.
func (a *Allowances) AllowanceKey(caller string) string { return a.key(caller) }

// SetClock replaces the clock of the process.
func (a *Allowances) SetClock(now func() time.Time) { a.now = now }

// OldBudgetSteps makes steps by the script of the release before reviews, which
// testdata has. It returns whether the call was admitted.
func OldBudgetSteps(client redis.UniversalClient, key, text string) func(ctx context.Context, now int64, step budget.Step) (bool, error) {
	script := redis.NewScript("local now = tonumber(ARGV[1])\n" + text)
	return func(ctx context.Context, now int64, step budget.Step) (bool, error) {
		answer, err := script.Run(ctx, client, []string{key}, stepArgs(time.UnixMicro(now), step)[:11]...).Int64Slice()
		return err == nil && answer[0] == 1, err
	}
}
