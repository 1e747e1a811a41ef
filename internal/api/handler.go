package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/reviews"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// MaxBatch is the most questions that one batch may ask.
	MaxBatch = 1000
	// maxClockLead is how far in the future min_evidence_time may lie, for
	// callers whose clock runs ahead of ours.
	maxClockLead = time.Second
	// itemReserve is the part of a batch's time that is kept back for each of its
	// questions, to report those that are still open and to encode them all.
	itemReserve = 100 * time.Microsecond
)

// handler answers the RPCs: it converts requests to domain types and leaves the
// domain's answers in the call, which the interceptor returns. It returns no
// message itself, only the domain's errors.
type handler struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	partners Partners
	budgets  map[string]int // partner → calls to Partner Center a minute
	metrics  *metrics
	now      func() time.Time

	decisions decisions

	logs        map[string]*changes.Log // by partner
	reviews     map[string]reviews.List // by partner
	watchers    watchers
	comparisons comparisons
	watchTimes  watchTimes
}

var _ eligibilityv1.EligibilityServiceServer = (*handler)(nil)

// CheckEligibility answers one question of a client within the process, as the console has
// one: gRPC and REST ask check.
func (h *handler) CheckEligibility(ctx context.Context, req *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	q := QuestionOf(req)
	return nil, h.check(ctx, &q) // the call has the answer
}

// check answers one question. The answer is the call's.
func (h *handler) check(ctx context.Context, q *Question) error {
	c := callOf(ctx)
	faults := c.in.Violations
	question, of := h.question(q, c.caller, &faults)
	if err := faults.Err(); err != nil {
		return err
	}
	c.CustomerID, c.knowsCustomerID = question.CustomerID, true
	c.partner, c.partners, c.operation, c.segment = of, 1, question.Operation, question.Segment
	var record *decisionlog.Record
	record, question.Basis = h.decisions.begin()
	ctx, span := c.child(ctx, "check")
	answer, err := of.service.Check(ctx, question)
	span.End()
	c.recorded = record != nil
	failure := h.decisions.decided(c, record, single, of, &question, &answer, err)
	h.decisions.end(record)
	switch {
	case failure != nil:
		return failure
	case err != nil:
		return err
	}
	c.Answer = answer
	h.metrics.decided(c, &c.Answer)
	return nil
}

// BatchCheckEligibility answers up to MaxBatch questions, each on its own.
func (h *handler) BatchCheckEligibility(ctx context.Context, req *eligibilityv1.BatchCheckEligibilityRequest) (*eligibilityv1.BatchCheckEligibilityResponse, error) {
	return nil, h.checkBatch(ctx, questionsOf(req), new(batchMemory)) // the call has the answers
}

// checkBatch answers up to MaxBatch questions, each on its own. It fails as a whole
// only if the batch itself is malformed. The answers are the call's.
func (h *handler) checkBatch(ctx context.Context, questions []Question, memory *batchMemory) error {
	c := callOf(ctx)
	faults := c.in.Violations
	n := len(questions)
	if len(faults.kept) == 0 && (n == 0 || n > MaxBatch) {
		faults.Add("requests", fmt.Sprintf("must hold 1 to %d questions", MaxBatch))
	}
	if err := faults.Err(); err != nil {
		return err
	}
	asked := &batch{handler: h, call: c, memory: memory}
	memory.reply = slices.Grow(memory.reply[:0], n)[:n]
	c.tally, c.batch = &asked.tally, memory.reply
	defer func() { h.metrics.add(&asked.tally.answers) }()
	nameable := maxViolations
	more, limited := c.take(c.start, n-1) // the chain has taken the first
	for i := range questions {
		item := &questions[i]
		if i > more {
			c.batch[i].CustomerID = item.CustomerID // for the log
			h.refuseItem(c, item, i, limited)
			continue
		}
		faults := c.in.itemFaults(i)
		question, of := h.question(item, c.caller, &faults)
		// Each item names one at least, or its caller could not correct it.
		faults.limit(max(nameable, 1))
		if err := faults.Err(); err != nil {
			nameable -= len(faults.kept)
			c.batch[i].CustomerID = question.CustomerID
			h.refuseItem(c, item, i, domainError(err))
			continue
		}
		asked.add(of, question, i)
	}
	c.partners = asked.partners()
	if c.partners == 1 {
		c.partner = asked.first.of
	}
	earlier := withReserve(ctx, time.Duration(n)*itemReserve)
	defer earlier.end()
	ctx, span := c.child(earlier, "check batch")
	defer span.End()
	asked.check(ctx)
	h.stateBudget(c)
	return nil
}

