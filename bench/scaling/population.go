package main

import (
	"encoding/binary"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// outcome is what Partner Center says about a share of the customers.
type outcome struct {
	percent  uint64
	evidence eligibility.Evidence
	age      func(*eligibility.Ages) eligibility.Age
}

// The population is assumed: no partner's figures are public. Most customers
// are in good order, and the outcomes with short ages are rare. Its weight in
// the result is small: see TestTheEstimateAgreesWithTheSimulation.
func accounts() []outcome {
	const correlationID = "00000000-0000-4000-8000-000000000000"
	status := func(s eligibility.AccountStatus, text string) eligibility.Evidence {
		return eligibility.Evidence{Status: s, StatusText: text, CorrelationID: correlationID}
	}
	return []outcome{
		{90, status(eligibility.AccountStatusAllowed, "Allowed"), func(a *eligibility.Ages) eligibility.Age { return a.Allowed }},
		{4, status(eligibility.AccountStatusNone, ""), func(a *eligibility.Ages) eligibility.Age { return a.NoStatus }},
		{2, status(eligibility.AccountStatusUnderReview, "UnderReview"), func(a *eligibility.Ages) eligibility.Age { return a.Pending }},
		{4, status(eligibility.AccountStatusNotAllowed, "NotAllowed"), func(a *eligibility.Ages) eligibility.Age { return a.NotAllowed }},
	}
}

func qualifications() []outcome {
	education := func(vetting eligibility.VettingStatus, text string) []eligibility.Qualification {
		return []eligibility.Qualification{{
			Type: eligibility.QualificationEducation, TypeText: "Education", VettingStatus: vetting, VettingStatusText: text,
		}}
	}
	known := func(a *eligibility.Ages) eligibility.Age { return a.Qualifications }
	inReview := func(a *eligibility.Ages) eligibility.Age { return a.QualificationsInReview }
	return []outcome{
		{79, eligibility.Evidence{}, known},
		{20, eligibility.Evidence{Qualifications: education(eligibility.VettingApproved, "Approved")}, known},
		{1, eligibility.Evidence{Qualifications: education(eligibility.VettingInReview, "InReview")}, inReview},
	}
}

// answerTo is what Partner Center says: always the same about one customer.
func answerTo(key eligibility.Key, outcomes []outcome) eligibility.Evidence {
	lot := mix(binary.BigEndian.Uint64(key.CustomerID[:8])+uint64(key.Facet)) % 100
	for i := range outcomes {
		if lot < outcomes[i].percent {
			return outcomes[i].evidence
		}
		lot -= outcomes[i].percent
	}
	return outcomes[0].evidence
}
