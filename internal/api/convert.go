package api

import (
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The functions here convert enumerations of the domain to those of the API. The numbers
// of the two are independent; a value that the API does not have becomes
// its UNSPECIFIED.

// segment reads the API's word; ok is false for a number that the API does not
// define.
func segment(s eligibilityv1.Segment) (_ eligibility.Segment, ok bool) {
	switch s {
	case eligibilityv1.Segment_SEGMENT_UNSPECIFIED, eligibilityv1.Segment_SEGMENT_COMMERCIAL:
		return eligibility.SegmentCommercial, true
	case eligibilityv1.Segment_SEGMENT_EDUCATION:
		return eligibility.SegmentEducation, true
	case eligibilityv1.Segment_SEGMENT_GOVERNMENT:
		return eligibility.SegmentGovernment, true
	case eligibilityv1.Segment_SEGMENT_NONPROFIT:
		return eligibility.SegmentNonprofit, true
	default:
		return 0, false
	}
}

// operation reads the API's word; ok is false for a number that the API does not
// define.
func operation(o eligibilityv1.Operation) (_ eligibility.Operation, ok bool) {
	switch o {
	case eligibilityv1.Operation_OPERATION_UNSPECIFIED, eligibilityv1.Operation_OPERATION_PURCHASE:
		return eligibility.OperationPurchase, true
	case eligibilityv1.Operation_OPERATION_SEAT_INCREASE:
		return eligibility.OperationSeatIncrease, true
	case eligibilityv1.Operation_OPERATION_UPGRADE:
		return eligibility.OperationUpgrade, true
	case eligibilityv1.Operation_OPERATION_RENEWAL:
		return eligibility.OperationRenewal, true
	case eligibilityv1.Operation_OPERATION_SEAT_REDUCTION:
		return eligibility.OperationSeatReduction, true
	case eligibilityv1.Operation_OPERATION_CANCELLATION:
		return eligibility.OperationCancellation, true
	default:
		return 0, false
	}
}

func decision(d eligibility.Decision) eligibilityv1.Decision {
	switch d {
	case eligibility.DecisionAllowed:
		return eligibilityv1.Decision_DECISION_ALLOWED
	case eligibility.DecisionBlocked:
		return eligibilityv1.Decision_DECISION_BLOCKED
	default:
		return eligibilityv1.Decision_DECISION_UNSPECIFIED
	}
}

func reasonCode(code eligibility.ReasonCode) eligibilityv1.ReasonCode {
	switch code {
	case eligibility.ReasonAccountAllowed:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_ALLOWED
	case eligibility.ReasonAccountHasNoStatus:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_HAS_NO_STATUS
	case eligibility.ReasonAccountUnderReview:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW
	case eligibility.ReasonAccountNotAllowed:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_ALLOWED
	case eligibility.ReasonAccountUnknown:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNKNOWN
	case eligibility.ReasonAccountNotReady:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_READY
	case eligibility.ReasonAccountStatusUnrecognized:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED
	case eligibility.ReasonAccountReviewExempt:
		return eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_REVIEW_EXEMPT
	case eligibility.ReasonQualificationApproved:
		return eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_APPROVED
	case eligibility.ReasonQualificationInReview:
		return eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_IN_REVIEW
	case eligibility.ReasonQualificationDenied:
		return eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_DENIED
	case eligibility.ReasonQualificationMissing:
		return eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_MISSING
	case eligibility.ReasonQualificationUnrecognized:
		return eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_UNRECOGNIZED
	case eligibility.ReasonUndecidable:
		return eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE
	default:
		return eligibilityv1.ReasonCode_REASON_CODE_UNSPECIFIED
	}
}

func remedy(r eligibility.Remedy) eligibilityv1.Remedy {
	switch r {
	case eligibility.RemedyNone:
		return eligibilityv1.Remedy_REMEDY_NONE
	case eligibility.RemedyWait:
		return eligibilityv1.Remedy_REMEDY_WAIT
	case eligibility.RemedyUpdateCustomer:
		return eligibilityv1.Remedy_REMEDY_UPDATE_CUSTOMER
	case eligibility.RemedyRequestQualification:
		return eligibilityv1.Remedy_REMEDY_REQUEST_QUALIFICATION
	case eligibility.RemedyContactSupport:
		return eligibilityv1.Remedy_REMEDY_CONTACT_SUPPORT
	default:
		return eligibilityv1.Remedy_REMEDY_UNSPECIFIED
	}
}

func accountStatus(status eligibility.AccountStatus) eligibilityv1.AccountStatus {
	switch status {
	case eligibility.AccountStatusNone:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_NONE
	case eligibility.AccountStatusAllowed:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED
	case eligibility.AccountStatusUnderReview:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW
	case eligibility.AccountStatusNotAllowed:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_NOT_ALLOWED
	case eligibility.AccountStatusUnknown:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNKNOWN
	case eligibility.AccountStatusNotReady:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_NOT_READY
	case eligibility.AccountStatusUnrecognized:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNRECOGNIZED
	default:
		return eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNSPECIFIED
	}
}

func qualificationType(kind eligibility.QualificationType) eligibilityv1.QualificationType {
	switch kind {
	case eligibility.QualificationEducation:
		return eligibilityv1.QualificationType_QUALIFICATION_TYPE_EDUCATION
	case eligibility.QualificationGovernmentCommunityCloud:
		return eligibilityv1.QualificationType_QUALIFICATION_TYPE_GOVERNMENT_COMMUNITY_CLOUD
	case eligibility.QualificationNonprofit:
		return eligibilityv1.QualificationType_QUALIFICATION_TYPE_NONPROFIT
	case eligibility.QualificationStateOwnedEntity:
		return eligibilityv1.QualificationType_QUALIFICATION_TYPE_STATE_OWNED_ENTITY
	default:
		return eligibilityv1.QualificationType_QUALIFICATION_TYPE_UNRECOGNIZED
	}
}

func vettingStatus(status eligibility.VettingStatus) eligibilityv1.VettingStatus {
	switch status {
	case eligibility.VettingUnspecified:
		return eligibilityv1.VettingStatus_VETTING_STATUS_UNSPECIFIED
	case eligibility.VettingApproved:
		return eligibilityv1.VettingStatus_VETTING_STATUS_APPROVED
	case eligibility.VettingInReview:
		return eligibilityv1.VettingStatus_VETTING_STATUS_IN_REVIEW
	case eligibility.VettingDenied:
		return eligibilityv1.VettingStatus_VETTING_STATUS_DENIED
	default:
		return eligibilityv1.VettingStatus_VETTING_STATUS_UNRECOGNIZED
	}
}

func evidenceSource(tier eligibility.Tier) eligibilityv1.EvidenceSource {
	switch tier {
	case eligibility.TierLocal:
		return eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL
	case eligibility.TierRedis:
		return eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS
	case eligibility.TierPartnerCenter:
		return eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER
	default:
		return eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_UNSPECIFIED
	}
}
