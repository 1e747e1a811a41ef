package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// pingInterval is how often the subscription is made to show that it lives.
	pingInterval = 250 * time.Millisecond
	// silence is after what time without a sign of life it counts as down.
	silence = 800 * time.Millisecond
	// deafAge is how long the local tier trusts itself while the subscription
	// is down and Redis can be asked: replicas learn of newer evidence within
	// a second.
	deafAge = 900 * time.Millisecond
	// laggard is how far a caller's time may lie behind a sign of life that came
	// since he read the clock.
	laggard = 100 * time.Millisecond
	// subscribeRetry is the pause between attempts to subscribe.
	subscribeRetry = 200 * time.Millisecond
)

// hearing is whether announcements reach this process.
type hearing struct {
	last  atomic.Int64 // the last sign of life of the subscription, Unix ns
	since atomic.Int64 // when it was last established, Unix ns; what was announced before may have been missed
}

// trusts reports whether an entry confirmed at that time, in Unix ns, needs no
// second look in Redis. A clock that was set back does not stretch the trust.
func (h *hearing) trusts(confirmed, now int64, maxAge time.Duration) bool {
	if quiet := now - h.last.Load(); quiet < -int64(laggard) || quiet >= int64(silence) {
		return within(now-confirmed, min(maxAge, deafAge))
	}
	return confirmed >= h.since.Load() && within(now-confirmed, maxAge)
}

func within(age int64, limit time.Duration) bool {
	return age < int64(limit) && age >= -int64(clockTolerance)
}

// Run listens to the other replicas, renews the leases of this one and tells
// again what could not be told, until ctx ends. Without Redis it only waits.
// Call it once. A store whose Run was not called works all the same, but hears
// of nothing.
func (s *Store) Run(ctx context.Context) error {
	if s.redis == nil {
		<-ctx.Done()
		return nil
	}
	var loops errgroup.Group
	loops.Go(func() error {
		for ctx.Err() == nil {
			s.listen(ctx)
			pause(ctx, subscribeRetry)
		}
		return nil
	})
	loops.Go(func() error {
		for ctx.Err() == nil {
			pause(ctx, renewInterval)
			s.renew(ctx)
			s.ledger.settle(ctx, s.redis)
		}
		return nil
	})
	return loops.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// listen subscribes and hears until the subscription fails or ctx ends.
func (s *Store) listen(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := s.redis.subscribe(ctx)
	defer func() { _ = sub.Close() }()
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // ends a Receive under way
	var pinging errgroup.Group
	defer func() { _ = pinging.Wait() }()
	defer cancel()
	pinging.Go(func() error {
		for ctx.Err() == nil {
			pause(ctx, pingInterval)
			if err := sub.Ping(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	for {
		message, err := sub.ReceiveTimeout(ctx, silence)
		if err == nil {
			err = s.hear(message)
		}
		if err != nil {
			s.redis.settle(ctx, "subscribe", err)
			return
		}
	}
}

// subscribe asks for the announcements, on a cluster from the shard that the
// channel belongs to.
func (r *sharedTier) subscribe(ctx context.Context) *redis.PubSub {
	if cluster, isCluster := r.client.(*redis.ClusterClient); isCluster {
		cluster.ReloadState(ctx) // the shard may have a new primary
		return cluster.SSubscribe(ctx, r.keys.channel())
	}
	return r.client.Subscribe(ctx, r.keys.channel())
}

var errUnsubscribed = errors.New("redis has ended the subscription")

// hear takes one message of the subscription.
func (s *Store) hear(message any) error {
	now := s.now()
	switch m := message.(type) {
	case *redis.Subscription:
		if m.Kind != "subscribe" && m.Kind != "ssubscribe" {
			return errUnsubscribed
		}
		s.hearing.since.Store(now.UnixNano())
		s.ledger.reopen()
	case *redis.Message:
		s.receive([]byte(m.Payload), now)
	}
	s.hearing.last.Store(now.UnixNano())
	return nil
}

// receive takes an announcement. What cannot be read, or is from the future,
// says nothing.
func (s *Store) receive(payload []byte, now time.Time) {
	a, err := decodeAnnouncement(payload)
	if err != nil {
		s.metrics.unreadableAnnouncements.Inc()
		return
	}
	if a.evidence != nil {
		if fromFuture(a.evidence, now) {
			return
		}
		s.metrics.heard.Inc()
		s.local.tell(a.key, a.evidence, now)
	}
	s.leases.wake(a)
}

var _ eligibility.Store = (*Store)(nil)
