package eligibility

import (
	"errors"
	"time"
)

// Policy is what the operator decides about purchases.
type Policy struct {
	// NotReadyAllowed lets the status Not Ready pass (policy.not_ready: allow).
	NotReadyAllowed bool
	// AllowReducing lets operations that sell nothing more pass while an account is
	// under review, and without the qualification of their segment
	// (policy.under_review: allow_reducing).
	AllowReducing bool
	// BlockUndecidable returns a block in place of the errors that mean that
	// Partner Center could not be asked (policy.when_undecidable: block).
	BlockUndecidable bool
}

// Held is what one check holds about one facet. Without Evidence and Err, nobody
// waited for the facet because the decision did not seem to need it.
type Held struct {
	// Evidence is nil if there is none that is usable.
	Evidence *Evidence
	Tier     Tier
	Lifetime Lifetime
	// Fresh reports that Evidence satisfies the request without a fetch.
	Fresh bool
	// Fetched reports that Evidence was fetched for this check. It stays fresh
	// until the check ends.
	Fetched bool
	// Call is the call to Partner Center made for this check.
	Call Call
	// Err is why a fetch failed, an *Error; nil if none was made or none failed.
	Err error
}

// Basis is what [Decide] was given beside the policy and the question, so that the
// answer can be derived again. Its evidence is shared and must not be changed.
type Basis struct {
	Account        Held
	Qualifications Held
	// Time is the moment of the answer; zero if Decide was not reached.
	Time time.Time
}

const (
	// expiredRetry is when to ask again if evidence expired during a check.
	expiredRetry = time.Second
	// recheckDefault is when to ask again about a block that may pass, if
	// neither the evidence's age nor the failure gives a time.
	recheckDefault = time.Minute
)

var (
	errExpired   = errors.New("evidence became too old while the caller waited")
	errNotWaited = errors.New("the qualifications are needed, and nobody waited for them")
	errNothing   = errors.New("neither evidence nor a failure")
)

// exempts reports whether only the account rule applies to the operation, and a
// review does not block it.
func (p Policy) exempts(operation Operation) bool { return p.AllowReducing && operation.reduces() }

// SegmentFor returns the segment whose rule applies to the operation: commercial,
// which asks for no qualification, if the policy exempts the operation.
func (p Policy) SegmentFor(segment Segment, operation Operation) Segment {
	if p.exempts(operation) {
		return SegmentCommercial
	}
	return segment
}

// Decide applies the rules to what a check holds at now. DecisionAllowed leaves
// this function in one place only: after every rule that the segment asks for was
// applied to usable evidence and none of them blocks. Every error is an *Error.
//
// The Fresh of a facet that is not needed has no influence. The answer shares the
// evidence and copies nothing else of what is held.
func Decide(policy Policy, segment Segment, operation Operation, account, qualifications Held, now time.Time) (Answer, error) {
	return decide(policy, segment, operation, account, qualifications, now, nil)
}

// decide is Decide. It adds each rule that it applies to rules, unless that is nil.
func decide(policy Policy, asked Segment, operation Operation, account, qualifications Held, now time.Time, rules *explanation) (Answer, error) {
	segment := policy.SegmentFor(asked, operation)
	account.expire(now)
	qualifications.expire(now)
	if account.Evidence != nil && account.Evidence.Absence != AbsenceNone {
		rules.lacks(FacetAccount, account.Evidence)
		return Answer{}, absenceError(account.Evidence.Absence, account.Call)
	}
	answer := Answer{
		Account: account.Evidence, Call: account.Call,
	}
	if account.Err != nil || qualifications.Err != nil {
		answer.Cause = errors.Join(account.Err, qualifications.Err)
	}
	if qualifications.Evidence != nil && qualifications.Evidence.Absence == AbsenceNone {
		answer.Qualifications = qualifications.Evidence
	}

	failure := account.Err
	if answer.Account != nil {
		failure = nil
		reason := policy.accountReason(answer.Account.Status, operation)
		answer.apply(reason, &account)
		rules.gave(FacetAccount, reason, answer.Account.StatusText)
	} else {
		rules.lacks(FacetAccount, nil)
	}
	if segment == SegmentCommercial {
		rules.notNeeded(asked)
	} else {
		if answer.Qualifications == nil {
			rules.lacks(FacetQualifications, qualifications.Evidence)
		}
		switch {
		case answer.Qualifications != nil:
			reason := segmentReason(segment, answer.Qualifications.Qualifications)
			answer.apply(reason, &qualifications)
			rules.qualification(reason, segment, answer.Qualifications.Qualifications)
		case failure != nil: // the account's failure is reported first
		case qualifications.Evidence != nil:
			failure = absenceError(qualifications.Evidence.Absence, qualifications.Call)
		case qualifications.Err != nil:
			failure = qualifications.Err
		default:
			failure = &Error{Kind: KindUnavailable, RetryAfter: expiredRetry, Call: qualifications.Call, Err: errNotWaited}
		}
	}

	switch {
	case answer.blocks():
		answer.Decision = DecisionBlocked
	case failure != nil:
		return policy.undecided(answer, failure, now, rules)
	case answer.Account == nil || len(answer.Reasons) != rulesFor(segment):
		return Answer{}, &Error{Kind: KindInternal, Err: errNothing}
	default:
		answer.Decision = DecisionAllowed
	}
	answer.RecheckTime = answer.recheckTime(&account, &qualifications, now)
	return answer, nil
}

