package reviews

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// prefix begins the name of every metric here.
const prefix = "eligibility_reviews_"

type metrics struct {
	tracked, due, late              prometheus.Gauge
	fetched                         *prometheus.CounterVec
	pending, ended, refused, failed prometheus.Counter
	abandoned                       prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
	}
	m := &metrics{
		tracked: gauge("tracked", "Customers and qualifications under review that are checked without a caller, of all replicas, when this replica last looked."),
		due:     gauge("due", "Reviews that are due, of all replicas, when this replica last looked."),
		late:    gauge("late", "Seconds for which the first of the reviews that are due has been due, when this replica last looked; 0 if none is."),
		fetched: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "fetched_total",
			Help: "Reviews that this replica has made: pending (still under review), ended, failed, refused (no budget was left for it; made later).",
		}, []string{"outcome"}),
		abandoned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "abandoned_total",
			Help: "Reviews that lasted for reviews.give_up_after and are no longer made.",
		}),
	}
	m.pending, m.ended = m.fetched.WithLabelValues("pending"), m.fetched.WithLabelValues("ended")
	m.refused, m.failed = m.fetched.WithLabelValues("refused"), m.fetched.WithLabelValues("failed")
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, collector := range []prometheus.Collector{m.tracked, m.due, m.late, m.fetched, m.abandoned} {
		faults = append(faults, registerer.Register(collector))
	}
	return m, errors.Join(faults...)
}

// observe records the sums of all partitions that could be looked at.
func (m *metrics) observe(states []*State) {
	tracked, due := 0, 0
	var late time.Duration
	for _, s := range states {
		if s != nil {
			tracked, due, late = tracked+s.Tracked, due+s.Due, max(late, s.Late)
		}
	}
	m.tracked.Set(float64(tracked))
	m.due.Set(float64(due))
	m.late.Set(late.Seconds())
}
