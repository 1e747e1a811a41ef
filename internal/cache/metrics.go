package cache

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts the operations of the tiers. Its counters exist even if nothing
// collects them.
type metrics struct {
	lookups                                  *prometheus.CounterVec
	localHit, localMustRevalidate, localMiss prometheus.Counter
	redisHit, redisMiss, redisSkipped        prometheus.Counter
	redisFaults                              *prometheus.CounterVec
	unreadable                               prometheus.Counter
	published, received                      prometheus.Counter
	unreadableMessages                       prometheus.Counter
	writeBacks, losses, outboxDropped        prometheus.Counter
	takeOvers                                prometheus.Counter
	changesWritten, changesTrimmed           prometheus.Counter
	changesLost, changesUnreadable           prometheus.Counter
	reviewsUntracked, historyLost            prometheus.Counter
	waits                                    prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer, local *local) (*metrics, error) {
	m := newCounters()
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, collector := range []prometheus.Collector{
		m.lookups, m.redisFaults, m.unreadable, m.published, m.received, m.unreadableMessages, m.takeOvers, m.waits,
		m.writeBacks, m.losses, m.outboxDropped,
		m.changesWritten, m.changesTrimmed, m.changesLost, m.changesUnreadable, m.reviewsUntracked, m.historyLost,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_cache_local_entries",
			Help: "Customers in the local tier (approximate).",
		}, func() float64 { return float64(local.customers.EstimatedSize()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "eligibility_cache_local_evictions_total",
			Help: "Customers that the local tier dropped to keep its bound.",
		}, func() float64 { return float64(local.evicted.Load()) }),
	} {
		faults = append(faults, registerer.Register(collector))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("cache: register metrics: %w", err)
	}
	return m, nil
}

// observe adds what the store knows about Redis.
func (m *metrics) observe(s *Store, registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	all := func(is func(*partitionHealth, int64) bool) func() float64 {
		return func() float64 {
			if s.redis == nil {
				return 1
			}
			now := s.now().UnixNano()
			for i := range s.redis.health.partitions {
				if !is(&s.redis.health.partitions[i], now) {
					return 0
				}
			}
			return 1
		}
	}
	err := errors.Join(
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_cache_redis_writable",
			Help: "1 if every Redis server accepts writes, as heartbeats show; if not, its contents count as not fresh. 1 without Redis.",
		}, all((*partitionHealth).writable))),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_cache_redis_subscribed",
			Help: "1 if messages of the other replicas arrive; if not, Redis is read again every 0.9 seconds. 1 without Redis.",
		}, all((*partitionHealth).subscribed))),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_cache_outbox_entries",
			Help: "Evidence that Redis has not stored yet.",
		}, func() float64 { return float64(s.outbox.countPending()) })),
	)
	if err != nil {
		return fmt.Errorf("cache: register metrics: %w", err)
	}
	return nil
}

func newCounters() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "eligibility_cache_" + name, Help: help})
	}
	change := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "eligibility_changes_" + name, Help: help})
	}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_cache_lookups_total",
		Help: "Lookups of evidence by tier and result, whatever the age of the evidence; untrusted: the local tier had to revalidate in Redis; skipped: the circuit breaker for reads was open.",
	}, []string{"tier", "result"})
	m := &metrics{
		lookups:             lookups,
		localHit:            lookups.WithLabelValues("local", "hit"),
		localMustRevalidate: lookups.WithLabelValues("local", "untrusted"),
		localMiss:           lookups.WithLabelValues("local", "miss"),
		redisHit:            lookups.WithLabelValues("redis", "hit"),
		redisMiss:           lookups.WithLabelValues("redis", "miss"),
		redisSkipped:        lookups.WithLabelValues("redis", "skipped"),
		redisFaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_cache_redis_faults_total",
			Help: "Operations on Redis that failed, by kind: timeout, connection, pool (no free connection), refused (an error reply). None fails a check.",
		}, []string{"op", "kind"}),
		unreadable: counter("unreadable_values_total",
			"Values and leases in Redis that could not be read, or did not verify, and were ignored or deleted."),
		published: counter("messages_sent_total", "Outcomes of fetches that were published to the other replicas."),
		received:  counter("messages_received_total", "Messages with evidence that reached this replica, its own among them."),
		unreadableMessages: counter("unreadable_messages_total",
			"Messages that could not be read, or did not verify, and were ignored."),
		writeBacks: counter("write_backs_total",
			"Times that Redis held older evidence than this replica, which then wrote its own back."),
		losses: counter("lost_writes_total",
			"Times that a Redis server was found to have lost writes, by a restart from a snapshot or a failover."),
		outboxDropped: counter("outbox_dropped_total",
			"Evidence that Redis did not store and for which the outbox had no room. Redis then confirms nothing older."),
		takeOvers: counter("lease_takeovers_total",
			"Fetches taken over from another replica that died, was slow in the background or lost its lease."),
		changesWritten: change("written_total", "Changes that this replica wrote to the feed."),
		changesTrimmed: change("trimmed_total", "Changes that this replica removed from the feed because of their age or number."),
		changesLost: change("lost_total",
			"Changes that Redis did not write to the feed although it stored their evidence. No watcher receives them."),
		changesUnreadable: change("unreadable_total",
			"Entries of the feed that this replica read and skipped because they could not be read, or did not verify."),
		reviewsUntracked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eligibility_reviews_untracked_total",
			Help: "Times that evidence of a customer under review was stored but the customer was not listed for checks, because reviews.max_tracked is reached or Redis refused it.",
		}),
		historyLost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eligibility_history_lost_total",
			Help: "Changes that Redis did not write to the history of their customer although it stored their evidence. Explanations lack them.",
		}),
		waits: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "eligibility_cache_lease_waits",
			Help: "Waits for fetches of other replicas.",
		}),
	}
	m.initFaults()
	return m
}

// initFaults gives each series of faults its zero.
func (m *metrics) initFaults() {
	for _, op := range []string{"load", "put", "remove", "claim", "renew", "release", "heartbeat", "subscribe", "outbox", "warm", "feed", "reviews", "history"} {
		for _, kind := range []string{faultTimeout, faultConnection, faultPool, faultRefused} {
			m.redisFaults.WithLabelValues(op, kind)
		}
	}
}
