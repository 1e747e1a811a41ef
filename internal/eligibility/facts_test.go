package eligibility_test

import (
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func account(word string) *eligibility.Evidence {
	return &eligibility.Evidence{StatusText: word, Status: eligibility.ParseAccountStatus(word)}
}

func qualified(items ...eligibility.Qualification) *eligibility.Evidence {
	return &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: items}
}

func vetted(kind, vetting, reason string, created time.Time) eligibility.Qualification {
	q, _ := eligibility.ParseQualification(kind, vetting, reason, created)
	return q
}

func TestSameFacts(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	education := vetted("Education", "InReview", "", date)
	marker := vetted("StateOwnedEntity", "", "", time.Time{})
	none := &eligibility.Evidence{Status: eligibility.AccountStatusNone}
	tests := map[string]struct {
		a, b *eligibility.Evidence
		want bool
	}{
		"the same word":            {account("UnderReview"), account("UnderReview"), true},
		"another spelling":         {account("UnderReview"), account("under_review"), true},
		"another word":             {account("UnderReview"), account("Allowed"), false},
		"unrecognised words":       {account("Frozen"), account("Thawed"), false},
		"no status":                {none, account("Allowed"), false},
		"absent":                   {&eligibility.Evidence{Absence: eligibility.AbsenceNotFound}, &eligibility.Evidence{Absence: eligibility.AbsenceNotServed}, false},
		"another facet":            {&eligibility.Evidence{Absence: eligibility.AbsenceNotFound}, &eligibility.Evidence{Facet: eligibility.FacetQualifications, Absence: eligibility.AbsenceNotFound}, false},
		"none held":                {qualified(), &eligibility.Evidence{Facet: eligibility.FacetQualifications}, true},
		"another order, repeated":  {qualified(education, marker), qualified(marker, education, marker), true},
		"one more":                 {qualified(education), qualified(education, marker), false},
		"another vetting":          {qualified(education), qualified(vetted("education", "Approved", "", date)), false},
		"another spelling of both": {qualified(education), qualified(vetted("education", "In Review", "", date)), true},
		"another reason":           {qualified(education), qualified(vetted("Education", "InReview", "more documents", date)), false},
		"another date":             {qualified(education), qualified(vetted("Education", "InReview", "", date.Add(time.Hour))), false},
		"another zone":             {qualified(education), qualified(vetted("Education", "InReview", "", date.In(time.FixedZone("", 3600)))), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.b.FetchTime, test.b.CorrelationID = date, "another"
			if got := test.a.SameFacts(test.b); got != test.want {
				t.Errorf("same facts: %v, want %v", got, test.want)
			}
			if got := test.b.SameFacts(test.a); got != test.want {
				t.Errorf("the other way round: %v, want %v", got, test.want)
			}
		})
	}
}

func TestUnderReview(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		policy   eligibility.Policy
		evidence *eligibility.Evidence
		want     bool
	}{
		"under review":                {evidence: account("UnderReview"), want: true},
		"under review, renewals pass": {policy: eligibility.Policy{AllowReducing: true}, evidence: account("UnderReview"), want: true},
		"unknown":                     {evidence: account("Unknown"), want: true},
		"not ready":                   {evidence: account("Not Ready"), want: true},
		"not ready passes":            {policy: eligibility.Policy{NotReadyAllowed: true}, evidence: account("Not Ready")},
		"unrecognised":                {evidence: account("Frozen"), want: true},
		"allowed":                     {evidence: account("Allowed")},
		"not allowed":                 {evidence: account("NotAllowed")},
		"no status":                   {evidence: &eligibility.Evidence{Status: eligibility.AccountStatusNone}},
		"absent":                      {evidence: &eligibility.Evidence{Absence: eligibility.AbsenceNotFound}},
		"vetted now":                  {evidence: qualified(vetted("Nonprofit", "InReview", "", time.Time{})), want: true},
		"an unrecognised vetting":     {evidence: qualified(vetted("Education", "Lost", "", time.Time{})), want: true},
		"approved":                    {evidence: qualified(vetted("Education", "Approved", "", time.Time{}))},
		"denied":                      {evidence: qualified(vetted("Education", "Denied", "", time.Time{}))},
		"a marker":                    {evidence: qualified(vetted("StateOwnedEntity", "", "", time.Time{}))},
		"none held":                   {evidence: qualified()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.policy.UnderReview(test.evidence); got != test.want {
				t.Errorf("under review: %v, want %v", got, test.want)
			}
		})
	}
}
