package api

import (
	"strconv"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// limits bound the records of each kind, so that no caller and no outage can
// fill the log.
type limits struct {
	plain    *logging.Limiter
	failures map[string]*logging.Limiter // reason → its limit; never changed
}

// The reasons of records, beside those that callers get.
const (
	staleRecord = "STALE"
	panicRecord = "PANIC"
)

func newLimits(plain, failures int) limits {
	l := limits{plain: logging.NewLimiter(plain, time.Second), failures: make(map[string]*logging.Limiter)}
	reasons := []string{staleRecord, panicRecord}
	for _, kind := range eligibility.Kinds() {
		reasons = append(reasons, reasonOf(kind))
	}
	for _, reason := range reasons {
		l.failures[reason] = logging.NewLimiter(failures, time.Second)
	}
	return l
}

// reasonOf names a kind of error in records and metrics.
func reasonOf(kind eligibility.Kind) string { return FaultOf(kind).Reason }

// class returns the level of an RPC's record and the limit that the record
// counts against, nil if all are written: those of blocks and of answers from
// Partner Center, of which there are no more than the budget allows.
func (ch *Chain) class(c *call, failure *eligibility.Error) (zapcore.Level, *logging.Limiter) {
	if failure == nil {
		failure = c.undecided()
	}
	switch {
	case failure != nil:
		return FaultOf(failure.Kind).Level, ch.limits.failures[reasonOf(failure.Kind)]
	case c.Answer.Stale:
		return zapcore.InfoLevel, ch.limits.failures[staleRecord]
	case c.isPlain():
		return zapcore.InfoLevel, ch.limits.plain
	default:
		return zapcore.InfoLevel, nil
	}
}

// undecided returns why an RPC that did not fail has left a question undecided,
// in a batch the worst reason; nil if there is none.
func (c *call) undecided() *eligibility.Error {
	if c.tally != nil {
		return c.tally.cause
	}
	return undecided(&c.Answer)
}

// isPlain reports whether an RPC without failures went as nearly all do: every
// customer may buy, by fresh evidence that was at hand, or it is a prefetch. The
// record of a traced one is always written.
func (c *call) isPlain() bool {
	switch {
	case c.span != nil:
		return false
	case c.tally != nil:
		return c.tally.blocked == 0
	case c.prefetched != nil, c.watched != nil:
		return true
	default:
		return c.Answer.Decision == eligibility.DecisionAllowed &&
			c.Answer.Cause == nil && c.Answer.Tier != eligibility.TierPartnerCenter
	}
}

// log writes the one record of an RPC, unless there were enough of its kind. The
// record never holds a body, a name or a credential, and the customer's tenant
// ID only if it is one.
func (ch *Chain) log(c *call, code codes.Code, failure *eligibility.Error, took time.Duration) {
	level, limit := ch.class(c, failure)
	if !ch.logger.Core().Enabled(level) {
		return
	}
	var leftOut int64
	if limit != nil {
		var ok bool
		if leftOut, ok = limit.Admit(c.start.Add(took)); !ok {
			return
		}
	}
	entry := ch.logger.Check(level, "rpc handled")
	if entry == nil {
		return
	}
	entry.Write(ch.fields(c, code, failure, took, leftOut)...)
}

// fields are those of the record of an RPC, of which leftOut were not written before.
// Customers are named as in the decision log.
func (ch *Chain) fields(c *call, code codes.Code, failure *eligibility.Error, took time.Duration, leftOut int64) []zap.Field {
	fields := make([]zap.Field, 0, 32)
	fields = append(fields,
		zap.String("request_id", c.id()),
		zap.String("rpc", c.series.rpc),
		zap.String("via", c.series.via),
		zap.String("code", CodeName(code)),
		zap.Float64("duration_ms", milliseconds(took)))
	if c.caller != nil {
		fields = append(fields, zap.String("caller", c.caller.Name))
		if c.caller.Person != "" {
			fields = append(fields, zap.String("person", c.caller.Person))
		}
	}
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
		fields = append(fields, zap.Stringer("customer_id", ch.cfg.Decisions.Name(c.CustomerID)), zap.Stringer("segment", c.segment))
	}
	switch {
	case c.partner != nil:
		fields = append(fields, zap.String("partner", c.partner.name))
	case c.partners > 1:
		fields = append(fields, zap.Int("partners", c.partners))
	}
	if c.operation != eligibility.OperationPurchase {
		fields = append(fields, zap.Stringer("operation", c.operation))
	}
	if c.watched != nil {
		fields = append(fields, zap.Int("customers", c.watched.customers), zap.Int("initial", c.watched.initial), zap.Int("changes", c.watched.changes),
			zap.Int("redelivered", c.watched.redelivered), zap.Int("unequal", c.watched.unequal), zap.String("end", c.watched.end))
	}
	switch {
	case failure != nil:
		fields = appendFailure(fields, failure)
	case c.Answer.Decision != eligibility.DecisionNone:
		fields = appendAnswer(fields, &c.Answer)
	case c.tally != nil:
		fields = ch.appendItems(appendTally(fields, c.tally), c.batch)
	case c.prefetched != nil:
		fields = append(fields, zap.Int("fresh", c.prefetched.Fresh), zap.Int("fetching", c.prefetched.Fetching), zap.Int("refused", c.prefetched.Refused))
	}
	return fields
}

