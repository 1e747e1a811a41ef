package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// maxBatch is the most questions that one batch may ask.
	maxBatch = 1000
	// maxClockLead is how far in the future min_evidence_time may lie, for
	// callers whose clock runs ahead of ours.
	maxClockLead = time.Second
	// itemReserve is the part of a batch's time that is kept back for each of its
	// questions, to report those that are still open and to encode them all.
	itemReserve = 100 * time.Microsecond
)

// handler answers the RPCs: it reads requests into the domain's words and says
// the domain's answers in the API's. Its errors are the domain's.
type handler struct {
	eligibilityv1.UnimplementedEligibilityServiceServer

	service *evidence.Service
	metrics *metrics
	now     func() time.Time
	memo    memo
}

var _ eligibilityv1.EligibilityServiceServer = (*handler)(nil)

// CheckEligibility answers one question.
func (h *handler) CheckEligibility(ctx context.Context, req *eligibilityv1.CheckEligibilityRequest) (*eligibilityv1.CheckEligibilityResponse, error) {
	c := callOf(ctx)
	faults := c.rest.violations
	question := h.question(req, &faults)
	if err := faults.err(); err != nil {
		return nil, err
	}
	c.customerID, c.knowsCustomerID = question.CustomerID, true
	ctx, span := c.child(ctx, "check")
	answer, err := h.service.Check(ctx, question)
	span.End()
	if err != nil {
		return nil, err
	}
	c.answer = answer
	h.metrics.decided(&c.answer)
	if c.rendered = h.memo.of(question.CustomerID, &c.answer); c.rendered != nil {
		return c.rendered.message, nil
	}
	return response(question.CustomerID.String(), &c.answer), nil
}

// BatchCheckEligibility answers up to maxBatch questions, each on its own. It
// fails as a whole only if the batch itself is malformed.
func (h *handler) BatchCheckEligibility(ctx context.Context, req *eligibilityv1.BatchCheckEligibilityRequest) (*eligibilityv1.BatchCheckEligibilityResponse, error) {
	c := callOf(ctx)
	faults := c.rest.violations
	n := len(req.GetRequests())
	if len(faults.kept) == 0 && (n == 0 || n > maxBatch) {
		faults.add("requests", fmt.Sprintf("must hold 1 to %d questions", maxBatch))
	}
	if err := faults.err(); err != nil {
		return nil, err
	}
	c.tally, c.batch = new(tally), newRenderedBatch(n)
	questions := make([]eligibility.Request, 0, n)
	places := make([]int, 0, n) // place in questions → place in the batch
	nameable := maxViolations
	for i, item := range req.GetRequests() {
		faults := c.rest.itemFaults(i)
		question := h.question(item, &faults)
		// Each item names one at least, or its caller could not correct it.
		faults.limit(max(nameable, 1))
		if err := faults.err(); err != nil {
			nameable -= len(faults.kept)
			h.refuse(c, i, domainError(err))
			continue
		}
		questions = append(questions, question)
		places = append(places, i)
	}
	if len(questions) > 0 {
		earlier := withReserve(ctx, time.Duration(n)*itemReserve)
		defer earlier.end()
		ctx, span := c.child(earlier, "check batch")
		h.service.CheckBatch(ctx, questions, func(i int, answer *eligibility.Answer, err error) {
			if err != nil {
				h.refuse(c, places[i], domainError(err))
				return
			}
			h.accept(c, places[i], questions[i].CustomerID, answer)
		})
		span.End()
	}
	return c.batch.message, nil
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
	switch cause := undecided(answer); {
	case cause != nil:
		c.tally.undecided++
		c.tally.blame(cause)
	case answer.Decision == eligibility.DecisionAllowed:
		c.tally.allowed++
	default:
		c.tally.blocked++
	}
	h.metrics.decided(answer)
	result := &c.batch.message.Results[place]
	if known := h.memo.of(id, answer); known != nil {
		*result, c.batch.known[place] = known.result, known
		return
	}
	*result = resultOf(response(id.String(), answer))
}

func resultOf(message *eligibilityv1.CheckEligibilityResponse) *eligibilityv1.BatchCheckEligibilityResult {
	return &eligibilityv1.BatchCheckEligibilityResult{
		Result: &eligibilityv1.BatchCheckEligibilityResult_Response{Response: message},
	}
}

