package console

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The states of a verdict, which are classes of the style sheet too.
const (
	allowed   = "allowed"
	blocked   = "blocked"
	undecided = "undecided"
)

// verdict is the answer for one segment.
type verdict struct {
	// Segment is its name, State one of the three states, Badge the state in words.
	// An answer by old evidence that allows has the state undecided.
	Segment, State, Badge string
	// Sentence is the answer.
	Sentence string
	// Since is when the facts that decide became known; First is set if nothing was known
	// before.
	Since *moment
	First bool
	// Why are the rules that were applied.
	Why []why
	// Actions are who has to act, and how.
	Actions []action
	// Fresh is until when the answer is given without asking Microsoft; Again if the next
	// check asks Microsoft first.
	Fresh *moment
	Again bool
	// NextCheck is when the service asks Microsoft again by itself; Worthwhile from when
	// on a check is worthwhile, if it does not.
	NextCheck, Worthwhile *moment
	// Renewals states whether orders that sell nothing more are allowed.
	Renewals string
	// Codes are the reasons for programs, Messages for the shop's customers.
	Codes, Messages []string
}

// why is a sentence with a word of Partner Center in it.
type why struct {
	Before string
	Word   *text
	After  string
}

// action is who has to do something. If nobody has to, Who is empty.
type action struct{ Who, Do string }

// stateOf is the state of a segment's answer.
func stateOf(s *eligibilityv1.SegmentExplanation) string {
	switch s.GetResponse().GetDecision() {
	case eligibilityv1.Decision_DECISION_ALLOWED:
		return allowed
	case eligibilityv1.Decision_DECISION_BLOCKED:
		return blocked
	case eligibilityv1.Decision_DECISION_UNSPECIFIED:
	}
	return undecided
}

// badgeOf is a state in words.
func badgeOf(state string, past bool) string {
	switch {
	case state == allowed && past:
		return "Could buy"
	case state == allowed:
		return "May buy"
	case state == blocked && past:
		return "Could not buy"
	case state == blocked:
		return "May not buy"
	default:
		return "Not known"
	}
}

// shownState is the state of an answer that has a state, and its badge, as the page shows
// them: old evidence that allows does not look like an answer that holds.
func (p *customerBuilder) shownState(state string, answer *eligibilityv1.CheckEligibilityResponse) (shown, badge string) {
	badge = badgeOf(state, p.past)
	if state == allowed && answer.GetStale() {
		return undecided, badge + " (old evidence)"
	}
	return state, badge
}

// verdictOf converts the answer for a segment.
func (p *customerBuilder) verdictOf(s *eligibilityv1.SegmentExplanation) verdict {
	answer, state := s.GetResponse(), stateOf(s)
	v := verdict{Segment: enumWord(s.GetSegment().String(), "SEGMENT_")}
	v.State, v.Badge = p.shownState(state, answer)
	blocking := blockingOf(answer)
	v.Sentence = p.sentence(v.Segment, state, blocking, s)
	for _, rule := range s.GetRules() {
		v.Why = append(v.Why, p.whyOf(rule, v.Segment))
	}
	for _, reason := range answer.GetReasons() {
		v.Codes = append(v.Codes, strings.TrimPrefix(reason.GetCode().String(), "REASON_CODE_"))
		v.Messages = append(v.Messages, p.texts.brief(reason.GetMessage()).Short)
	}
	switch state {
	case allowed:
		v.Actions = []action{{Do: "Nobody has to act."}}
	case blocked:
		for _, reason := range blocking {
			if act := actionOf(reason); !slices.Contains(v.Actions, act) {
				v.Actions = append(v.Actions, act)
			}
		}
	default:
		v.Codes = append(v.Codes, p.texts.brief(s.GetError().GetReason()).Short)
		v.Actions = []action{p.undecidedAction(s.GetError().GetReason())}
	}
	v.Since, v.First = p.since(s.GetSegment(), state, blocking)
	if p.past {
		v.Renewals = p.renewals(s.GetSegment(), state, blocking)
		return v
	}
	if at := answer.GetExpireTime(); at != nil {
		if at.AsTime().After(p.now) && !answer.GetStale() {
			v.Fresh = momentOf(at, p.now)
		} else {
			v.Again = true
		}
	}
	if state != allowed {
		facets := facetsOf(blocking)
		for _, review := range p.explained.GetReviews() {
			if slices.Contains(facets, review.GetFacet()) && (v.NextCheck == nil || review.GetNextCheckTime().AsTime().UTC().Format(isoMillis) < v.NextCheck.ISO) {
				v.NextCheck = momentOf(review.GetNextCheckTime(), p.now)
			}
		}
		if v.NextCheck == nil {
			v.Worthwhile = momentOf(answer.GetRecheckTime(), p.now)
		}
	}
	v.Renewals = p.renewals(s.GetSegment(), state, blocking)
	return v
}

