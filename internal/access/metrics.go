package access

import (
	"errors"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what callers and operators get wrong. It exists whether or not
// somebody collects it.
type metrics struct {
	failures       *prometheus.CounterVec
	reloadFailures prometheus.Counter
	fetches        *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_authentication_failures_total",
			Help: "Requests whose caller could not be authenticated, by cause. The log has each.",
		}, []string{"cause"}),
		reloadFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "eligibility_tokens_reload_failures_total",
			Help: "Attempts to read a changed auth.tokens_file that failed; the tokens read before stay valid. Repeated every 10 s until it succeeds.",
		}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_issuer_key_fetches_total",
			Help: "Fetches of an issuer's keys, by issuer and outcome (ok, failed).",
		}, []string{"issuer", "outcome"}),
	}
	for _, one := range causes() {
		m.failures.WithLabelValues(string(one))
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer, a *Authenticator) error {
	if registerer == nil {
		return nil
	}
	collectors := []prometheus.Collector{
		m.failures, m.reloadFailures, m.fetches,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_tokens_expire_in_seconds",
			Help: "How long until the first caller has no valid static token left, negative if that has happened. NaN if there are none.",
		}, func() float64 {
			if a.tokens != nil {
				if first, ok := a.tokens.Get().firstExpiry(); ok {
					return first.Sub(a.clock.now()).Seconds()
				}
			}
			return math.NaN()
		}),
	}
	for _, i := range a.issuers {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "eligibility_issuer_keys_age_seconds",
			Help:        "How long ago the issuer's keys were last fetched; they are valid for a day. NaN while none are known.",
			ConstLabels: prometheus.Labels{"issuer": i.cfg.Issuer},
		}, func() float64 {
			if i.keys.keys.Load() == nil {
				return math.NaN()
			}
			return (a.clock.elapsed() - time.Duration(i.keys.fetched.Load())).Seconds()
		}))
	}
	faults := make([]error, 0, len(collectors))
	for _, collector := range collectors {
		faults = append(faults, registerer.Register(collector))
	}
	return errors.Join(faults...)
}
