package main

import (
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// publishedLimit is the only number near these two resources that Microsoft
// publishes, in calls a minute for each partner tenant. It is documented for the
// customer resource; that the two resources share it is an assumption.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/customer-resources
// (read 2026-11-21)
const publishedLimit = 500

// outcome is the answer of Partner Center for a share of the customers.
type outcome struct {
	percent float64
	age     func(*eligibility.Ages) eligibility.Age
}

// accounts and qualifications are assumptions: no partner's figures are public.
// Most customers are in good order, and the outcomes with short ages are rare.
func accounts() []outcome {
	return []outcome{
		{90, func(a *eligibility.Ages) eligibility.Age { return a.Allowed }},
		{4, func(a *eligibility.Ages) eligibility.Age { return a.NoStatus }},
		{2, func(a *eligibility.Ages) eligibility.Age { return a.Pending }},
		{4, func(a *eligibility.Ages) eligibility.Age { return a.NotAllowed }},
	}
}

func qualifications() []outcome {
	return []outcome{
		{99, func(a *eligibility.Ages) eligibility.Age { return a.Qualifications }},
		{1, func(a *eligibility.Ages) eligibility.Age { return a.QualificationsInReview }},
	}
}

// longAges suit partners if their traffic exceeds the default ages: an account
// that may buy is fresh for an hour, qualifications for six.
func longAges() eligibility.Ages {
	ages := eligibility.DefaultAges()
	ages.Allowed = eligibility.Age{Fresh: time.Hour, Usable: 4 * time.Hour}
	ages.NoStatus = eligibility.Age{Fresh: 15 * time.Minute, Usable: time.Hour}
	ages.Pending.Fresh = 5 * time.Minute
	ages.NotAllowed.Fresh = time.Hour
	ages.Qualifications = eligibility.Age{Fresh: 6 * time.Hour, Usable: 24 * time.Hour}
	ages.QualificationsInReview.Fresh = 30 * time.Minute
	return ages
}
