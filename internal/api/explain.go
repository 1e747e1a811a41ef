package api

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// fieldAt is the field of an explanation that has the time.
const fieldAt = "at"

// explainReviewsTimeout bounds the read of a customer's reviews.
const explainReviewsTimeout = 400 * time.Millisecond

// ExplainEligibility explains the answers about one customer. It makes no call to
// Partner Center. What cannot be read within about a second is listed as unread.
func (h *handler) ExplainEligibility(ctx context.Context, req *eligibilityv1.ExplainEligibilityRequest) (*eligibilityv1.ExplainEligibilityResponse, error) {
	c := callOf(ctx)
	faults := c.in.Violations
	id, err := eligibility.ParseCustomerID(req.GetCustomerId())
	if err != nil {
		faults.Add(FieldCustomerID, "must be a GUID")
	}
	does, known := operation(req.GetOperation())
	if !known {
		faults.Add(FieldOperation, "must be an operation that the API defines")
	}
	var at *time.Time
	if asked := req.GetAt(); asked != nil {
		then := asked.AsTime()
		at = &then
		switch {
		case !asked.IsValid():
			faults.Add(fieldAt, "must be a valid timestamp")
		case then.After(h.now().Add(maxClockLead)):
			faults.Add(fieldAt, "must not lie more than one second in the future")
		}
	}
	of := h.partners.find(req.GetPartner(), c.caller, &faults)
	if err := faults.Err(); err != nil {
		return nil, err
	}
	c.CustomerID, c.knowsCustomerID = id, true
	c.partner, c.partners, c.operation = of, 1, does
	ctx, span := c.child(ctx, "explain")
	defer span.End()
	e := of.service.Explain(ctx, id, does, at)
	resp := explanation(id, &e, c.Language)
	if list := h.reviews[of.name]; list != nil && at == nil {
		reading, cancel := context.WithTimeout(ctx, explainReviewsTimeout)
		defer cancel()
		pending, err := list.Of(reading, id)
		if err != nil {
			resp.Unread = append(resp.Unread, eligibilityv1.ExplanationPart_EXPLANATION_PART_REVIEWS)
		}
		for i := range pending {
			resp.Reviews = append(resp.Reviews, review(&pending[i]))
		}
	}
	return resp, nil
}

// explanation converts an explanation to its message.
func explanation(id eligibility.CustomerID, e *evidence.Explanation, in eligibility.Language) *eligibilityv1.ExplainEligibilityResponse {
	resp := &eligibilityv1.ExplainEligibilityResponse{CustomerId: id.String(), ExplainTime: timestamppb.New(e.Time)}
	for i := range e.Segments {
		resp.Segments = append(resp.Segments, segmentExplanation(id, &e.Segments[i], in))
	}
	for i := range e.Evidence {
		held := &e.Evidence[i]
		resp.Evidence = append(resp.Evidence, &eligibilityv1.HeldEvidence{
			Facet: facetOf(held.Facet), Tier: evidenceSource(held.Tier), Facts: factsOf(held.Evidence),
			EvidenceTime: timestamppb.New(held.FetchTime), ExpireTime: timestamppb.New(held.Lifetime.FreshUntil), UsableUntilTime: timestamppb.New(held.Lifetime.UsableUntil),
			MustRevalidate: held.MustRevalidate, CorrelationId: valid(held.CorrelationID), RequestId: valid(held.RequestID),
		})
	}
	for _, o := range e.Obstacles {
		resp.Obstacles = append(resp.Obstacles, obstacleOf(o))
	}
	for _, change := range e.History {
		resp.History = append(resp.History, &eligibilityv1.HistoryEntry{
			Facet: facetOf(change.After.Facet), Before: factsOf(change.Before), After: factsOf(change.After),
			EvidenceTime: timestamppb.New(change.After.FetchTime), ConfirmedTime: timestamppb.New(change.Confirmed), CorrelationId: valid(change.After.CorrelationID),
		})
	}
	if e.Unread {
		resp.Unread = append(resp.Unread, eligibilityv1.ExplanationPart_EXPLANATION_PART_EVIDENCE)
	}
	if e.HistoryUnread {
		resp.Unread = append(resp.Unread, eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY)
	}
	return resp
}

