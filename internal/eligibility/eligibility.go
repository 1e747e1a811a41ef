// Package eligibility decides whether a customer of a Microsoft CSP partner
// may buy, right now.
//
// It holds the question ([Request]), the facts that Partner Center gave
// ([Evidence]), how long they may be used ([Ages]) and the rules that turn them
// into an answer ([Decide]). It is pure: values and functions over them, with no
// goroutine, no I/O, no clock and no import outside the standard library. Package
// evidence obtains the evidence.
package eligibility

import "time"

// Segment is what the caller sells into. The zero value is commercial.
type Segment uint8

// The segments of the price list. Each but commercial asks for a qualification.
const (
	SegmentCommercial Segment = iota
	SegmentEducation
	SegmentGovernment
	SegmentNonprofit
)

// String returns the segment's name as the API spells it, without its prefix, for
// logs.
func (s Segment) String() string {
	switch s {
	case SegmentCommercial:
		return "COMMERCIAL"
	case SegmentEducation:
		return "EDUCATION"
	case SegmentGovernment:
		return "GOVERNMENT"
	case SegmentNonprofit:
		return "NONPROFIT"
	default:
		return "UNKNOWN"
	}
}

// Operation is what an order does. The zero value is a purchase.
type Operation uint8

// The operations. The first three sell more, the others do not.
const (
	OperationPurchase Operation = iota
	OperationSeatIncrease
	OperationUpgrade
	OperationRenewal
	OperationSeatReduction
	OperationCancellation
)

// String returns the operation's name as the API spells it, without its prefix, for
// logs.
func (o Operation) String() string {
	switch o {
	case OperationPurchase:
		return "PURCHASE"
	case OperationSeatIncrease:
		return "SEAT_INCREASE"
	case OperationUpgrade:
		return "UPGRADE"
	case OperationRenewal:
		return "RENEWAL"
	case OperationSeatReduction:
		return "SEAT_REDUCTION"
	case OperationCancellation:
		return "CANCELLATION"
	default:
		return "UNKNOWN"
	}
}

// reduces reports whether the operation sells nothing more. An operation that is
// not known does not.
//
// Source: https://learn.microsoft.com/en-us/partner-center/customers/customer-account-verification
// (read through a mirror, 2026-11-21): during a review, new purchases, seat increases
// and upgrades are blocked; renewals, seat reductions and cancellations continue.
func (o Operation) reduces() bool {
	return o == OperationRenewal || o == OperationSeatReduction || o == OperationCancellation
}

// Request is one question. Its zero value asks about the nil GUID for a purchase in
// the commercial segment with evidence of any fresh age.
type Request struct {
	CustomerID CustomerID
	Segment    Segment
	Operation  Operation
	// MaxAge narrows how old evidence may be before Partner Center is asked
	// again; it counts only if MaxAgeSet. It is soft: if the fetch fails,
	// older usable evidence still answers, flagged stale.
	MaxAge    time.Duration
	MaxAgeSet bool
	// MinEvidenceTime is hard: no evidence fetched before it answers. The
	// zero time sets no bound.
	MinEvidenceTime time.Time
	// LacksFresh reports that the caller may not demand evidence younger than
	// FreshAge: if MinEvidenceTime alone keeps such evidence from answering, the
	// check fails with KindPermissionDenied.
	LacksFresh bool
	// Basis, if not nil, receives what the check decided by. A check that ends
	// without [Decide], as after a panic, leaves it as it is.
	Basis *Basis
}

// FreshAge is the age below which only callers with the right fresh may demand
// newer evidence.
const FreshAge = 30 * time.Second

// Decision is the answer in one word. The zero value is no decision and never
// reaches a caller.
type Decision uint8

// The two decisions.
const (
	DecisionNone Decision = iota
	DecisionAllowed
	DecisionBlocked
)

// Answer is what the service found out. Evidence behind its pointers is shared
// with other answers and must not be changed.
type Answer struct {
	Decision Decision
	// Reasons holds one reason a rule that applied, the account's first. Answers share
	// them: they must not be changed.
	Reasons []Reason
	// Account is nil if a certain block was answered without it, or if
	// nothing could be decided.
	Account *Evidence
	// Qualifications is nil if they are not known.
	Qualifications *Evidence
	// EvidenceTime is when the oldest evidence that the decision used was
	// fetched; zero if none was used.
	EvidenceTime time.Time
	// ExpireTime is when the first evidence used stops being fresh.
	ExpireTime time.Time
	// RecheckTime is when asking again is worthwhile; zero unless the
	// decision is a block that may pass by itself.
	RecheckTime time.Time
	// Tier is the slowest place that evidence used came from.
	Tier Tier
	// Stale reports that some evidence used was past its fresh age.
	Stale bool
	// Call describes the account fetch made for this answer; zero if none was made.
	Call Call
	// Cause is the failure that an answer survived: why evidence is stale or
	// missing. With ReasonUndecidable it is the *Error that the caller would have
	// got in place of the block. For logs and metrics only.
	Cause error
}
