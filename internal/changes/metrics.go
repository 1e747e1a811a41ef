package changes

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what cursors return. Its counters exist even if nothing collects them.
type metrics struct {
	delivered, redelivered prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "eligibility_changes_" + name, Help: help})
	}
	return &metrics{
		delivered: counter("delivered_total",
			"Changes of facts that were handed to watchers and webhooks, once for each, before they compare decisions."),
		redelivered: counter("redelivered_total",
			"Changes among those delivered that the reader may have had before: it resumed with a token, or part of the feed was read again."),
	}
}

// register registers the metrics of the log, if there is a registerer.
func (l *Log) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	err := errors.Join(
		registerer.Register(l.metrics.delivered),
		registerer.Register(l.metrics.redelivered),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_watch_lag_seconds",
			Help: "Time since this replica last read the feed of changes to its end, by the partition where that is longest ago: watchers are that much behind. 60 seconds end their streams.",
		}, l.lag)),
	)
	if err != nil {
		return fmt.Errorf("changes: register metrics: %w", err)
	}
	return nil
}

// lag returns how many seconds the log may be behind the feed.
func (l *Log) lag() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	for _, complete := range l.complete[:l.partitions] {
		if !complete.IsZero() {
			longest = max(longest, time.Since(complete))
		}
	}
	return longest.Seconds()
}

func (m *metrics) count(events []Event) {
	var delivered, redelivered int
	for i := range events {
		if events[i].Change == nil {
			continue
		}
		delivered++
		if events[i].Redelivered {
			redelivered++
		}
	}
	m.delivered.Add(float64(delivered))
	m.redelivered.Add(float64(redelivered))
}
