package eligibility

import (
	"errors"
	"time"
)

// needsQualifications reports whether the decision still depends on them: the
// segment asks for a qualification and the account alone does not block.
func (s *Service) needsQualifications(c *check) bool {
	account := c.account.found.Evidence
	return c.req.Segment != SegmentCommercial && account != nil && account.Absence == AbsenceNone &&
		!accountReason(account.Status, s.notReadyAllowed).Blocks
}

// decide applies the rules to what the check found. ALLOWED leaves this
// function in one place only: after every rule that the segment asks for has
// spoken, on evidence, and none has blocked.
func (s *Service) decide(c *check, now time.Time) (Answer, error) {
	s.expire(c, now)
	segment := c.req.Segment
	account, qualifications := c.account.found.Evidence, c.qualifications.found.Evidence
	if account != nil && account.Absence != AbsenceNone {
		return Answer{}, absenceError(account.Absence, c.account.call)
	}
	answer := Answer{
		Account: account, Reasons: make([]Reason, 0, rulesFor(segment)),
		Call: c.account.call, Cause: errors.Join(c.account.failure(), c.qualifications.failure()),
	}
	if qualifications != nil && qualifications.Absence == AbsenceNone {
		answer.Qualifications = qualifications
	}

	var failure error
	if account != nil {
		answer.apply(accountReason(account.Status, s.notReadyAllowed), &c.account)
	} else {
		failure = c.account.err
	}
	if segment != SegmentCommercial {
		switch {
		case answer.Qualifications != nil:
			answer.apply(segmentReason(segment, qualifications.Qualifications), &c.qualifications)
		case failure == nil && qualifications != nil:
			failure = absenceError(qualifications.Absence, c.qualifications.call)
		case failure == nil:
			failure = c.qualifications.err
		}
	}

	switch {
	case answer.blocks():
		answer.Decision = DecisionBlocked
	case failure != nil:
		return s.undecided(answer, failure, now)
	case account == nil || len(answer.Reasons) != rulesFor(segment):
		return Answer{}, &Error{Kind: KindInternal, Err: errors.New("neither evidence nor a failure")}
	default:
		answer.Decision = DecisionAllowed
	}
	answer.RecheckTime = c.recheckTime(&answer, now)
	s.metrics.answered(c, &answer)
	return answer, nil
}

// rulesFor is how many rules must have spoken before a segment is allowed.
func rulesFor(segment Segment) int {
	if segment == SegmentCommercial {
		return 1
	}
	return 2
}

// apply adds a rule's reason and what it rests on.
func (a *Answer) apply(reason Reason, on *view) {
	a.Reasons = append(a.Reasons, reason)
	fetched := on.found.Evidence.FetchTime
	if a.EvidenceTime.IsZero() || fetched.Before(a.EvidenceTime) {
		a.EvidenceTime = fetched
	}
	if a.ExpireTime.IsZero() || on.life.freshUntil.Before(a.ExpireTime) {
		a.ExpireTime = on.life.freshUntil
	}
	a.Tier = max(a.Tier, on.found.Tier)
	a.Stale = a.Stale || !on.fresh
}

func (a *Answer) blocks() bool {
	for _, reason := range a.Reasons {
		if reason.Blocks {
			return true
		}
	}
	return false
}

// undecided answers a question that evidence does not settle: with the failure,
// or with a block where the policy says so. Never with ALLOWED.
func (s *Service) undecided(answer Answer, failure error, now time.Time) (Answer, error) {
	var known *Error
	if !s.blockUndecidable || !errors.As(failure, &known) || !known.Kind.undecidable() {
		return Answer{}, failure
	}
	undecidable := Reason{Code: ReasonUndecidable, Blocks: true}
	if answer.Account == nil {
		answer.Reasons = append([]Reason{undecidable}, answer.Reasons...)
	} else {
		answer.Reasons = append(answer.Reasons, undecidable)
	}
	answer.Decision = DecisionBlocked
	answer.Cause = failure
	answer.ExpireTime = time.Time{} // a failure stays true for no time at all
	answer.RecheckTime = now.Round(0).Add(retryAfter(failure))
	return answer, nil
}

// recheckTime is when a block that may pass by itself is worth asking about
// again: when all that blocks has stopped being fresh.
func (c *check) recheckTime(answer *Answer, now time.Time) time.Time {
	var recheck time.Time
	for _, reason := range answer.Reasons {
		if !reason.Blocks {
			continue
		}
		if !reason.Temporary() {
			return time.Time{}
		}
		on := &c.account
		if reason.Code >= ReasonQualificationApproved {
			on = &c.qualifications
		}
		at := on.life.freshUntil
		if !on.fresh {
			at = now.Round(0).Add(retryAfter(on.err))
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
