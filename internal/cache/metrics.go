package cache

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the tiers do. Its counters exist whether or not somebody
// collects them.
type metrics struct {
	lookups                             *prometheus.CounterVec
	localHit, localUntrusted, localMiss prometheus.Counter
	redisHit, redisMiss, redisSkipped   prometheus.Counter
	redisFaults                         *prometheus.CounterVec
	unreadable                          prometheus.Counter
	announced, heard                    prometheus.Counter
	unreadableAnnouncements             prometheus.Counter
	takeOvers                           prometheus.Counter
	waits                               prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer, local *local) (*metrics, error) {
	m := newCounters()
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, collector := range []prometheus.Collector{
		m.lookups, m.redisFaults, m.unreadable, m.announced, m.heard, m.unreadableAnnouncements, m.takeOvers, m.waits,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_cache_local_entries",
			Help: "Entries in the local tier, about.",
		}, func() float64 { return float64(local.entries.EstimatedSize()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "eligibility_cache_local_evictions_total",
			Help: "Entries that the local tier dropped to keep its bound.",
		}, func() float64 { return float64(local.evicted.Load()) }),
	} {
		faults = append(faults, registerer.Register(collector))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("cache: register metrics: %w", err)
	}
	return m, nil
}

func newCounters() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "eligibility_cache_" + name, Help: help})
	}
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_cache_lookups_total",
		Help: "Look-ups of evidence by tier and result, whatever the evidence's age; untrusted means that the local tier asked Redis again, skipped that Redis was left alone after faults.",
	}, []string{"tier", "result"})
	m := &metrics{
		lookups:        lookups,
		localHit:       lookups.WithLabelValues("local", "hit"),
		localUntrusted: lookups.WithLabelValues("local", "untrusted"),
		localMiss:      lookups.WithLabelValues("local", "miss"),
		redisHit:       lookups.WithLabelValues("redis", "hit"),
		redisMiss:      lookups.WithLabelValues("redis", "miss"),
		redisSkipped:   lookups.WithLabelValues("redis", "skipped"),
		redisFaults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_cache_redis_faults_total",
			Help: "Operations on Redis that failed, by kind: timeout, connection, pool (no free connection), refused (an error reply). None fails a check.",
		}, []string{"op", "kind"}),
		unreadable: counter("unreadable_values_total", "Values in Redis that could not be read and were deleted."),
		announced:  counter("announcements_sent_total", "Outcomes of fetches that were announced to the other replicas."),
		heard:      counter("announcements_received_total", "Announcements of evidence that reached this replica, its own among them."),
		unreadableAnnouncements: counter("unreadable_announcements_total",
			"Announcements that could not be read and were ignored."),
		takeOvers: counter("lease_takeovers_total",
			"Fetches taken over from another replica that died, was slow in the background or lost its lease."),
		waits: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "eligibility_cache_lease_waits",
			Help: "Fetches of other replicas that are being waited for.",
		}),
	}
	for _, op := range []string{"load", "share", "claim", "renew", "yield", "subscribe"} {
		for _, kind := range []string{faultTimeout, faultConnection, faultPool, faultRefused} {
			m.redisFaults.WithLabelValues(op, kind)
		}
	}
	return m
}