// NeedsQualifications reports whether the decision still depends on them: the
// segment asks for a qualification and the account alone does not block.
func (p Policy) NeedsQualifications(segment Segment, operation Operation, account *Evidence) bool {
	return p.SegmentFor(segment, operation) != SegmentCommercial && account != nil && !p.Blocks(segment, operation, account)
}

// Blocks reports whether evidence alone keeps the operation in the segment from being
// allowed.
func (p Policy) Blocks(segment Segment, operation Operation, evidence *Evidence) bool {
	segment = p.SegmentFor(segment, operation)
	switch {
	case evidence.Absence != AbsenceNone:
		return true
	case evidence.Facet == FacetAccount:
		return p.accountReason(evidence.Status, operation).Blocks
	default:
		return segment != SegmentCommercial && segmentReason(segment, evidence.Qualifications).Blocks
	}
}

// expire drops evidence that became too old while the check waited: the moment of
// the answer counts, not that of the question.
func (h *Held) expire(now time.Time) {
	switch {
	case h.Evidence == nil:
	case !now.Before(h.Lifetime.UsableUntil):
		h.Evidence, h.Fresh = nil, false
		if h.Err == nil {
			h.Err = &Error{Kind: KindUnavailable, RetryAfter: expiredRetry, Call: h.Call, Err: errExpired}
		}
	case !h.Fetched && !now.Before(h.Lifetime.FreshUntil):
		h.Fresh = false
	}
}

// rulesFor is how many rules must have been applied before a segment is allowed.
func rulesFor(segment Segment) int {
	if segment == SegmentCommercial {
		return 1
	}
	return 2
}

// apply adds a rule's reason and the evidence that it used.
func (a *Answer) apply(reason Reason, on *Held) {
	if a.Reasons == nil {
		a.Reasons = reason.list()
	} else {
		a.Reasons = append(a.Reasons, reason)
	}
	fetched := on.Evidence.FetchTime
	if a.EvidenceTime.IsZero() || fetched.Before(a.EvidenceTime) {
		a.EvidenceTime = fetched
	}
	if a.ExpireTime.IsZero() || on.Lifetime.FreshUntil.Before(a.ExpireTime) {
		a.ExpireTime = on.Lifetime.FreshUntil
	}
	a.Tier = max(a.Tier, on.Tier)
	a.Stale = a.Stale || !on.Fresh
}

func (a *Answer) blocks() bool {
	for _, reason := range a.Reasons {
		if reason.Blocks {
			return true
		}
	}
	return false
}

// undecided answers a question that evidence does not decide: with the failure, or
// with a block if the policy demands it. Never with DecisionAllowed.
func (p Policy) undecided(answer Answer, failure error, now time.Time, rules *explanation) (Answer, error) {
	var known *Error
	if !p.BlockUndecidable || !errors.As(failure, &known) || !known.Kind.undecidable() {
		return Answer{}, failure
	}
	undecidable := Reason{Code: ReasonUndecidable, Blocks: true}
	if answer.Account == nil {
		answer.Reasons = append([]Reason{undecidable}, answer.Reasons...)
		rules.gave(FacetAccount, undecidable, "")
	} else {
		answer.Reasons = append(answer.Reasons, undecidable)
		rules.gave(FacetQualifications, undecidable, "")
	}
	answer.Decision = DecisionBlocked
	answer.Cause = failure
	answer.ExpireTime = time.Time{} // a failure is not fresh for any time
	answer.RecheckTime = now.Round(0).Add(retryAfter(failure))
	return answer, nil
}

// recheckTime is when a block that may pass by itself is worth asking about
// again: when all that blocks has stopped being fresh.
func (a *Answer) recheckTime(account, qualifications *Held, now time.Time) time.Time {
	var recheck time.Time
	for _, reason := range a.Reasons {
		if !reason.Blocks {
			continue
		}
		if !reason.Temporary() {
			return time.Time{}
		}
		on := account
		if reason.Code >= ReasonQualificationApproved {
			on = qualifications
		}
		at := on.Lifetime.FreshUntil
		if !on.Fresh {
			at = now.Round(0).Add(retryAfter(on.Err))
		}
		if at.After(recheck) {
			recheck = at
		}
	}
	return recheck
}

func retryAfter(err error) time.Duration {
	var known *Error
	if errors.As(err, &known) && known.RetryAfter > 0 {
		return known.RetryAfter
	}
	return recheckDefault
}

func absenceError(absence Absence, call Call) error {
	if absence == AbsenceNotServed {
		return &Error{Kind: KindNotServed, Call: call}
	}
	return &Error{Kind: KindNotFound, Call: call}
}