func appendAnswer(fields []zap.Field, answer *eligibility.Answer) []zap.Field {
	fields = append(fields, zap.String("decision", decision(answer.Decision).String()), zap.Array("reasons", reasonNames(answer.Reasons)))
	if word := accountWord(answer.Account); word != "" {
		fields = append(fields, zap.String("account_status", word))
	}
	if !answer.EvidenceTime.IsZero() {
		fields = append(fields, zap.Time("evidence_time", answer.EvidenceTime))
	}
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
	if t.undecided > 0 {
		fields = append(fields, zap.Int("undecided", t.undecided))
	}
	if t.cause != nil {
		fields = append(fields, zap.Error(t.cause))
	}
	return fields
}

// reasonNames are the codes of reasons in a record.
type reasonNames []eligibility.Reason

// MarshalLogArray writes the codes.
func (r reasonNames) MarshalLogArray(codes zapcore.ArrayEncoder) error {
	for _, reason := range r {
		codes.AppendString(reason.Code.String())
	}
	return nil
}

// maxWord bounds a word of Partner Center in a record.
const maxWord = 64

// accountWord returns the account's status as Partner Center sent it, "" if it sent
// none. Text that is not a word is not repeated.
func accountWord(account *eligibility.Evidence) string {
	if account == nil {
		return ""
	}
	word := account.StatusText
	for i := range len(word) {
		letter := word[i] | 0x20
		if (letter < 'a' || letter > 'z') && word[i] != '_' && word[i] != '-' && word[i] != ' ' || i >= maxWord {
			return "unrecognized"
		}
	}
	return word
}

// maxNamed is how many items of a batch its record names.
const maxNamed = 10

// appendItems names the first items of a batch that are blocked or have failed: by
// customer, or by place if it is not known.
func (ch *Chain) appendItems(fields []zap.Field, items BatchReply) []zap.Field {
	var blocked, failed []string
	for i := range items {
		item := &items[i]
		if item.err == nil && item.Answer.Decision == eligibility.DecisionAllowed {
			continue
		}
		if len(blocked)+len(failed) == maxNamed {
			break
		}
		name := "requests[" + strconv.Itoa(i) + "]"
		if item.CustomerID != (eligibility.CustomerID{}) {
			name = ch.cfg.Decisions.Name(item.CustomerID).String()
		}
		if item.err != nil {
			failed = append(failed, name)
		} else {
			blocked = append(blocked, name)
		}
	}
	if blocked != nil {
		fields = append(fields, zap.Strings("blocked_ids", blocked))
	}
	if failed != nil {
		fields = append(fields, zap.Strings("failed_ids", failed))
	}
	return fields
}

// appendUpstream adds what a fetch for this RPC did at Partner Center.
func appendUpstream(fields []zap.Field, upstream eligibility.Call) []zap.Field {
	if upstream == (eligibility.Call{}) {
		return fields
	}
	if upstream.Lane != "" {
		fields = append(fields, zap.String("lane", upstream.Lane))
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
