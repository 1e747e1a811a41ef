package evidence

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// metrics counts how fetches are shared and the evidence that decisions use. Its
// counters exist even if there is no registry.
type metrics struct {
	led, joined, shared prometheus.Counter
	fresh, stale        [eligibility.TierPartnerCenter + 1]prometheus.Counter // by the slowest tier used
	staleBy             [eligibility.KindNotKnown + 1]prometheus.Counter      // by why asking failed
}

// answered counts a decision that uses evidence.
func (m *metrics) answered(c *check, answer *eligibility.Answer, now time.Time) {
	if answer.Tier == eligibility.TierNone {
		return
	}
	if !answer.Stale {
		m.fresh[answer.Tier].Inc()
		return
	}
	m.stale[answer.Tier].Inc()
	for _, v := range c.views() {
		usable := v.Evidence != nil && now.Before(v.Lifetime.UsableUntil)
		if failure, ok := errors.AsType[*eligibility.Error](v.Err); ok && !v.Fresh && usable {
			m.staleBy[failure.Kind].Inc()
			return
		}
	}
}

func newMetrics(registerer prometheus.Registerer, oldest func() time.Duration) (*metrics, error) {
	fetches := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_flights_total",
		Help: "Fetches by role: led (this replica held the lease and called Partner Center), joined (a caller shared one in flight here), shared (another replica's fetch answered).",
	}, []string{"role"})
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_answers_total",
		Help: "Decisions by the slowest tier of the evidence they use (local, redis, partner_center), and whether all of it was fresh.",
	}, []string{"source", "freshness"})
	staleAnswers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_stale_answers_total",
		Help: "Decisions on stale evidence by why Partner Center could not be asked.",
	}, []string{"cause"})
	m := &metrics{
		led:    fetches.WithLabelValues("led"),
		joined: fetches.WithLabelValues("joined"),
		shared: fetches.WithLabelValues("shared"),
	}
	for tier, name := range map[eligibility.Tier]string{eligibility.TierLocal: "local", eligibility.TierRedis: "redis", eligibility.TierPartnerCenter: "partner_center"} {
		m.fresh[tier] = answers.WithLabelValues(name, "fresh")
		m.stale[tier] = answers.WithLabelValues(name, "stale")
	}
	for _, kind := range eligibility.Kinds() {
		m.staleBy[kind] = staleAnswers.WithLabelValues(kind.String())
	}
	if registerer == nil {
		return m, nil
	}
	err := errors.Join(
		registerer.Register(fetches), registerer.Register(answers), registerer.Register(staleAnswers),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_oldest_flight_seconds",
			Help: "Age of the oldest fetch in flight; 0 if there is none. No fetch lives longer than ten seconds, and a second one may wait for it: beyond 25 something is stuck.",
		}, func() float64 { return oldest().Seconds() })),
	)
	if err != nil {
		return nil, fmt.Errorf("evidence: register metrics: %w", err)
	}
	return m, nil
}
