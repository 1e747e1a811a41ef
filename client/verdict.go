package client

import (
	"errors"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Outcome is whether a customer may buy.
type Outcome int

const (
	// Undecided means that it is not known. Nothing may be sold.
	Undecided Outcome = iota
	// Blocked means that the customer may not buy now.
	Blocked
	// Allowed means that the customer may buy.
	Allowed
)

// String returns the outcome as a word.
func (o Outcome) String() string {
	switch o {
	case Blocked:
		return "blocked"
	case Allowed:
		return "allowed"
	default:
		return "undecided"
	}
}

// Verdict is the answer to one question. The zero value is undecided, and so is every
// verdict that was not made from an answer about the right customer with a decision that
// this package knows. Its methods are safe for concurrent use.
type Verdict struct {
	outcome  Outcome
	response *eligibilityv1.CheckEligibilityResponse // nil if undecided
	err      *Error                                  // nil unless undecided
}

// verdictOf is the only place that makes a verdict which is not undecided.
func verdictOf(asked string, response *eligibilityv1.CheckEligibilityResponse, failure *Error) Verdict {
	switch {
	case failure != nil:
		return Verdict{err: failure}
	case response == nil:
		return Verdict{err: invalid("the service sent no answer")}
	case canonical(response.GetCustomerId()) == "" || canonical(response.GetCustomerId()) != canonical(asked):
		return Verdict{err: invalid("the service answered about another customer")}
	}
	switch response.GetDecision() {
	case eligibilityv1.Decision_DECISION_ALLOWED:
		return Verdict{outcome: Allowed, response: response}
	case eligibilityv1.Decision_DECISION_BLOCKED:
		return Verdict{outcome: Blocked, response: response}
	default:
		return Verdict{err: invalid("the service sent a decision that this client does not know")}
	}
}

// canonical returns what is the same in all forms of a customer's id.
func canonical(id string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, id)
}

// Allowed reports whether the customer may buy.
func (v Verdict) Allowed() bool { return v.outcome == Allowed }

// Outcome returns whether the customer may buy.
func (v Verdict) Outcome() Outcome { return v.outcome }

// Err returns why the verdict is undecided, an [*Error] unless the verdict is the zero
// value; nil if it is not undecided.
func (v Verdict) Err() error {
	switch {
	case v.outcome != Undecided:
		return nil
	case v.err == nil:
		return errors.New("nothing is known")
	default:
		return v.err
	}
}

// Reasons returns why the customer is allowed or blocked, the account's reason first;
// nil if undecided.
func (v Verdict) Reasons() []*eligibilityv1.Reason { return v.response.GetReasons() }

// EvidenceTime returns when the oldest evidence was fetched. A later step of the same
// sale passes it as MinEvidenceTime. It is zero if undecided.
func (v Verdict) EvidenceTime() time.Time { return timeOf(v.response.GetEvidenceTime()) }

// RecheckTime returns when asking again is worthwhile. It is zero unless the block is
// temporary.
func (v Verdict) RecheckTime() time.Time { return timeOf(v.response.GetRecheckTime()) }

// Response returns the whole answer, which must not be changed; nil if undecided.
func (v Verdict) Response() *eligibilityv1.CheckEligibilityResponse { return v.response }

func timeOf(at *timestamppb.Timestamp) time.Time {
	if at == nil {
		return time.Time{}
	}
	return at.AsTime()
}
