package eligibility

// accountReason is the account rule: what a status means for an operation.
// Nothing but AccountStatusAllowed and AccountStatusNone and, if the policy permits
// it, AccountStatusNotReady and, for an operation that it exempts,
// AccountStatusUnderReview allows; a status that is no case here blocks.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/retrieve-validation-status
// (read 2026-11-21)
func (p Policy) accountReason(status AccountStatus, operation Operation) Reason {
	switch status {
	case AccountStatusAllowed:
		return Reason{Code: ReasonAccountAllowed}
	case AccountStatusNone:
		return Reason{Code: ReasonAccountHasNoStatus}
	case AccountStatusUnderReview:
		if p.exempts(operation) {
			return Reason{Code: ReasonAccountReviewExempt}
		}
		return Reason{Code: ReasonAccountUnderReview, Blocks: true}
	case AccountStatusNotAllowed:
		return Reason{Code: ReasonAccountNotAllowed, Blocks: true}
	case AccountStatusUnknown:
		return Reason{Code: ReasonAccountUnknown, Blocks: true}
	case AccountStatusNotReady:
		return Reason{Code: ReasonAccountNotReady, Blocks: !p.NotReadyAllowed}
	default:
		return Reason{Code: ReasonAccountStatusUnrecognized, Blocks: true}
	}
}

// segmentReason is the segment rule: what the qualifications held mean for a
// purchase in a segment other than commercial.
func segmentReason(segment Segment, held []Qualification) Reason {
	decides := deciding(held, neededQualification(segment))
	if decides == nil {
		return Reason{Code: ReasonQualificationMissing, Blocks: true}
	}
	switch decides.VettingStatus {
	case VettingApproved:
		return Reason{Code: ReasonQualificationApproved}
	case VettingInReview:
		return Reason{Code: ReasonQualificationInReview, Blocks: true}
	case VettingDenied:
		return Reason{Code: ReasonQualificationDenied, Blocks: true}
	default:
		return Reason{Code: ReasonQualificationUnrecognized, Blocks: true}
	}
}

// deciding returns the entry of the needed kind that decides, or nil if none is
// held. Approved wins unless a Denied is later than every Approved, all of them
// dated. Without an Approved the order of outranks decides.
func deciding(held []Qualification, needed QualificationType) *Qualification {
	var best, denied *Qualification // denied is the latest that is dated
	undated := false                // whether an Approved has no date
	for i := range held {
		q := &held[i]
		if q.Type != needed || needed == QualificationUnrecognized {
			continue
		}
		if best == nil || outranks(q, best) {
			best = q
		}
		if q.VettingCreatedTime.IsZero() {
			undated = undated || q.VettingStatus == VettingApproved
		} else if q.VettingStatus == VettingDenied && (denied == nil || outranks(q, denied)) {
			denied = q
		}
	}
	if denied != nil && best.VettingStatus == VettingApproved && !undated &&
		denied.VettingCreatedTime.After(best.VettingCreatedTime) {
		return denied
	}
	return best
}

// neededQualification is what a segment asks for; QualificationUnrecognized,
// which nothing satisfies, for a segment that is not known.
func neededQualification(segment Segment) QualificationType {
	switch segment {
	case SegmentEducation:
		return QualificationEducation
	case SegmentGovernment:
		return QualificationGovernmentCommunityCloud
	case SegmentNonprofit:
		return QualificationNonprofit
	default:
		return QualificationUnrecognized
	}
}

// outranks reports whether a decides over b if the same qualification is held
// several times and no Denied revokes an Approved: any Approved, then the newest
// date (undated is oldest), then InReview over Denied over anything else.
func outranks(a, b *Qualification) bool {
	if (a.VettingStatus == VettingApproved) != (b.VettingStatus == VettingApproved) {
		return a.VettingStatus == VettingApproved
	}
	if !a.VettingCreatedTime.Equal(b.VettingCreatedTime) {
		return a.VettingCreatedTime.After(b.VettingCreatedTime)
	}
	return tieRank(a.VettingStatus) > tieRank(b.VettingStatus)
}

func tieRank(status VettingStatus) int {
	switch status {
	case VettingInReview:
		return 2
	case VettingDenied:
		return 1
	default:
		return 0
	}
}
