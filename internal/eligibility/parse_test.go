package eligibility_test

import (
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestWordsIgnoreCaseBlanksAndSeparators(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]eligibility.AccountStatus{
		"Allowed":         eligibility.AccountStatusAllowed,
		" al\tLOWED_-":    eligibility.AccountStatusAllowed,
		"Under Review":    eligibility.AccountStatusUnderReview,
		"under-review":    eligibility.AccountStatusUnderReview,
		"NOT_ALLOWED":     eligibility.AccountStatusNotAllowed,
		"unknown":         eligibility.AccountStatusUnknown,
		"Un\u212anown":    eligibility.AccountStatusUnrecognized,
		"Not Ready":       eligibility.AccountStatusNotReady,
		"NotReady":        eligibility.AccountStatusNotReady,
		"Approved":        eligibility.AccountStatusUnrecognized,
		"Allowed.":        eligibility.AccountStatusUnrecognized,
		"All\u00a0owed":   eligibility.AccountStatusUnrecognized,
		"\uff21llowed":    eligibility.AccountStatusUnrecognized,
		"None":            eligibility.AccountStatusUnrecognized,
		" ":               eligibility.AccountStatusUnrecognized,
		"\u8a31\u53ef":    eligibility.AccountStatusUnrecognized,
		"AllowedAllowed":  eligibility.AccountStatusUnrecognized,
		"allowed\x00":     eligibility.AccountStatusUnrecognized,
		"not\nready\f\v ": eligibility.AccountStatusNotReady,
	} {
		if got := eligibility.ParseAccountStatus(word); got != want {
			t.Errorf("ParseAccountStatus(%q) = %d, want %d", word, got, want)
		}
	}
	for word, want := range map[string]eligibility.QualificationType{
		"Education":                  eligibility.QualificationEducation,
		"government_community_cloud": eligibility.QualificationGovernmentCommunityCloud,
		"GCC":                        eligibility.QualificationUnrecognized,
		"non-profit":                 eligibility.QualificationNonprofit,
		"StateOwnedEntity":           eligibility.QualificationStateOwnedEntity,
	} {
		if got, held := eligibility.ParseQualificationType(word); got != want || !held {
			t.Errorf("ParseQualificationType(%q) = %d, %t, want %d", word, got, held, want)
		}
	}
	if _, held := eligibility.ParseQualificationType("None"); held {
		t.Error(`"None" counts as held`)
	}
	for word, want := range map[string]eligibility.VettingStatus{
		"":          eligibility.VettingUnspecified,
		"approved":  eligibility.VettingApproved,
		"In Review": eligibility.VettingInReview,
		"DENIED":    eligibility.VettingDenied,
		"Expired":   eligibility.VettingUnrecognized,
	} {
		if got := eligibility.ParseVettingStatus(word); got != want {
			t.Errorf("ParseVettingStatus(%q) = %d, want %d", word, got, want)
		}
	}
}
