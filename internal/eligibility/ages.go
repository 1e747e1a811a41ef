package eligibility

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Age is how long evidence answers, counted from its FetchTime.
type Age struct {
	// Fresh is how long it answers without asking Partner Center again.
	Fresh time.Duration
	// Usable is how long it answers, flagged stale, if Partner Center cannot be
	// asked. Not below Fresh.
	Usable time.Duration
}

// Ages holds the ages by outcome. A blocking outcome may live longer than an
// allowing one: that asymmetry is intended.
type Ages struct {
	Allowed  Age
	NoStatus Age
	// Pending is for UnderReview, Unknown, Not Ready and unrecognised words.
	Pending    Age
	NotAllowed Age
	// Qualifications is for those of which none is in review.
	Qualifications         Age
	QualificationsInReview Age
}

// absentAge is how long "not found" and "not served" are remembered, so that
// wrong IDs do not spend the budget.
const absentAge = time.Minute

// ClockTolerance is how far ahead of this machine's clock another's may be.
// Evidence from further in the future is rejected.
const ClockTolerance = time.Second

// DefaultAges returns the ages that the service promises without configuration. They
// are also the defaults of the keys cache.ages (config.Default).
func DefaultAges() Ages {
	return Ages{
		Allowed:                Age{Fresh: 10 * time.Minute, Usable: time.Hour},
		NoStatus:               Age{Fresh: 2 * time.Minute, Usable: 15 * time.Minute},
		Pending:                Age{Fresh: time.Minute, Usable: 24 * time.Hour},
		NotAllowed:             Age{Fresh: 10 * time.Minute, Usable: 24 * time.Hour},
		Qualifications:         Age{Fresh: 15 * time.Minute, Usable: 6 * time.Hour},
		QualificationsInReview: Age{Fresh: 2 * time.Minute, Usable: 6 * time.Hour},
	}
}

// Validate reports every age that cannot be kept.
func (a *Ages) Validate() error {
	var faults []error
	for _, named := range []struct {
		name string
		age  Age
	}{
		{"allowed", a.Allowed},
		{"no_status", a.NoStatus},
		{"pending", a.Pending},
		{"not_allowed", a.NotAllowed},
		{"qualifications", a.Qualifications},
		{"qualifications_in_review", a.QualificationsInReview},
	} {
		switch {
		case named.age.Fresh <= 0:
			faults = append(faults, fmt.Errorf("ages: %s: fresh must be positive", named.name))
		case named.age.Usable < named.age.Fresh:
			faults = append(faults, fmt.Errorf("ages: %s: usable is below fresh", named.name))
		}
	}
	return errors.Join(faults...)
}

// of returns the configured age of the evidence's outcome for an operation. If only
// the policy allows a status, it lives no longer than one that Partner Center allows.
func (a *Ages) of(evidence *Evidence, policy Policy, operation Operation) Age {
	if evidence.Absence != AbsenceNone {
		return Age{Fresh: absentAge, Usable: absentAge}
	}
	if evidence.Facet == FacetQualifications {
		for i := range evidence.Qualifications {
			if evidence.Qualifications[i].VettingStatus == VettingInReview {
				return a.QualificationsInReview
			}
		}
		return a.Qualifications
	}
	switch evidence.Status {
	case AccountStatusAllowed:
		return a.Allowed
	case AccountStatusNone:
		return a.NoStatus
	case AccountStatusNotAllowed:
		return a.NotAllowed
	default:
		if !policy.accountReason(evidence.Status, operation).Blocks {
			return Age{
				Fresh:  min(a.Pending.Fresh, a.Allowed.Fresh),
				Usable: min(a.Pending.Usable, a.Allowed.Usable),
			}
		}
		return a.Pending
	}
}

// Lifetime is the span in which one piece of evidence answers.
type Lifetime struct {
	FreshUntil  time.Time
	UsableUntil time.Time
}

