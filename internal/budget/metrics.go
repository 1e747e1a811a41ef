package budget

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// prefix begins the name of every metric here.
const prefix = "eligibility_partner_center_"

type metrics struct {
	refused *prometheus.CounterVec
	waits   *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer, b *Budget) (*metrics, error) {
	m := &metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "budget_refused_total",
			Help: "Calls that the budget did not admit in time, by lane.",
		}, []string{"lane"}),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    prefix + "lane_wait_seconds",
			Help:    "How long calls waited for the budget, by lane, whether they were admitted or not.",
			Buckets: []float64{.001, .01, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"lane"}),
	}
	for lane := range evidence.Lane(evidence.Lanes) { // the series that an alert may ask for exist from the start
		m.refused.WithLabelValues(lane.String())
		m.waits.WithLabelValues(lane.String())
	}
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, collector := range []prometheus.Collector{
		m.refused, m.waits,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "pause_seconds",
			Help: "What is left of the pause that a 429 asked for.",
		}, func() float64 { return b.Paused().Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "budget_limit",
			Help: "Calls a minute that the budget allows now: the configured ones, fewer after a 429. While Redis is unavailable, this replica's part of them.",
		}, func() float64 { limit, _ := b.limitAndLevel(); return limit }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "budget_level",
			Help: "Calls that could be made at once, as far as this replica knows.",
		}, func() float64 { _, level := b.limitAndLevel(); return level }),
	} {
		faults = append(faults, registerer.Register(collector))
	}
	return m, errors.Join(faults...)
}

// took counts the result of one Take.
func (m *metrics) took(a Admission, elapsed time.Duration) {
	if a.Paused {
		return
	}
	if !a.Granted {
		m.refused.WithLabelValues(a.Lane.String()).Inc()
	}
	if !a.Waited {
		elapsed = 0
	}
	m.waits.WithLabelValues(a.Lane.String()).Observe(elapsed.Seconds())
}
