package eligibility

import "time"

// Rule names a rule that [Decide] applies. The zero value is none.
type Rule uint8

// The rules, in the words of the API.
const (
	RuleNone Rule = iota
	// RuleAccountStatus: the account's status decides.
	RuleAccountStatus
	// RuleNotReady: Policy.NotReadyAllowed decides on the status Not Ready.
	RuleNotReady
	// RuleReducingOperation: Policy.AllowReducing lets the operation pass.
	RuleReducingOperation
	// RuleQualification: the qualification that the segment asks for decides.
	RuleQualification
	// RuleNoQualificationNeeded: the segment asks for none.
	RuleNoQualificationNeeded
	// RuleAbsent: Partner Center has no such customer, or it is not this partner's.
	RuleAbsent
	// RuleNoEvidence: there is no evidence, or none that is usable.
	RuleNoEvidence
	// RuleUndecidable: Policy.BlockUndecidable turns the failure into a block.
	RuleUndecidable
)

// Outcome is the result of one rule. The zero value is none.
type Outcome uint8

// The outcomes.
const (
	OutcomeNone Outcome = iota
	OutcomeAllows
	OutcomeBlocks
	// OutcomeUndecided leaves the question open, unless another rule blocks.
	OutcomeUndecided
	// OutcomeNotNeeded makes the facet irrelevant.
	OutcomeNotNeeded
)

// Applied is a rule as it was applied to one facet.
type Applied struct {
	Facet Facet
	// Word is the word that decided, as sent: the account's status, or the vetting
	// status of the qualification; "" if there is none.
	Word    string
	Rule    Rule
	Outcome Outcome
	// Reason is the reason that the rule gave the answer; ReasonNone if it gave none.
	Reason ReasonCode
}

// Explain is [Decide], and returns beside the answer or the error the rules that
// produced it, in the order in which they were applied. The answer is that of Decide:
// both run the same function.
func Explain(policy Policy, segment Segment, operation Operation, account, qualifications Held, now time.Time) (Answer, []Applied, error) {
	rules := make(explanation, 0, 3)
	answer, err := decide(policy, segment, operation, account, qualifications, now, &rules)
	return answer, rules, err
}

// explanation collects the rules that decide applies. A nil one collects nothing.
type explanation []Applied

// gave adds the rule that gave a reason.
func (e *explanation) gave(facet Facet, reason Reason, word string) {
	if e == nil {
		return
	}
	applied := Applied{Facet: facet, Word: word, Rule: ruleOf(reason.Code), Outcome: OutcomeAllows, Reason: reason.Code}
	if reason.Blocks {
		applied.Outcome = OutcomeBlocks
	}
	*e = append(*e, applied)
}

// qualification adds the segment rule's reason, and the word that it looked at.
func (e *explanation) qualification(reason Reason, segment Segment, held []Qualification) {
	if e == nil {
		return
	}
	word := ""
	if decides := deciding(held, neededQualification(segment)); decides != nil {
		word = decides.VettingStatusText
	}
	e.gave(FacetQualifications, reason, word)
}

// lacks adds why a facet that is needed gives no reason.
func (e *explanation) lacks(facet Facet, evidence *Evidence) {
	if e == nil {
		return
	}
	rule := RuleNoEvidence
	if evidence != nil && evidence.Absence != AbsenceNone {
		rule = RuleAbsent
	}
	*e = append(*e, Applied{Facet: facet, Rule: rule, Outcome: OutcomeUndecided})
}

// notNeeded adds why the qualifications have no part: the segment asks for none, or
// the policy exempts the operation.
func (e *explanation) notNeeded(asked Segment) {
	if e == nil {
		return
	}
	rule := RuleNoQualificationNeeded
	if asked != SegmentCommercial {
		rule = RuleReducingOperation
	}
	*e = append(*e, Applied{Facet: FacetQualifications, Rule: rule, Outcome: OutcomeNotNeeded})
}

// ruleOf returns the rule that gives a reason.
func ruleOf(code ReasonCode) Rule {
	switch code {
	case ReasonNone:
		return RuleNone
	case ReasonAccountNotReady:
		return RuleNotReady
	case ReasonAccountReviewExempt:
		return RuleReducingOperation
	case ReasonQualificationApproved, ReasonQualificationInReview, ReasonQualificationDenied,
		ReasonQualificationMissing, ReasonQualificationUnrecognized:
		return RuleQualification
	case ReasonUndecidable:
		return RuleUndecidable
	default:
		return RuleAccountStatus
	}
}