// refuse makes the result of an item that has no answer.
func (h *handler) refuse(c *call, place int, err *eligibility.Error) {
	c.tally.fail(err)
	h.metrics.failed(err, 1)
	c.batch.message.Results[place] = &eligibilityv1.BatchCheckEligibilityResult{
		Result: &eligibilityv1.BatchCheckEligibilityResult_Error{Error: itemError(err)},
	}
}

// question converts a request and adds every field that is wrong to faults.
func (h *handler) question(req *eligibilityv1.CheckEligibilityRequest, faults *violations) eligibility.Request {
	var question eligibility.Request
	id, err := eligibility.ParseCustomerID(req.GetCustomerId())
	if err != nil {
		faults.add(fieldCustomerID, "must be a GUID")
	}
	question.CustomerID = id

	asked, known := segment(req.GetSegment())
	if !known {
		faults.add(fieldSegment, "must be a segment that the API defines")
	}
	question.Segment = asked

	if age := req.GetMaxAge(); age != nil {
		question.MaxAge, question.MaxAgeSet = age.AsDuration(), true
		switch {
		case !age.IsValid():
			faults.add(fieldMaxAge, "must be a valid duration")
		case question.MaxAge < 0:
			faults.add(fieldMaxAge, "must not be negative")
		}
	}

	if at := req.GetMinEvidenceTime(); at != nil {
		question.MinEvidenceTime = at.AsTime()
		switch {
		case !at.IsValid():
			faults.add(fieldMinEvidenceTime, "must be a valid timestamp")
		case question.MinEvidenceTime.After(h.now().Add(maxClockLead)):
			faults.add(fieldMinEvidenceTime, "must not lie more than one second in the future")
		}
	}
	return question
}

// The fields of a question, as violations name them.
const (
	fieldCustomerID      = "customer_id"
	fieldSegment         = "segment"
	fieldMaxAge          = "max_age"
	fieldMinEvidenceTime = "min_evidence_time"
)

// response says an answer in the API's words. What no evidence was used for is
// left out.
func response(customerID string, answer *eligibility.Answer) *eligibilityv1.CheckEligibilityResponse {
	resp := &eligibilityv1.CheckEligibilityResponse{
		CustomerId:   customerID,
		Decision:     decision(answer.Decision),
		Reasons:      make([]*eligibilityv1.Reason, 0, len(answer.Reasons)),
		EvidenceTime: timestamp(answer.EvidenceTime),
		ExpireTime:   timestamp(answer.ExpireTime),
		RecheckTime:  timestamp(answer.RecheckTime),
		Source:       evidenceSource(answer.Tier),
		Stale:        answer.Stale,
	}
	for _, reason := range answer.Reasons {
		resp.Reasons = append(resp.Reasons, &eligibilityv1.Reason{
			Code:      reasonCode(reason.Code),
			Message:   reason.Message(),
			Temporary: reason.Temporary(),
			Remedy:    remedy(reason.Remedy()),
		})
	}
	if account := answer.Account; account != nil {
		resp.AccountStatus = accountStatus(account.Status)
		resp.AccountStatusText = account.StatusText
		resp.CorrelationId = account.CorrelationID
	}
	if held := answer.Qualifications; held != nil {
		resp.QualificationsKnown = true
		for i := range held.Qualifications {
			resp.Qualifications = append(resp.Qualifications, qualification(&held.Qualifications[i]))
		}
	}
	return resp
}

func qualification(q *eligibility.Qualification) *eligibilityv1.Qualification {
	return &eligibilityv1.Qualification{
		Type:               qualificationType(q.Type),
		TypeText:           q.TypeText,
		VettingStatus:      vettingStatus(q.VettingStatus),
		VettingStatusText:  q.VettingStatusText,
		VettingReason:      q.VettingReason,
		VettingCreatedTime: timestamp(q.VettingCreatedTime),
	}
}

// timestamp returns nil for the zero time, which stands for none, and for a
// time that the API cannot say.
func timestamp(t time.Time) *timestamppb.Timestamp {
	said := timestamppb.New(t)
	if t.IsZero() || !said.IsValid() {
		return nil
	}
	return said
}
