package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// outcome is what became of a question, as eligibility_questions_total counts it.
type outcome uint8

// The outcomes. The service's availability is decided, divided by decided, undecided,
// timedOut and failed.
const (
	outcomeDecided outcome = iota
	outcomeUndecided
	outcomeTimedOut
	outcomeFailed
	outcomeRejected
	outcomeAbandoned
	outcomes
)

func outcomeSeries(questions *prometheus.CounterVec) (series [outcomes]prometheus.Counter) {
	for of, name := range [outcomes]string{"decided", "undecided", "timed_out", "failed", "rejected", "abandoned"} {
		series[of] = questions.WithLabelValues(name)
	}
	return series
}

// outcomeOf returns the outcome of a question that ended with an error. Only an impatient
// caller is to blame for a deadline, or for its leaving: behind a Partner Center that
// hangs, every caller leaves in the end. None is to blame for a full decision log.
func outcomeOf(failure *eligibility.Error, impatient bool) outcome {
	if failure.Err == errNotRecorded { //nolint:errorlint // is set as it is
		return outcomeFailed
	}
	switch failure.Kind {
	case eligibility.KindUnavailable, eligibility.KindThrottled, eligibility.KindCredentials, eligibility.KindInvalidResponse:
		return outcomeUndecided
	case eligibility.KindInvalidArgument, eligibility.KindNotFound, eligibility.KindNotServed,
		eligibility.KindUnauthenticated, eligibility.KindPermissionDenied, eligibility.KindCallerLimited, eligibility.KindResumeTokenExpired:
		return outcomeRejected
	case eligibility.KindDeadlineExceeded, eligibility.KindCanceled:
		if impatient {
			return outcomeAbandoned
		}
		return outcomeTimedOut
	case eligibility.KindInternal, eligibility.KindOverloaded, eligibility.KindFeedUnavailable, eligibility.KindNotKnown:
	}
	return outcomeFailed
}

// checkDurations are the durations of single checks, by the slowest tier of the
// evidence used.
type checkDurations [eligibility.TierPartnerCenter + 1]prometheus.Observer

// newCheckDurations returns the histogram behind [checkDurations]. Objectives count its
// buckets of 10 ms and of 2 s.
func newCheckDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "eligibility_check_duration_seconds",
		Help:    "Time from the arrival of a single check to its answer, by the slowest tier of the evidence used (local, redis, partner_center; none if it ended with an error). Without those that eligibility_questions_total counts as rejected or abandoned.",
		Buckets: []float64{.001, .01, .05, .2, .5, 1, 2, 5, 10},
	}, []string{"tier"})
}

func durationsOf(histogram *prometheus.HistogramVec) *checkDurations {
	return &checkDurations{
		eligibility.TierNone:          histogram.WithLabelValues("none"),
		eligibility.TierLocal:         histogram.WithLabelValues("local"),
		eligibility.TierRedis:         histogram.WithLabelValues("redis"),
		eligibility.TierPartnerCenter: histogram.WithLabelValues("partner_center"),
	}
}

// observe counts a check that has ended, unless its caller is to blame for an error.
// It does nothing if d is nil.
func (d *checkDurations) observe(c *call, failure *eligibility.Error, took time.Duration) {
	if d == nil {
		return
	}
	tier := c.Answer.Tier
	if failure == nil {
		failure = undecided(&c.Answer)
	}
	if failure != nil {
		if of := outcomeOf(failure, c.impatient()); of == outcomeRejected || of == outcomeAbandoned {
			return
		}
		tier = eligibility.TierNone
	}
	observe(d[tier], c, took)
}
