package server

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// quota admits so many a second. It is safe for concurrent use; at the turn of a
// second it may admit a few more.
type quota struct {
	limit   int64
	second  atomic.Int64 // Unix time that taken belongs to
	taken   atomic.Int64
	leftOut atomic.Int64 // since the last one admitted
}

// take reports whether one more is admitted, and if so how many were not since
// the one before.
func (q *quota) take(now time.Time) (leftOut int64, ok bool) {
	if second := now.Unix(); q.second.Load() != second && q.second.Swap(second) != second {
		q.taken.Store(0)
	}
	if q.taken.Add(1) > q.limit {
		q.leftOut.Add(1)
		return 0, false
	}
	return q.leftOut.Swap(0), true
}

// isPlain reports whether an RPC went as nearly all do, so that its record may
// be left out: everybody it asked about may buy, by evidence that was at hand
// and fresh. Whoever traces it finds it in the log.
func (c *call) isPlain(failure *eligibility.Error) bool {
	switch {
	case failure != nil || c.span != nil:
		return false
	case c.tally != nil:
		return c.tally.failed == 0 && c.tally.blocked == 0
	default:
		return c.answer.Decision == eligibility.DecisionAllowed && !c.answer.Stale &&
			c.answer.Cause == nil && c.answer.Tier != eligibility.TierPartnerCenter
	}
}

// log writes the one record of an RPC, unless it is plain and there were enough
// of those. It never holds a body, a name or a credential; the customer's tenant
// ID is there once it was understood.
func (s *Server) log(c *call, code codes.Code, failure *eligibility.Error, took time.Duration) {
	level := zapcore.InfoLevel
	switch {
	case failure != nil:
		level = faultOf(failure.Kind).level
	case c.tally != nil && c.tally.failed > 0:
		level = c.tally.level
	}
	if !s.logger.Core().Enabled(level) {
		return
	}
	var leftOut int64
	if c.isPlain(failure) {
		var ok bool
		if leftOut, ok = s.plain.take(time.Now()); !ok {
			return
		}
	}
	entry := s.logger.Check(level, "rpc handled")
	if entry == nil {
		return
	}
	fields := make([]zap.Field, 0, 16)
	fields = append(fields,
		zap.String("request_id", c.requestID),
		zap.String("rpc", c.series.rpc),
		zap.String("via", c.series.via),
		zap.String("code", codeName(code)),
		zap.Float64("duration_ms", milliseconds(took)))
	if leftOut > 0 {
		fields = append(fields, zap.Int64("left_out", leftOut))
	}
	if c.trace != "" {
		fields = append(fields, zap.String("trace_id", c.trace.traceID()))
	}
	if !c.callers.IsZero() {
		fields = append(fields, zap.Float64("deadline_ms", milliseconds(c.left)))
	}
	if c.knowsCustomerID {
		fields = append(fields, zap.Stringer("customer_id", c.customerID))
	}
	switch {
	case failure != nil:
		fields = appendFailure(fields, failure)
	case c.answer.Decision != eligibility.DecisionNone:
		fields = appendAnswer(fields, &c.answer)
	case c.tally != nil:
		fields = appendTally(fields, c.tally)
	}
	entry.Write(fields...)
}

func appendAnswer(fields []zap.Field, answer *eligibility.Answer) []zap.Field {
	fields = append(fields, zap.String("decision", decision(answer.Decision).String()))
	switch {
	case answer.Stale:
		fields = append(fields, zap.String("source", "stale"))
	case answer.Tier == eligibility.TierPartnerCenter:
		fields = append(fields, zap.String("source", "upstream"))
	case answer.Tier != eligibility.TierNone:
		fields = append(fields, zap.String("source", "fresh"))
	}
	fields = appendUpstream(fields, answer.Call)
	if answer.Cause != nil {
		fields = append(fields, zap.Error(answer.Cause))
	}
	return fields
}

func appendFailure(fields []zap.Field, failure *eligibility.Error) []zap.Field {
	if failure.Kind == eligibility.KindNotFound || failure.Kind == eligibility.KindNotServed {
		fields = append(fields, zap.String("source", "negative"))
	}
	return append(appendUpstream(fields, failure.Call), zap.Error(failure))
}

func appendTally(fields []zap.Field, t *tally) []zap.Field {
	fields = append(fields, zap.Int("allowed", t.allowed), zap.Int("blocked", t.blocked), zap.Int("failed", t.failed))
	if t.cause != nil {
		fields = append(fields, zap.Error(t.cause))
	}
	return fields
}

// appendUpstream adds what a fetch for this RPC did at Partner Center.
func appendUpstream(fields []zap.Field, upstream eligibility.Call) []zap.Field {
	if upstream == (eligibility.Call{}) {
		return fields
	}
	return append(fields,
		zap.Int("upstream_attempts", upstream.Attempts),
		zap.Int("upstream_status", upstream.Status),
		zap.String("ms_correlation_id", upstream.CorrelationID),
		zap.String("ms_request_id", upstream.RequestID))
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
