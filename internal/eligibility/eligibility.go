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

// Request is one question. Its zero value asks about the nil GUID for the
// commercial segment with evidence of any fresh age.
type Request struct {
	CustomerID CustomerID
	Segment    Segment
	// MaxAge narrows how old evidence may be before Partner Center is asked
	// again; it counts only if MaxAgeSet. It is soft: if the fetch fails,
	// older usable evidence still answers, flagged stale.
	MaxAge    time.Duration
	MaxAgeSet bool
	// MinEvidenceTime is hard: no evidence fetched before it answers. The
	// zero time sets no bound.
	MinEvidenceTime time.Time
}

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
	// Reasons holds one reason a rule that applied, the account's first.
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