// TrailerBudget is the trailer with which a batch for one partner that needed
// Partner Center states how many calls a minute may be made for the partner: the
// caller of a long list can then estimate how long it takes.
const TrailerBudget = "eligibility-budget-per-minute"

func (h *handler) stateBudget(c *call) {
	if c.partner == nil || h.budgets[c.partner.name] == 0 || c.series.via != viaGRPC || !c.batch.neededPartnerCenter() {
		return
	}
	_ = grpc.SetTrailer(c, metadata.Pairs(TrailerBudget, strconv.Itoa(h.budgets[c.partner.name]))) // nobody depends on it
}

// PrefetchEligibility starts fetches for customers and returns what became of them,
// without waiting for any.
func (h *handler) PrefetchEligibility(ctx context.Context, req *eligibilityv1.PrefetchEligibilityRequest) (*eligibilityv1.PrefetchEligibilityResponse, error) {
	c := callOf(ctx)
	faults := c.in.Violations
	n := len(req.GetCustomerIds())
	if n == 0 || n > MaxBatch {
		faults.Add(fieldCustomerIDs, fmt.Sprintf("must hold 1 to %d customers", MaxBatch))
		return nil, faults.Err()
	}
	ids := customers(req.GetCustomerIds(), MaxBatch, &faults)
	asked := askedSegment(req.GetSegment(), &faults)
	of := h.partners.find(req.GetPartner(), c.caller, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	c.partner, c.partners = of, 1
	ctx, span := c.child(ctx, "prefetch")
	more, _ := c.take(time.Now(), len(ids)-1) // the chain has taken the first
	prefetched := of.service.Prefetch(ctx, ids[:more+1], asked)
	prefetched.Refused += len(ids) - (more + 1)
	span.End()
	c.prefetched = &prefetched
	return &eligibilityv1.PrefetchEligibilityResponse{
		FreshCount: int32(prefetched.Fresh), FetchingCount: int32(prefetched.Fetching), RefusedCount: int32(prefetched.Refused), //nolint:gosec // up to MaxBatch
	}, nil
}

// withReserve ends the context earlier by reserve, but leaves half of its time.
func withReserve(ctx context.Context, reserve time.Duration) *lazyContext {
	earlier := &lazyContext{Context: ctx}
	if deadline, ok := ctx.Deadline(); ok {
		earlier.deadline = deadline.Add(-max(min(reserve, time.Until(deadline)/2), 0))
	}
	return earlier
}

// accept makes the result of an item that was answered.
func (h *handler) accept(c *call, place int, id eligibility.CustomerID, answer *eligibility.Answer) {
	cause := undecided(answer)
	switch {
	case cause != nil:
		c.tally.undecided++
		c.tally.blame(cause)
		h.metrics.failed(cause, 1, c.impatient())
	case answer.Decision == eligibility.DecisionAllowed:
		c.tally.allowed++
	default:
		c.tally.blocked++
	}
	c.tally.answers.count(answer, cause != nil)
	reply := &c.batch[place].CheckReply
	reply.CustomerID, reply.Language = id, c.Language
	reply.Answer = *answer
}

// refuse makes the result of an item that has no answer.
func (h *handler) refuse(c *call, place int, err *eligibility.Error) {
	c.tally.fail(err)
	h.metrics.failed(err, 1, c.impatient())
	c.batch[place].err = err
}

// fieldCustomerIDs is the field of a prefetch that names the customers.
const fieldCustomerIDs = "customer_ids"
