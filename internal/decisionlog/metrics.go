package decisionlog

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count records. They exist even if there is no registry.
type metrics struct {
	written, dropped, leftOut, failures, keyFailures prometheus.Counter
	queued                                           prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "eligibility_decision_log_" + name, Help: help})
	}
	m := &metrics{
		written:     counter("written_total", "Records written to the decision log."),
		dropped:     counter("dropped_total", "Records of the decision log lost because its queue was full, or because they could not be written before the end. With decision_log.on_overflow block, those are records of errors, and of decisions that their callers did not get. The next record that is written states their number."),
		leftOut:     counter("left_out_total", "Records of plain allowed answers left out of the decision log by decision_log.allowed_sample."),
		failures:    counter("errors_total", "Failures to open, write or rotate the file of the decision log, and to compress or remove rotated ones. Writing is tried again every second, compressing after the next rotation."),
		keyFailures: counter("key_reload_failures_total", "Failed attempts to load a changed hash key of the decision log. The key in use stays."),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "eligibility_decision_log_queue_records",
			Help: "Records of the decision log that wait to be written, 10,000 at most.",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.written, m.dropped, m.leftOut, m.failures, m.keyFailures, m.queued} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("decision log: register metrics: %w", err)
		}
	}
	return m, nil
}
