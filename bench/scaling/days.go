package main

import (
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// publishedLimit is the only number near these two resources that Microsoft
// publishes, in calls a minute for each partner tenant. It is said of the
// customer resource; that they share it is assumed.
//
// Source: https://learn.microsoft.com/en-us/partner-center/developer/customer-resources
// (read 2026-11-21)
const publishedLimit = 500

// longAges is for partners whose traffic does not fit with the default ages: an
// account that may buy is believed for an hour, qualifications for six.
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

// days are what make scaling simulates.
func days() []day {
	of := func(name string, exponent float64, shared bool) day {
		return day{
			name: name, customers: 100_000, exponent: exponent, checksPerSecond: 5,
			replicas: 4, shared: shared, ages: eligibility.DefaultAges(),
		}
	}
	// Together the replicas have three fifths of the limit: the partner has other
	// tools as well.
	limited := func(name string, replicas int, ages eligibility.Ages) day {
		d := of(name, 1, true)
		d.checksPerSecond, d.replicas, d.ages = 6, replicas, ages
		d.budgetPerMinute = publishedLimit * 3 / 5 / d.replicas
		return d
	}
	return []day{
		of("shared-0.8", 0.8, true),
		of("shared-1.0", 1, true),
		of("shared-1.2", 1.2, true),
		of("apart-0.8", 0.8, false),
		of("apart-1.0", 1, false),
		of("apart-1.2", 1.2, false),
		limited("limited-4", 4, eligibility.DefaultAges()),
		limited("limited-20", 20, eligibility.DefaultAges()),
		limited("limited-4-long", 4, longAges()),
	}
}
