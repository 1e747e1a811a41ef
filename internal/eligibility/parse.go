package eligibility

import "time"

// ParseAccountStatus reads a non-empty status word of Partner Center, ignoring
// case, ASCII white space, '_' and '-'.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/retrieve-validation-status
// (read 2026-11-21)
func ParseAccountStatus(word string) AccountStatus {
	switch FoldWord(word) {
	case "allowed":
		return AccountStatusAllowed
	case "underreview":
		return AccountStatusUnderReview
	case "notallowed":
		return AccountStatusNotAllowed
	case "unknown":
		return AccountStatusUnknown
	case "notready":
		return AccountStatusNotReady
	default:
		return AccountStatusUnrecognized
	}
}

// ParseQualificationType reads a qualification word as [ParseAccountStatus]
// reads a status. held is false for "None", which means that none is held.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/get-customer-qualification-asynchronous
// (read 2026-11-21)
func ParseQualificationType(word string) (kind QualificationType, held bool) {
	switch FoldWord(word) {
	case "none":
		return QualificationUnrecognized, false
	case "education":
		return QualificationEducation, true
	case "governmentcommunitycloud":
		return QualificationGovernmentCommunityCloud, true
	case "nonprofit":
		return QualificationNonprofit, true
	case "stateownedentity":
		return QualificationStateOwnedEntity, true
	default:
		return QualificationUnrecognized, true
	}
}

// ParseVettingStatus reads a vetting status word as [ParseAccountStatus] reads
// a status; the empty string is VettingUnspecified.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/get-customer-qualification-asynchronous
// (read 2026-11-21)
func ParseVettingStatus(word string) VettingStatus {
	if word == "" {
		return VettingUnspecified
	}
	switch FoldWord(word) {
	case "approved":
		return VettingApproved
	case "inreview":
		return VettingInReview
	case "denied":
		return VettingDenied
	default:
		return VettingUnrecognized
	}
}

// ParseQualification converts one qualification in Partner Center's words. It
// returns false for "None", which means that none is held.
func ParseQualification(kind, vettingStatus, vettingReason string, vettingCreated time.Time) (Qualification, bool) {
	parsed, isHeld := ParseQualificationType(kind)
	if !isHeld {
		return Qualification{}, false
	}
	return Qualification{
		Type: parsed, TypeText: kind,
		VettingStatus: ParseVettingStatus(vettingStatus), VettingStatusText: vettingStatus,
		VettingReason: vettingReason, VettingCreatedTime: vettingCreated,
	}, true
}

// FoldWord returns word in ASCII lower case without ASCII white space, '_' and
// '-': the form in which the words of Partner Center and of callers are compared.
func FoldWord(word string) string { return string(AppendFolded(make([]byte, 0, len(word)), word)) }

// AppendFolded appends what [FoldWord] returns.
func AppendFolded[T string | []byte](b []byte, word T) []byte {
	for i := range len(word) {
		switch c := word[i]; {
		case c == ' ' || '\t' <= c && c <= '\r' || c == '_' || c == '-':
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		default:
			b = append(b, c)
		}
	}
	return b
}

// Word returns word or, if it is one that Partner Center is known to use, the same
// word in memory that all evidence shares.
func Word(word string) string {
	for _, known := range [...]string{
		"Allowed", "UnderReview", "NotAllowed", "Unknown", "NotReady", "Under Review", "Not Allowed", "Not Ready",
		"Education", "GovernmentCommunityCloud", "Nonprofit", "StateOwnedEntity", "Approved", "InReview", "Denied", "In Review",
	} {
		if word == known {
			return known
		}
	}
	return word
}
