package api

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// metrics holds the server's metrics, each label value looked up once, at start.
type metrics struct {
	rpcs       map[string]methodMetrics // by full method
	other      methodMetrics            // of requests that are for none of these, or refused before that is known
	callers    *callerMetrics
	allowed    reasonCounters
	blocked    reasonCounters
	errors     map[string]prometheus.Counter // reason → questions that are undecided
	questions  [outcomes]prometheus.Counter
	overloaded prometheus.Counter
	panics     prometheus.Counter
	ends       map[string]prometheus.Counter // why a stream of changes ended → how many
}

// methodMetrics are those of one method, by the way that an RPC came.
type methodMetrics struct{ grpc, rest *rpcMetrics }

type rpcMetrics struct {
	rpc, via string // for the log, too

	codes    [codes.Unauthenticated + 1]prometheus.Counter // by code
	duration prometheus.Observer                           // nil for streams, which last as long as they do
	checks   *checkDurations                               // nil for all methods but CheckEligibility
}

// reasonCounters are by reason; nil if a reason cannot occur.
type reasonCounters [eligibility.ReasonUndecidable + 1]prometheus.Counter

// newMetrics registers every metric of the server. inFlight and watches are read at each
// scrape.
func newMetrics(cfg Config, services []Service, inFlight, watches func() float64) (*metrics, error) {
	handled := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_rpcs_total",
		Help: "RPCs handled, by method, transport (grpc or rest) and gRPC code. Method other counts those that were refused before their method was known, or that have none.",
	}, []string{"rpc", "via", "code"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "eligibility_rpc_duration_seconds",
		Help:    "Time from an RPC's arrival to its answer.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"rpc", "via"})
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_decisions_total",
		Help: "Decisions given, items of batches included, by decision and by the first reason for it: of a block, the first that blocks.",
	}, []string{"decision", "reason"})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_errors_total",
		Help: "Questions without a decision, items of batches and blocks for UNDECIDABLE included, by reason. PARTNER_CENTER_CREDENTIALS needs an operator to act.",
	}, []string{"reason"})
	questions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_questions_total",
		Help: "Questions, items of batches included, by outcome: decided; undecided, for want of evidence; timed_out, without an answer when the caller left or its deadline ended, after 0.4 s or more; failed, by a fault or overload of this service, or because its record could not be queued; rejected, as invalid or about no customer of ours; abandoned by a caller that waited for less.",
	}, []string{"outcome"})
	checks := newCheckDurations()
	overloaded := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eligibility_overloaded_total",
		Help: "RPCs refused because too many were in progress.",
	})
	panics := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "eligibility_panics_total",
		Help: "RPCs that ended in a panic.",
	})
	concurrent := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "eligibility_rpcs_in_progress",
		Help: "RPCs being answered now.",
	}, inFlight)
	streams, ended := newStreamMetrics(watches)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "eligibility_build_info",
		Help:        "1; its labels identify what is running.",
		ConstLabels: prometheus.Labels{"version": cfg.Version, "commit": cfg.Commit, "go_version": runtime.Version()},
	})
	build.Set(1)

	callers := newCallerMetrics(cfg.Callers)

	var faults []error
	for _, collector := range []prometheus.Collector{handled, callers.requests, duration, checks, decisions, failures, questions, overloaded, panics, concurrent, streams, ended, build} {
		faults = append(faults, cfg.Registerer.Register(collector))
	}
	return &metrics{
		rpcs:       rpcSeries(services, handled, duration, checks),
		other:      seriesOf("other", handled, duration),
		callers:    callers,
		allowed:    decisionSeries(decisions.MustCurryWith(prometheus.Labels{"decision": "ALLOWED"}), allowingReasons()),
		blocked:    decisionSeries(decisions.MustCurryWith(prometheus.Labels{"decision": "BLOCKED"}), blockingReasons()),
		errors:     errorSeries(failures),
		questions:  outcomeSeries(questions),
		overloaded: overloaded,
		panics:     panics,
		ends:       endSeries(ended),
	}, errors.Join(faults...)
}

func newStreamMetrics(watches func() float64) (prometheus.Collector, *prometheus.CounterVec) { //nolint:ireturn // read at each scrape only
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_watch_streams",
			Help: "Streams of changes that are open.",
		}, watches), prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "eligibility_watch_ended_total",
			Help: "Streams of changes that have ended, by reason: draining, as the service stops; max_age; slow, whose callers did not receive; left, by their callers; failed.",
		}, []string{"reason"})
}

func endSeries(ended *prometheus.CounterVec) map[string]prometheus.Counter {
	series := make(map[string]prometheus.Counter)
	for _, reason := range []string{endDraining, endMaxAge, endSlow, endLeft, endFailed} {
		series[reason] = ended.WithLabelValues(reason)
	}
	return series
}

func rpcSeries(services []Service, handled *prometheus.CounterVec, duration, checks *prometheus.HistogramVec) map[string]methodMetrics {
	series := make(map[string]methodMetrics)
	for _, service := range services {
		for _, method := range service.Desc.Methods {
			series[service.FullMethod(method.MethodName)] = seriesOf(method.MethodName, handled, duration)
		}
		for _, stream := range service.Desc.Streams {
			series[service.FullMethod(stream.StreamName)] = seriesOf(stream.StreamName, handled, nil)
		}
	}
	if check, ok := series[eligibilityv1.EligibilityService_CheckEligibility_FullMethodName]; ok {
		durations := durationsOf(checks)
		check.grpc.checks, check.rest.checks = durations, durations
	}
	return series
}