// blockingOf returns the reasons that block.
func blockingOf(answer *eligibilityv1.CheckEligibilityResponse) (reasons []*eligibilityv1.Reason) {
	if answer.GetDecision() != eligibilityv1.Decision_DECISION_BLOCKED {
		return nil
	}
	for _, reason := range answer.GetReasons() {
		if reason.GetRemedy() != eligibilityv1.Remedy_REMEDY_NONE {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// facetsOf returns what reasons are about.
func facetsOf(reasons []*eligibilityv1.Reason) (facets []eligibilityv1.Facet) {
	for _, reason := range reasons {
		switch name := reason.GetCode().String(); {
		case strings.HasPrefix(name, "REASON_CODE_ACCOUNT_"):
			facets = append(facets, eligibilityv1.Facet_FACET_ACCOUNT)
		case strings.HasPrefix(name, "REASON_CODE_QUALIFICATION_"):
			facets = append(facets, eligibilityv1.Facet_FACET_QUALIFICATIONS)
		}
	}
	return facets
}

// because is why a reason blocks, now and in the past.
//
//nolint:gochecknoglobals // constant
var because = map[eligibilityv1.ReasonCode][2]string{
	eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW:        {"Microsoft is reviewing the account", "Microsoft was reviewing the account"},
	eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_ALLOWED:         {"Microsoft's review ended against the account", "Microsoft's review had ended against the account"},
	eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNKNOWN:             {"Microsoft reports that the account's status is unknown", "Microsoft reported that the account's status was unknown"},
	eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_READY:           {"the account is not ready for Microsoft's review", "the account was not ready for Microsoft's review"},
	eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED: {"Microsoft reports an account status that this service does not know", "Microsoft reported an account status that this service does not know"},
	eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_IN_REVIEW:     {"Microsoft is reviewing the qualification", "Microsoft was reviewing the qualification"},
	eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_DENIED:        {"Microsoft has denied the qualification", "Microsoft had denied the qualification"},
	eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_MISSING:       {"the qualification has not been requested", "the qualification had not been requested"},
	eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_UNRECOGNIZED:  {"Microsoft reports a vetting status that this service does not know, or none", "Microsoft reported a vetting status that this service does not know, or none"},
	eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE:                 {"Partner Center cannot be asked", "Partner Center could not be asked"},
}

// sentence is the answer for a segment.
func (p *customerBuilder) sentence(segment, state string, blocking []*eligibilityv1.Reason, s *eligibilityv1.SegmentExplanation) string {
	may, tense := "May", 0
	if p.past {
		may, tense = "Could", 1
	}
	switch state {
	case allowed:
		switch {
		case !s.GetResponse().GetStale():
			return fmt.Sprintf("%s buy %s licences.", may, segment)
		case p.past:
			return fmt.Sprintf("Could buy %s licences, by old evidence: a check asked Microsoft first.", segment)
		default:
			return fmt.Sprintf("May buy %s licences, by old evidence: the next check asks Microsoft first.", segment)
		}
	case blocked:
		var causes []string
		for _, reason := range blocking {
			if cause := because[reason.GetCode()][tense]; cause != "" {
				causes = append(causes, cause)
			}
		}
		return fmt.Sprintf("%s not buy %s licences: %s.", may, segment, cmp.Or(strings.Join(causes, "; "), "for a reason that this page does not know"))
	default:
		return fmt.Sprintf("Not known for %s licences: %s.", segment, p.unknownCause(s))
	}
}

// unknownCause is why there is no answer.
func (p *customerBuilder) unknownCause(s *eligibilityv1.SegmentExplanation) string {
	switch reason := s.GetError().GetReason(); reason {
	case "CUSTOMER_NOT_FOUND":
		return "Partner Center has no such customer"
	case "CUSTOMER_NOT_SERVED":
		return "the customer has no relationship with this partner"
	case "PARTNER_CENTER_UNAVAILABLE":
		return "Partner Center or Microsoft's login host fails"
	case "PARTNER_CENTER_THROTTLED":
		return "the limit on calls to Partner Center is reached"
	case "PARTNER_CENTER_CREDENTIALS":
		return "Microsoft refuses the credentials of this service"
	case "PARTNER_CENTER_INVALID_RESPONSE":
		return "Partner Center's answer cannot be read"
	case "NOT_KNOWN":
		for _, rule := range s.GetRules() {
			if rule.GetRule() == eligibilityv1.Rule_RULE_NO_EVIDENCE {
				return p.missing(rule.GetFacet())
			}
		}
		return p.missing(eligibilityv1.Facet_FACET_ACCOUNT)
	default:
		return "a fault of this service (" + p.texts.brief(reason).Short + ")"
	}
}

// missing is why there is no usable evidence about a facet.
func (p *customerBuilder) missing(facet eligibilityv1.Facet) string {
	about := "account"
	if facet == eligibilityv1.Facet_FACET_QUALIFICATIONS {
		about = "qualifications"
	}
	held := p.newest(facet)
	switch {
	case held != nil && p.past:
		return fmt.Sprintf("what Microsoft had returned about the %s was too old to be used", about)
	case held != nil:
		return fmt.Sprintf("what Microsoft last returned about the %s is too old to be used", about)
	case p.past && p.unread(eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY):
		return "the history cannot be read, and only it has what Microsoft had returned about the " + about
	case p.unread(eligibilityv1.ExplanationPart_EXPLANATION_PART_EVIDENCE):
		return fmt.Sprintf("this replica has nothing about the %s, and the shared cache cannot be read", about)
	case p.past:
		return fmt.Sprintf("nobody had asked Microsoft about the %s, or it is no longer kept", about)
	default:
		return fmt.Sprintf("nobody has asked Microsoft about the %s, or the answer is no longer kept", about)
	}
}

// whyOf converts a rule.
func (p *customerBuilder) whyOf(r *eligibilityv1.AppliedRule, segment string) why {
	facet := "Account: "
	if r.GetFacet() == eligibilityv1.Facet_FACET_QUALIFICATIONS {
		facet = "Qualifications: "
	}
	does := map[eligibilityv1.AppliedRule_Outcome]string{
		eligibilityv1.AppliedRule_OUTCOME_ALLOWS: "allows", eligibilityv1.AppliedRule_OUTCOME_BLOCKS: "blocks",
		eligibilityv1.AppliedRule_OUTCOME_UNDECIDED: "leaves it undecided", eligibilityv1.AppliedRule_OUTCOME_NOT_NEEDED: "does not matter",
	}[r.GetOutcome()]
	var word *text
	if r.GetWord() != "" {
		shown := p.texts.brief(r.GetWord())
		word = &shown
	}
	switch r.GetRule() {
	case eligibilityv1.Rule_RULE_ACCOUNT_STATUS:
		if word == nil {
			return why{Before: facet + "Microsoft has no status on record, which " + does + "."}
		}
		return why{facet + "the status", word, does + "."}
	case eligibilityv1.Rule_RULE_NOT_READY:
		return why{facet + "the status", word, does + ", by the operator's policy (policy.not_ready)."}
	case eligibilityv1.Rule_RULE_REDUCING_OPERATION:
		return why{facet + "the status", word, does + " what sells nothing more, by the operator's policy (policy.under_review)."}
	case eligibilityv1.Rule_RULE_QUALIFICATION:
		switch {
		case word != nil:
			return why{facet + "the vetting status", word, does + "."}
		case r.GetReason() == eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_MISSING:
			return why{Before: facet + "the one that " + segment + " licences need is missing, which " + does + "."}
		default:
			return why{Before: facet + "the one that " + segment + " licences need has no vetting status, which " + does + "."}
		}
	case eligibilityv1.Rule_RULE_NO_QUALIFICATION_NEEDED:
		return why{Before: facet + segment + " licences need none."}
	case eligibilityv1.Rule_RULE_ABSENT:
		return why{Before: facet + p.absenceOf(r.GetFacet()) + "."}
	case eligibilityv1.Rule_RULE_NO_EVIDENCE:
		return why{Before: facet + p.missing(r.GetFacet()) + "."}
	case eligibilityv1.Rule_RULE_UNDECIDABLE:
		return why{Before: "What cannot be decided is blocked, by the operator's policy (policy.when_undecidable)."}
	case eligibilityv1.Rule_RULE_UNSPECIFIED:
	}
	return why{facet + "a rule that this page does not know", word, does + "."}
}

func (p *customerBuilder) absenceOf(facet eligibilityv1.Facet) string {
	return cmp.Or(absenceText(p.newest(facet).GetFacts().GetAbsence()), "Partner Center does not have the customer, or this partner does not serve it")
}

// actionOf is who can end a block, as in docs/support.md.
func actionOf(reason *eligibilityv1.Reason) action {
	switch reason.GetCode() { //nolint:exhaustive // the others are by their remedy
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNKNOWN:
		return action{"Microsoft", "Wait. If it lasts for days, open a ticket with Microsoft support, with the block below."}
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_READY:
		return action{"Microsoft", "Wait. The operator of this service can allow such accounts (policy.not_ready)."}
	case eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED, eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_UNRECOGNIZED:
		return action{"Operator of this service", "Report the word that Microsoft returned. Microsoft support can explain it."}
	case eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE:
		return action{"", "Nobody has to act: check again in a minute. If it lasts, see what keeps the service from asking Microsoft."}
	}
	switch reason.GetRemedy() {
	case eligibilityv1.Remedy_REMEDY_WAIT:
		return action{"Microsoft", "Wait for the end of the review. Nobody here can speed it up."}
	case eligibilityv1.Remedy_REMEDY_UPDATE_CUSTOMER:
		return action{"Customer", "The customer corrects its data; then the partner requests the qualification again in Partner Center."}
	case eligibilityv1.Remedy_REMEDY_REQUEST_QUALIFICATION:
		return action{"Partner", "Request the qualification for the customer in Partner Center."}
	case eligibilityv1.Remedy_REMEDY_CONTACT_SUPPORT:
		return action{"Partner", "Open a ticket with Microsoft support, with the block below."}
	case eligibilityv1.Remedy_REMEDY_NONE, eligibilityv1.Remedy_REMEDY_UNSPECIFIED:
	}
	return action{"Operator of this service", "Report the reason: this page does not know it."}
}

// undecidedAction is who can have a question decided that is not.
func (p *customerBuilder) undecidedAction(reason string) action {
	switch reason {
	case "NOT_KNOWN":
		if p.past && p.unread(eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY) {
			return action{"", "Load this page again later: it has the answer if the history can be read then."}
		}
		if p.past {
			return action{"", "Nobody has to act. A check at that time asked Microsoft, and failed if there was no answer."}
		}
		if p.mayAsk {
			return action{"You", "Ask Microsoft now, below. The shop's next check asks Microsoft too."}
		}
		return action{"", "Nobody has to act: the shop's next check asks Microsoft."}
	case "CUSTOMER_NOT_FOUND":
		return action{"You", "Compare the id with the customer's tenant id in Partner Center."}
	case "CUSTOMER_NOT_SERVED":
		return action{"Partner", "Send the customer a reseller invitation from Partner Center, or look at your other partner accounts."}
	case "PARTNER_CENTER_UNAVAILABLE":
		return action{"Microsoft", "Look at Microsoft's service health, and ask again later."}
	case "PARTNER_CENTER_THROTTLED":
		return action{"", "Nobody has to act: ask again when the pause is over."}
	default:
		return action{"Operator of this service", "Report it at once, with the customer's id and the time."}
	}
}

// renewals states whether orders that sell nothing more are allowed although purchases
// are blocked; empty if purchases are not.
func (p *customerBuilder) renewals(segment eligibilityv1.Segment, state string, blocking []*eligibilityv1.Reason) string {
	if state != blocked {
		return ""
	}
	for _, s := range p.renewal.GetSegments() {
		if s.GetSegment() != segment {
			continue
		}
		switch stateOf(s) {
		case allowed:
			return "Allowed: they sell nothing more."
		case blocked:
			if slices.ContainsFunc(blocking, func(r *eligibilityv1.Reason) bool {
				return r.GetCode() == eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW
			}) {
				return "Blocked too, by the operator's policy (policy.under_review). Microsoft itself continues them during a review."
			}
			return "Blocked too."
		}
	}
	return "Not known."
}

// enumWord is the name of an enumeration's value in lower case, without its prefix.
func enumWord(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}
