package webhooks

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are those of all webhooks of a process. Gauges other than held exist for
// the webhooks whose lease the process holds.
type Metrics struct {
	deliveries                          *prometheus.CounterVec
	held                                *prometheus.GaugeVec
	deadLetters, parked, lag, disabled  *prometheus.GaugeVec
	dropped, gaps, secretReloadFailures *prometheus.CounterVec
}

// NewMetrics registers the metrics; a nil registerer registers none.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	byWebhook := []string{"webhook"}
	m := &Metrics{
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_webhook_deliveries_total",
			Help: "Requests of webhooks by outcome: delivered, redirected, refused (4xx), throttled (429), failed (5xx), gone (410), timeout, unreachable, address_not_permitted, canceled; dead (the change became a dead letter), unsendable (an event that is malformed or too large).",
		}, []string{"webhook", "outcome"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "eligibility_webhook_held",
			Help: "1 if this replica sends the changes of the webhook; one replica in the fleet does.",
		}, byWebhook),
		deadLetters: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "eligibility_webhook_dead_letters",
			Help: "Changes that were not delivered in 72 h and wait for eligibilityd webhooks replay.",
		}, byWebhook),
		parked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "eligibility_webhook_parked",
			Help: "Changes that wait for a further attempt beside the position of the webhook.",
		}, byWebhook),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "eligibility_webhook_lag_seconds",
			Help: "Age of the oldest change that is not delivered, dead letters apart, or the time since the feed could be read; 0 if there is none.",
		}, byWebhook),
		disabled: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "eligibility_webhook_disabled",
			Help: "1 if the URL answered 410, until eligibilityd webhooks replay or another URL.",
		}, byWebhook),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_webhook_unreadable_total",
			Help: "Letters in Redis that were damaged or forged; they are removed and not sent.",
		}, byWebhook),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_webhook_gaps_total",
			Help: "How often changes were no longer kept when the webhook came to them; it continued with the oldest.",
		}, byWebhook),
		secretReloadFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_webhook_secret_reload_failures_total",
			Help: "Attempts to load a changed secret file that failed; the secrets from before stay in use.",
		}, byWebhook),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.deliveries, m.held, m.deadLetters, m.parked, m.lag, m.disabled, m.dropped, m.gaps, m.secretReloadFailures} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("webhooks: register metrics: %w", err)
		}
	}
	return m, nil
}

// begin makes the counters of a webhook exist, so that their first increase is seen.
func (m *Metrics) begin(webhook string) {
	m.deliveries.WithLabelValues(webhook, string(outcomeDelivered))
	m.deliveries.WithLabelValues(webhook, "dead")
	m.held.WithLabelValues(webhook)
	for _, counter := range []*prometheus.CounterVec{m.dropped, m.gaps, m.secretReloadFailures} {
		counter.WithLabelValues(webhook)
	}
}

// SecretNotReloaded counts a secret file that cannot be loaded again.
func (m *Metrics) SecretNotReloaded(webhook string) {
	m.secretReloadFailures.WithLabelValues(webhook).Inc()
}

// forget removes the gauges of a webhook whose lease the process does not hold.
func (m *Metrics) forget(webhook string) {
	m.held.WithLabelValues(webhook).Set(0)
	for _, gauge := range []*prometheus.GaugeVec{m.deadLetters, m.parked, m.lag, m.disabled} {
		gauge.DeleteLabelValues(webhook)
	}
}

// show sets the gauges of a webhook.
func (m *Metrics) show(webhook string, status Status, lag time.Duration, isDisabled bool) {
	m.held.WithLabelValues(webhook).Set(1)
	m.deadLetters.WithLabelValues(webhook).Set(float64(status.Dead))
	m.parked.WithLabelValues(webhook).Set(float64(status.Parked))
	disabled := 0.0
	if isDisabled {
		disabled = 1
	}
	m.lag.WithLabelValues(webhook).Set(lag.Seconds())
	m.disabled.WithLabelValues(webhook).Set(disabled)
}
