package api

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// message returns the message that a reply stands for: the reference of the
// encoders. Fields that no evidence was used for are left out.
func (r *CheckReply) message() *eligibilityv1.CheckEligibilityResponse {
	answer := &r.Answer
	resp := &eligibilityv1.CheckEligibilityResponse{
		CustomerId:   r.CustomerID.String(),
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
			Message:   reason.Message(r.Language),
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
// time that is no valid Timestamp.
func timestamp(t time.Time) *timestamppb.Timestamp {
	at := timestamppb.New(t)
	if t.IsZero() || !at.IsValid() {
		return nil
	}
	return at
}

// message returns the message that a batch's results stand for.
func (r BatchReply) message() *eligibilityv1.BatchCheckEligibilityResponse {
	batch := new(eligibilityv1.BatchCheckEligibilityResponse)
	for i := range r {
		result := new(eligibilityv1.BatchCheckEligibilityResult)
		if r[i].err != nil {
			result.Result = &eligibilityv1.BatchCheckEligibilityResult_Error{Error: itemError(r[i].err)}
		} else {
			result.Result = &eligibilityv1.BatchCheckEligibilityResult_Response{Response: r[i].CheckReply.message()}
		}
		batch.Results = append(batch.Results, result)
	}
	return batch
}
