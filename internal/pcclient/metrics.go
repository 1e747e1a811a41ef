package pcclient

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
)

// metrics counts what is asked of both hosts. It exists whether or not somebody
// collects it.
type metrics struct {
	fetches     *prometheus.CounterVec
	requests    *prometheus.HistogramVec
	retries     *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	tokens      *prometheus.CounterVec
	credentials *prometheus.GaugeVec
	unstored    prometheus.Gauge
	storeFaults prometheus.Counter
	proofFaults prometheus.Counter

	refreshTokenBorn atomic.Pointer[time.Time] // nil: none is known
	loginPaused      atomic.Pointer[pause]     // nil: never yet
}

// prefix begins the name of every metric here.
const prefix = "eligibility_partner_center_"

// outcomeOK is the outcome of what went well; the others are reasons.
const outcomeOK = "ok"

func newMetrics(registerer prometheus.Registerer, now func() time.Time, breakers breakers) (*metrics, error) {
	m := &metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "fetches_total",
			Help: "Questions to Partner Center, replays not counted apart, by operation and outcome.",
		}, []string{"op", "outcome"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    prefix + "request_duration_seconds",
			Help:    "Duration of single HTTP requests to Partner Center, by operation and outcome.",
			Buckets: []float64{.025, .05, .1, .2, .4, .8, 1.6, 3.2, 10},
		}, []string{"op", "outcome"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "retries_total",
			Help: "Requests to Partner Center that replayed an earlier one.",
		}, []string{"op"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "refusals_total",
			Help: "Questions that were not sent, because a Retry-After runs (paused) or the own budget is spent (budget).",
		}, []string{"reason"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "token_renewals_total",
			Help: "Renewals of the access token by outcome.",
		}, []string{"outcome"}),
		credentials: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: prefix + "credentials_alert",
			Help: "1 while our credentials were refused when last asked for that operation. Somebody must act.",
		}, []string{"op"}),
		unstored: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: prefix + "refresh_token_unstored",
			Help: "1 while the newest refresh token is in memory only and would be lost by a restart. Somebody must act.",
		}),
		storeFaults: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "refresh_token_store_failures_total",
			Help: "Rotated refresh tokens that could not be stored.",
		}),
		proofFaults: prometheus.NewCounter(prometheus.CounterOpts{
			Name: prefix + "client_credential_failures_total",
			Help: "Failed reads of the client secret or certificate from its vault. What was read before stays in use.",
		}),
	}
	m.showZeros()
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, collector := range append(m.gauges(now, breakers),
		m.fetches, m.requests, m.retries, m.refusals, m.tokens, m.credentials, m.unstored, m.storeFaults, m.proofFaults) {
		faults = append(faults, registerer.Register(collector))
	}
	return m, errors.Join(faults...)
}

// gauges are the metrics that are read off when somebody collects them.
func (m *metrics) gauges(now func() time.Time, breakers breakers) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "login_pause_seconds",
			Help: "What is left of the pause in which the login host is not asked, after a refusal, a Retry-After or a failed early renewal.",
		}, func() float64 { return m.loginPauseLeft(now()).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "breaker_open",
			Help: "1 while the circuit breaker keeps questions away from a Partner Center that does not work.",
		}, func() float64 { return isOpen(breakers.partnerCenter) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "login_breaker_open",
			Help: "1 while the circuit breaker keeps token requests away from a login host that does not work.",
		}, func() float64 { return isOpen(breakers.login) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "refresh_token_age_seconds",
			Help: "How long ago the refresh token in use was stored. NaN while none is known, and with flow app_only.",
		}, func() float64 { return max(m.refreshTokenAge(now()), 0) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "refresh_token_expires_in_seconds",
			Help: "How long the refresh token in use works unless it is renewed, negative if it no longer does. NaN as for its age.",
		}, func() float64 { return RefreshTokenLife.Seconds() - max(m.refreshTokenAge(now()), 0) }),
	}
}

func isOpen(b *breaker.Breaker) float64 {
	if b.State() == breaker.Closed {
		return 0
	}
	return 1
}

// showZeros makes the series that an alert may ask for exist from the start.
func (m *metrics) showZeros() {
	for _, op := range []Op{OpValidationStatus, OpQualifications} {
		m.fetches.WithLabelValues(string(op), outcomeOK)
		m.requests.WithLabelValues(string(op), outcomeOK)
		m.retries.WithLabelValues(string(op))
		m.credentials.WithLabelValues(string(op))
	}
	for _, reason := range []Reason{ReasonPaused, ReasonBudget, ReasonBreaker} {
		m.refusals.WithLabelValues(string(reason))
	}
	m.tokens.WithLabelValues(outcomeOK)
	m.credentials.WithLabelValues(string(OpToken))
}

func outcome(fail *APIError) string {
	if fail == nil {
		return outcomeOK
	}
	return string(fail.Reason)
}

// request counts one request and how long it took, with the trace as its exemplar if
// ctx is traced.
func (m *metrics) request(ctx context.Context, op Op, fail *APIError, took time.Duration) {
	histogram := m.requests.WithLabelValues(string(op), outcome(fail))
	span := trace.SpanContextFromContext(ctx)
	if !span.IsSampled() {
		histogram.Observe(took.Seconds())
		return
	}
	//nolint:forcetypeassert // every histogram is one
	histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": span.TraceID().String()})
}

// fetch counts a question that was answered or given up. Only an answer clears
// the alert: it stays if the failure is of another kind, which proves nothing
// about credentials.
func (m *metrics) fetch(op Op, fail *APIError) {
	m.fetches.WithLabelValues(string(op), outcome(fail)).Inc()
	switch {
	case fail == nil, fail.Reason == reasonNoStatus, fail.Class == ClassNotFound, fail.Class == ClassNotServed:
		m.credentials.WithLabelValues(string(op)).Set(0)
	case fail.Class == ClassCredentials && fail.Op == op:
		m.credentials.WithLabelValues(string(op)).Set(1)
	}
}

// token counts a renewal of the token.
func (m *metrics) token(fail *APIError) {
	m.tokens.WithLabelValues(outcome(fail)).Inc()
	switch {
	case fail == nil:
		m.credentials.WithLabelValues(string(OpToken)).Set(0)
	case fail.Class == ClassCredentials:
		m.credentials.WithLabelValues(string(OpToken)).Set(1)
	}
}

// stored records whether a restart would find the newest refresh token.
func (m *metrics) stored(ok bool) {
	if ok {
		m.unstored.Set(0)
		return
	}
	m.storeFaults.Inc()
	m.unstored.Set(1)
}

// refreshToken notes since when the refresh token in use is stored. The zero
// time is none.
func (m *metrics) refreshToken(born time.Time) {
	if born.IsZero() {
		m.refreshTokenBorn.Store(nil)
		return
	}
	m.refreshTokenBorn.Store(&born)
}

// refreshTokenAge returns the age in seconds, or NaN.
func (m *metrics) refreshTokenAge(now time.Time) float64 {
	born := m.refreshTokenBorn.Load()
	if born == nil {
		return math.NaN()
	}
	return now.Sub(*born).Seconds()
}

// loginPauseLeft returns what is left of the pause of the login host.
func (m *metrics) loginPauseLeft(now time.Time) time.Duration {
	if p := m.loginPaused.Load(); p != nil {
		return p.left(now)
	}
	return 0
}
