package cache

import (
	"context"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Peek is the store's, at its own time.
func Peek(s *Store, key eligibility.Key) eligibility.Found { return s.Peek(key, s.now()) }

// HearNow is a sign of life of the subscription, as a pong is.
func (s *Store) HearNow() { s.hearing.last.Store(s.now().UnixNano()) }

// Hears reports whether the subscription lives.
func (s *Store) Hears() bool {
	quiet := s.now().UnixNano() - s.hearing.last.Load()
	return quiet >= 0 && quiet < int64(silence)
}

// Receive takes an announcement as the subscription does.
func (s *Store) Receive(payload []byte) { s.receive(payload, s.now()) }

// RenewLeases is what Run does about leases from time to time.
func (s *Store) RenewLeases(ctx context.Context) { s.renew(ctx) }

// ShareAgain is what Run does about the ledger.
func (s *Store) ShareAgain(ctx context.Context) { s.ledger.settle(ctx, s.redis) }

// Reconnect is what a new subscription brings about.
func (s *Store) Reconnect() {
	s.hearing.since.Store(s.now().UnixNano())
	s.ledger.reopen()
	s.HearNow()
}

// The times of the leases, and of the trust without a subscription.
const (
	LeaseLife          = leaseLife
	BackgroundPatience = backgroundPatience
	DeafAge            = deafAge
	ToldLife           = toldLife
)

// Announce is what a replica tells the others.
func Announce(key eligibility.Key, evidence *eligibility.Evidence) []byte {
	return encodeAnnouncement(kindEvidence, key, encode(key, evidence))
}

// Waiting is how many claims of the store wait for another replica.
func Waiting(s *Store) int {
	var m dto.Metric
	_ = s.metrics.waits.Write(&m) // a gauge writes
	return int(m.GetGauge().GetValue())
}

// AddHook lets a test come between the store and Redis.
func (s *Store) AddHook(hook redis.Hook) { s.redis.client.AddHook(hook) }

// MaxTrips is how many round trips for look-ups are under way at once.
const MaxTrips = maxTrips

// Gathered is how many keys wait for the next round trip.
func Gathered(s *Store) int {
	g := s.redis.reads
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		return 0
	}
	return len(g.next.keys)
}

// GatherLong lets look-ups wait for the one under way however long it takes.
func GatherLong(s *Store) { s.redis.reads.wait = time.Hour }

// IdleConnections is how many connections to Redis nobody uses.
func IdleConnections(s *Store) int { return int(s.redis.client.PoolStats().IdleConns) }
