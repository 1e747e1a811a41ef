package api

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// decisions records the answer to each question in the decision log. If there is none,
// it does nothing. It is safe for concurrent use.
type decisions struct {
	log      *decisionlog.Log // nil if there is none
	policies map[string]*decisionlog.Policy
	now      func() time.Time
	records  *sync.Pool // of *decisionlog.Record
}

func newDecisions(cfg *Config) decisions {
	return decisions{log: cfg.Decisions, policies: cfg.Policies, now: cfg.Now, records: &sync.Pool{New: func() any { return new(decisionlog.Record) }}}
}

// begin returns the record of the answers to come, one after the other, and the basis
// that their questions are to fill; nil if none is written.
func (d *decisions) begin() (*decisionlog.Record, *eligibility.Basis) {
	if d.log == nil {
		return nil, nil
	}
	r, _ := d.records.Get().(*decisionlog.Record)
	return r, &r.Basis
}

// end gives a record back.
func (d *decisions) end(r *decisionlog.Record) {
	if r != nil {
		*r = decisionlog.Record{Reasons: r.Reasons[:0]}
		d.records.Put(r)
	}
}

// single is the place of a question that is no item of a batch.
const single = -1

// decided records what became of a question for a partner, which is nil if it is not
// known. It returns nil, or the error that the caller gets in place of the answer,
// since there is no room for the record within the caller's time.
func (d *decisions) decided(c *call, r *decisionlog.Record, place int, of *partner, question *eligibility.Request, answer *eligibility.Answer, err error) *eligibility.Error {
	if r == nil {
		return nil
	}
	r.Question = decisionlog.Question{
		Customer: decisionlog.PlainCustomer(question.CustomerID), Segment: question.Segment, Operation: question.Operation,
		MaxAge: question.MaxAge, MaxAgeSet: question.MaxAgeSet, MinEvidenceTime: question.MinEvidenceTime,
	}
	if err == nil {
		r.Outcome, r.Stale = decisionlog.OutcomeBlocked, answer.Stale
		if answer.Decision == eligibility.DecisionAllowed {
			r.Outcome = decisionlog.OutcomeAllowed
		}
		for _, reason := range answer.Reasons {
			r.Reasons = append(r.Reasons, reason.Code)
		}
	} else {
		r.Kind = domainError(err).Kind
	}
	failure := d.write(c, r, place, of)
	*r = decisionlog.Record{Reasons: r.Reasons[:0]} // for the next of a group
	return failure
}

// write completes a record and writes it. If the log is to block, that of a decision
// waits for room until the call ends; that of an error never does, so that refusals take
// no room.
func (d *decisions) write(c *call, r *decisionlog.Record, place int, of *partner) *eligibility.Error {
	if r.Time = r.Basis.Time; r.Time.IsZero() {
		r.Time = d.now()
	}
	r.RequestID, r.DecisionID, r.Via = c.id(), c.id(), c.series.via
	if place != single {
		r.DecisionID += "/" + strconv.Itoa(place)
	}
	if c.caller != nil {
		r.Caller, r.Person = c.caller.Name, c.caller.Person
	}
	if c.trace != "" {
		r.TraceID = c.trace.traceID()
	}
	if of != nil {
		r.Partner, r.Policy = of.name, d.policies[of.name]
	}
	if err := d.log.Write(c, r); err != nil {
		failure := domainError(err)
		failure.Err = errNotRecorded
		return failure
	}
	return nil
}

var errNotRecorded = errors.New("the record of the answer was not queued in time")

// refuseItem makes the result of an item of a batch that is not asked, and records it.
func (h *handler) refuseItem(c *call, q *Question, place int, err *eligibility.Error) {
	if h.decisions.log != nil {
		h.recordRefusal(c, q, place, err.Kind)
		c.batch[place].recorded = true
	}
	h.refuse(c, place, err)
}

// refused records questions that ended without the handler's part: refused before, not
// valid, or after a panic.
func (h *handler) refused(c *call, req any, err error) {
	if h.decisions.log == nil || c.recorded {
		return
	}
	kind := domainError(err).Kind
	switch req := req.(type) {
	case *Question:
		h.recordRefusal(c, req, single, kind)
	case *Batch:
		h.refusedBatch(c, req.Questions, kind)
	case *eligibilityv1.CheckEligibilityRequest:
		q := QuestionOf(req)
		h.recordRefusal(c, &q, single, kind)
	case *eligibilityv1.BatchCheckEligibilityRequest:
		h.refusedBatch(c, questionsOf(req), kind)
	case interface{ Questions() int }: // a batch over REST that was not read
		h.recordRefusal(c, nil, single, kind)
	}
}

// refusedBatch is refused for the questions of a batch.
func (h *handler) refusedBatch(c *call, questions []Question, kind eligibility.Kind) {
	if kind == eligibility.KindInvalidArgument || len(questions) == 0 || len(questions) > MaxBatch {
		h.recordRefusal(c, nil, single, kind) // the batch itself is malformed
		return
	}
	for place := range questions {
		if place >= len(c.batch) || !c.batch[place].recorded {
			h.recordRefusal(c, &questions[place], place, kind)
		}
	}
}

// recordRefusal records a question that ended with an error before it was asked. q is
// nil if it was not read.
func (h *handler) recordRefusal(c *call, q *Question, place int, kind eligibility.Kind) {
	if q == nil {
		q = new(Question)
	}
	r := &decisionlog.Record{Kind: kind}
	of := h.describe(c, q, &r.Question)
	r.Question.Invalid = r.Question.Invalid || kind == eligibility.KindInvalidArgument
	_ = h.decisions.write(c, r, place, of) // fails for decisions only
}

// describe fills the question of a record from what was asked, as far as that is valid,
// and returns its partner, nil if that is not known.
func (h *handler) describe(c *call, q *Question, into *decisionlog.Question) *partner {
	var faults Violations
	question, of := h.question(q, c.caller, &faults)
	into.Invalid = !faults.Empty()
	if !into.Invalid {
		into.Segment, into.Operation = question.Segment, question.Operation
		into.MaxAge, into.MaxAgeSet, into.MinEvidenceTime = question.MaxAge, question.MaxAgeSet, question.MinEvidenceTime
	}
	if q.IsGUID {
		into.Customer = decisionlog.PlainCustomer(q.CustomerID)
	}
	return of
}