func segmentExplanation(id eligibility.CustomerID, s *evidence.SegmentExplanation, in eligibility.Language) *eligibilityv1.SegmentExplanation {
	message := &eligibilityv1.SegmentExplanation{Segment: segmentOf(s.Segment)}
	if s.Err != nil {
		message.Result = &eligibilityv1.SegmentExplanation_Error{Error: itemError(domainError(s.Err))}
	} else {
		message.Result = &eligibilityv1.SegmentExplanation_Response{Response: checkResponse(id, &s.Answer, in)}
	}
	for _, rule := range s.Rules {
		message.Rules = append(message.Rules, &eligibilityv1.AppliedRule{
			Facet: facetOf(rule.Facet), Word: valid(rule.Word), Rule: ruleOf(rule.Rule), Outcome: ruleOutcome(rule.Outcome), Reason: reasonCode(rule.Reason),
		})
	}
	return message
}

// checkResponse converts an answer to its message.
func checkResponse(id eligibility.CustomerID, a *eligibility.Answer, in eligibility.Language) *eligibilityv1.CheckEligibilityResponse {
	resp := &eligibilityv1.CheckEligibilityResponse{
		CustomerId: id.String(), Decision: decision(a.Decision), QualificationsKnown: a.Qualifications != nil,
		EvidenceTime: timestampOf(a.EvidenceTime), ExpireTime: timestampOf(a.ExpireTime), RecheckTime: timestampOf(a.RecheckTime),
		Source: evidenceSource(a.Tier), Stale: a.Stale,
	}
	for _, reason := range a.Reasons {
		resp.Reasons = append(resp.Reasons, &eligibilityv1.Reason{
			Code: reasonCode(reason.Code), Message: reason.Message(in), Temporary: reason.Temporary(), Remedy: remedy(reason.Remedy()),
		})
	}
	if account := a.Account; account != nil {
		resp.AccountStatus, resp.AccountStatusText, resp.CorrelationId = accountStatus(account.Status), valid(account.StatusText), valid(account.CorrelationID)
	}
	if held := a.Qualifications; held != nil {
		resp.Qualifications = qualificationsOf(held.Qualifications)
	}
	return resp
}

// factsOf returns nil if nothing is known.
func factsOf(e *eligibility.Evidence) *eligibilityv1.Facts {
	if e == nil {
		return nil
	}
	facts := &eligibilityv1.Facts{Absence: absenceOf(e.Absence), AccountStatusText: valid(e.StatusText), Qualifications: qualificationsOf(e.Qualifications)}
	if e.Facet == eligibility.FacetAccount && e.Absence == eligibility.AbsenceNone {
		facts.AccountStatus = accountStatus(e.Status)
	}
	return facts
}

func qualificationsOf(held []eligibility.Qualification) (messages []*eligibilityv1.Qualification) {
	for i := range held {
		q := &held[i]
		messages = append(messages, &eligibilityv1.Qualification{
			Type: qualificationType(q.Type), TypeText: valid(q.TypeText), VettingStatus: vettingStatus(q.VettingStatus), VettingStatusText: valid(q.VettingStatusText),
			VettingReason: valid(q.VettingReason), VettingCreatedTime: timestampOf(q.VettingCreatedTime),
		})
	}
	return messages
}

func obstacleOf(o evidence.Obstacle) *eligibilityv1.Obstacle {
	return &eligibilityv1.Obstacle{Kind: obstacleKind(o.Kind), Host: obstacleHost(o.Host), UntilTime: timestampOf(o.Until)}
}

// timestampOf returns nil for a time that a timestamp cannot have, as for zero.
func timestampOf(t time.Time) *timestamppb.Timestamp {
	if !IsTimestamp(t) {
		return nil
	}
	return timestamppb.New(t)
}

// valid returns a text that a message can hold. Evidence has no other texts, unless
// somebody else has written it.
func valid(s string) string { return strings.ToValidUTF8(s, string(utf8.RuneError)) }