func seriesOf(rpc string, handled *prometheus.CounterVec, duration *prometheus.HistogramVec) methodMetrics {
	of := func(via string) *rpcMetrics {
		m := &rpcMetrics{rpc: rpc, via: via}
		if duration != nil {
			m.duration = duration.WithLabelValues(rpc, via)
		}
		for c := range m.codes {
			m.codes[c] = handled.WithLabelValues(rpc, via, CodeName(codes.Code(c)))
		}
		return m
	}
	return methodMetrics{grpc: of(viaGRPC), rest: of(viaREST)}
}

func decisionSeries(decisions *prometheus.CounterVec, reasons []eligibility.ReasonCode) reasonCounters {
	var series reasonCounters
	for _, reason := range reasons {
		series[reason] = decisions.WithLabelValues(reason.String())
	}
	return series
}

func errorSeries(failures *prometheus.CounterVec) map[string]prometheus.Counter {
	series := make(map[string]prometheus.Counter)
	for _, kind := range eligibility.Kinds() {
		if kind != eligibility.KindCanceled {
			series[reasonOf(kind)] = failures.WithLabelValues(reasonOf(kind))
		}
	}
	return series
}

// allowingReasons are those that can stand first in an allowing answer.
func allowingReasons() []eligibility.ReasonCode {
	return []eligibility.ReasonCode{
		eligibility.ReasonAccountAllowed, eligibility.ReasonAccountHasNoStatus, eligibility.ReasonAccountNotReady,
		eligibility.ReasonAccountReviewExempt,
	}
}

// blockingReasons are those that can block.
func blockingReasons() []eligibility.ReasonCode {
	return []eligibility.ReasonCode{
		eligibility.ReasonAccountUnderReview, eligibility.ReasonAccountNotAllowed, eligibility.ReasonAccountUnknown,
		eligibility.ReasonAccountNotReady, eligibility.ReasonAccountStatusUnrecognized,
		eligibility.ReasonQualificationInReview, eligibility.ReasonQualificationDenied,
		eligibility.ReasonQualificationMissing, eligibility.ReasonQualificationUnrecognized,
		eligibility.ReasonUndecidable,
	}
}

// handled counts an RPC.
func (m *rpcMetrics) handled(c *call, grpcCode codes.Code, took time.Duration) {
	if int(grpcCode) < len(m.codes) { // there are no others
		m.codes[grpcCode].Inc()
	}
	if m.duration != nil {
		observe(m.duration, c, took)
	}
}

// observe adds a duration to a histogram, with the trace of the RPC as its exemplar if
// it is traced.
func observe(histogram prometheus.Observer, c *call, took time.Duration) {
	if c == nil || c.span == nil {
		histogram.Observe(took.Seconds())
		return
	}
	//nolint:forcetypeassert // every histogram is one
	histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": c.trace.traceID()})
}

// decided counts an answer of a call, and one that blocks because nothing could be
// decided as undecided too.
func (m *metrics) decided(c *call, answer *eligibility.Answer) {
	if cause := undecided(answer); cause != nil {
		m.failed(cause, 1, c.impatient())
	} else {
		m.questions[outcomeDecided].Inc()
	}
	code, ok := firstReason(answer)
	series := &m.allowed
	if answer.Decision == eligibility.DecisionBlocked {
		series = &m.blocked
	}
	if ok && series[code] != nil {
		series[code].Inc()
	}
}

// firstReason returns the first reason for an answer: of a block, the first that blocks.
func firstReason(answer *eligibility.Answer) (code eligibility.ReasonCode, ok bool) {
	for _, reason := range answer.Reasons {
		if reason.Blocks || answer.Decision != eligibility.DecisionBlocked {
			return reason.Code, true
		}
	}
	return 0, false
}

// answerCounts counts the answers of a batch, which are added to the metrics together.
type answerCounts struct {
	decided          int
	allowed, blocked reasonCounts
}

// reasonCounts are by the first reason.
type reasonCounts [len(reasonCounters{})]int

// count counts an answer. One that is undecided is counted as such by its caller.
func (a *answerCounts) count(answer *eligibility.Answer, undecided bool) {
	if !undecided {
		a.decided++
	}
	counts := &a.allowed
	if answer.Decision == eligibility.DecisionBlocked {
		counts = &a.blocked
	}
	if code, ok := firstReason(answer); ok {
		counts[code]++
	}
}

// add adds the answers of a batch.
func (m *metrics) add(a *answerCounts) {
	m.questions[outcomeDecided].Add(float64(a.decided))
	m.allowed.add(&a.allowed)
	m.blocked.add(&a.blocked)
}

func (r *reasonCounters) add(counts *reasonCounts) {
	for code, n := range counts {
		if n > 0 && r[code] != nil {
			r[code].Add(float64(n))
		}
	}
}

// watchEnded counts a stream of changes that has ended with err.
func (m *metrics) watchEnded(w *watched, err error) {
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		w.end = endLeft
	default:
		w.end = endFailed
	}
	m.ends[w.end].Inc()
}

// failed counts questions without a decision, of a caller that is impatient or not.
// Those of a caller that left are no errors.
func (m *metrics) failed(err *eligibility.Error, questions int, impatient bool) {
	m.questions[outcomeOf(err, impatient)].Add(float64(questions))
	if err.Kind != eligibility.KindCanceled {
		m.errors[reasonOf(err.Kind)].Add(float64(questions))
	}
}

// CodeName is the gRPC code as the API's documents write it: INVALID_ARGUMENT.
func CodeName(c codes.Code) string {
	if name, ok := code.Code_name[int32(c)]; ok { //nolint:gosec // gRPC codes end at 16
		return name
	}
	return c.String()
}