// LifetimeOf applies the ages to evidence, for a question about an operation. The
// jitter of ±10 % is computed from the evidence itself, so that every replica and
// every tier agrees on it; it never extends the usable age. If this process fetched
// the evidence and the clock was set back since, the lifetime ends earlier by as
// much. now needs a monotonic reading for that.
func (a *Ages) LifetimeOf(key Key, evidence *Evidence, policy Policy, operation Operation, now time.Time) Lifetime {
	age := a.of(evidence, policy, operation)
	start := evidence.FetchTime
	if behind := evidence.setBack(now); behind > 0 {
		start = start.Add(-behind)
	}
	return age.from(start, jitterPermille(key, evidence.FetchTime))
}

// from returns the lifetime that begins at start, with the jitter applied.
func (a Age) from(start time.Time, permille int64) Lifetime {
	usable := a.Usable / 1000 * time.Duration(min(permille, 1000))
	fresh := min(a.Fresh/1000*time.Duration(permille), usable)
	return Lifetime{FreshUntil: start.Add(fresh), UsableUntil: start.Add(usable)}
}

// LifetimeUnder returns the lifetime that LifetimeOf would have returned under the
// policy to, if under the policy from it returned was. key is nil if the customer is
// not known; the jitter is then derived from was. It returns false if was is no
// lifetime that these ages give the evidence.
func (a *Ages) LifetimeUnder(from, to Policy, was Lifetime, key *Key, evidence *Evidence, operation Operation) (Lifetime, bool) {
	before, after := a.of(evidence, from, operation), a.of(evidence, to, operation)
	if before == after {
		return was, true
	}
	least, most := int64(leastJitter), int64(mostJitter)
	if key != nil {
		least = jitterPermille(*key, evidence.FetchTime)
		most = least
	}
	found, known := Lifetime{}, false
	for permille := least; permille <= most; permille++ {
		if start, ok := before.startOf(was, permille, evidence.FetchTime); ok {
			found, known = after.from(start, permille), true
			if start.Equal(evidence.FetchTime) {
				break
			}
		}
	}
	return found, known
}

// startOf returns when a lifetime with this jitter began, which is the fetch time or,
// if the clock was set back since, earlier. It returns false if the lifetime has
// another jitter.
func (a Age) startOf(was Lifetime, permille int64, fetched time.Time) (time.Time, bool) {
	offset := was.UsableUntil.Sub(a.from(fetched, permille).UsableUntil)
	start := fetched.Add(offset)
	matches := a.from(start, permille).FreshUntil.Equal(was.FreshUntil)
	return start, matches && (offset == 0 || offset < -ClockTolerance)
}

// KeepUntil returns how long evidence is stored, even if it no longer answers: as
// long as anything older about that facet might be usable, which must not answer
// in its place.
func (a *Ages) KeepUntil(evidence *Evidence) time.Time {
	longest := max(absentAge, a.Allowed.Usable, a.NoStatus.Usable, a.Pending.Usable, a.NotAllowed.Usable)
	if evidence.Facet == FacetQualifications {
		longest = max(absentAge, a.Qualifications.Usable, a.QualificationsInReview.Usable)
	}
	return evidence.FetchTime.Add(longest)
}

// LongestFresh returns the longest time that any evidence can be fresh, jitter
// included.
func (a *Ages) LongestFresh() time.Duration {
	longest := max(absentAge, a.Allowed.Fresh, a.NoStatus.Fresh, a.Pending.Fresh, a.NotAllowed.Fresh,
		a.Qualifications.Fresh, a.QualificationsInReview.Fresh)
	return longest + longest/10
}

// The bounds of the jitter.
const (
	leastJitter = 900
	mostJitter  = 1100
)

// jitterPermille returns leastJitter to mostJitter, spread evenly over keys and times.
func jitterPermille(key Key, fetched time.Time) int64 {
	x := binary.LittleEndian.Uint64(key.CustomerID[:8]) ^
		binary.LittleEndian.Uint64(key.CustomerID[8:])*0x9e3779b97f4a7c15 ^
		uint64(fetched.UnixNano()) + uint64(key.Facet)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return leastJitter + int64(x%(mostJitter-leastJitter+1))
}
