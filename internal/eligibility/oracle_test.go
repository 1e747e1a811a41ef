package eligibility_test

import (
	"slices"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// The oracle states the contract a second time, over plain values and tables,
// and shares no code with the rules. TestDecide compares the two.

// accountTable is the account rule. Its second column is the block if
// policy.not_ready is block, its third if it is allow.
var accountTable = map[eligibility.AccountStatus]struct {
	code          eligibility.ReasonCode
	blocks        bool
	blocksIfAllow bool
}{
	eligibility.AccountStatusUnspecified:  {eligibility.ReasonAccountStatusUnrecognized, true, true},
	eligibility.AccountStatusNone:         {eligibility.ReasonAccountHasNoStatus, false, false},
	eligibility.AccountStatusAllowed:      {eligibility.ReasonAccountAllowed, false, false},
	eligibility.AccountStatusUnderReview:  {eligibility.ReasonAccountUnderReview, true, true},
	eligibility.AccountStatusNotAllowed:   {eligibility.ReasonAccountNotAllowed, true, true},
	eligibility.AccountStatusUnknown:      {eligibility.ReasonAccountUnknown, true, true},
	eligibility.AccountStatusNotReady:     {eligibility.ReasonAccountNotReady, true, false},
	eligibility.AccountStatusUnrecognized: {eligibility.ReasonAccountStatusUnrecognized, true, true},
	eligibility.AccountStatus(200):        {eligibility.ReasonAccountStatusUnrecognized, true, true},
}

// reducing are the operations that sell nothing more.
var reducing = []eligibility.Operation{eligibility.OperationRenewal, eligibility.OperationSeatReduction, eligibility.OperationCancellation}

// exempt reports whether the policy lets the operation pass during a review, and
// without a qualification.
func exempt(policy eligibility.Policy, operation eligibility.Operation) bool {
	return policy.AllowReducing && slices.Contains(reducing, operation)
}

// asksForQualification reports whether the segment rule applies.
func asksForQualification(policy eligibility.Policy, segment eligibility.Segment, operation eligibility.Operation) bool {
	return segment != eligibility.SegmentCommercial && !exempt(policy, operation)
}

// segmentTable is the qualification that a segment asks for. Commercial asks for
// none; a segment that is not listed can never be satisfied.
var segmentTable = map[eligibility.Segment]eligibility.QualificationType{
	eligibility.SegmentEducation:  eligibility.QualificationEducation,
	eligibility.SegmentGovernment: eligibility.QualificationGovernmentCommunityCloud,
	eligibility.SegmentNonprofit:  eligibility.QualificationNonprofit,
}

// temporary are the reasons whose block may pass by itself.
var temporary = []eligibility.ReasonCode{
	eligibility.ReasonAccountUnderReview, eligibility.ReasonAccountUnknown, eligibility.ReasonAccountNotReady,
	eligibility.ReasonAccountStatusUnrecognized, eligibility.ReasonQualificationInReview,
	eligibility.ReasonQualificationUnrecognized, eligibility.ReasonUndecidable,
}

// undecidable are the failures that policy.when_undecidable turns into a block.
var undecidable = []eligibility.Kind{
	eligibility.KindUnavailable, eligibility.KindThrottled, eligibility.KindCredentials, eligibility.KindInvalidResponse,
}

// segmentOracle is the segment rule over sets, without an order of entries:
// Approved, unless a Denied is dated later than every Approved and all of those
// are dated; then the newest date, InReview before Denied.
func segmentOracle(segment eligibility.Segment, held []eligibility.Qualification) eligibility.ReasonCode {
	needed, known := segmentTable[segment]
	var days [eligibility.VettingUnrecognized + 1][]int64 // dates by vetting status; 0 is undated
	newest, found := int64(0), false
	for _, q := range held {
		if !known || q.Type != needed {
			continue
		}
		day := int64(0)
		if !q.VettingCreatedTime.IsZero() {
			day = q.VettingCreatedTime.Unix()
		}
		days[q.VettingStatus] = append(days[q.VettingStatus], day)
		newest, found = max(newest, day), true
	}
	approved, denied := days[eligibility.VettingApproved], days[eligibility.VettingDenied]
	switch {
	case !found:
		return eligibility.ReasonQualificationMissing
	case len(approved) > 0 && len(denied) > 0 && slices.Min(approved) > 0 && slices.Max(denied) > slices.Max(approved):
		return eligibility.ReasonQualificationDenied
	case len(approved) > 0:
		return eligibility.ReasonQualificationApproved
	case slices.Contains(days[eligibility.VettingInReview], newest):
		return eligibility.ReasonQualificationInReview
	case slices.Contains(denied, newest):
		return eligibility.ReasonQualificationDenied
	default:
		return eligibility.ReasonQualificationUnrecognized
	}
}

// verdict is the part of an answer that the oracle predicts, or the kind of the
// error. Times are in nanoseconds since 1970; 0 is the zero time.
type verdict struct {
	decision eligibility.Decision
	reasons  [2]eligibility.Reason
	failure  eligibility.Kind // if decision is none
	evidence int64
	expire   int64
	recheck  int64
	tier     eligibility.Tier
	stale    bool
}

// facetOracle is one facet of a question: what is held, and what the oracle knows
// about it at the time of the answer.
type facetOracle struct {
	held   eligibility.Held
	usable bool
	absent bool
	fresh  bool
	failed bool // without usable evidence, because of failure
	kind   eligibility.Kind
	retry  time.Duration
}

func newFacetOracle(held eligibility.Held, now int64) facetOracle {
	f := facetOracle{held: held}
	present := held.Evidence != nil
	f.usable = present && now < held.Lifetime.UsableUntil.UnixNano()
	f.absent = f.usable && held.Evidence.Absence != eligibility.AbsenceNone
	f.fresh = f.usable && held.Fresh && (held.Fetched || now < held.Lifetime.FreshUntil.UnixNano())
	switch {
	case held.Err != nil:
		failure := held.Err.(*eligibility.Error) //nolint:errorlint // the generator's
		f.failed, f.kind, f.retry = true, failure.Kind, failure.RetryAfter
	case present && !f.usable:
		f.failed, f.kind, f.retry = true, eligibility.KindUnavailable, time.Second
	}
	return f
}

// absence is the failure that an absence stands for.
func (f *facetOracle) absence() eligibility.Kind {
	if f.held.Evidence.Absence == eligibility.AbsenceNotServed {
		return eligibility.KindNotServed
	}
	return eligibility.KindNotFound
}

// use adds what the answer rests on.
func (v *verdict) use(f *facetOracle) {
	fetched, expire := f.held.Evidence.FetchTime.UnixNano(), f.held.Lifetime.FreshUntil.UnixNano()
	if v.evidence == 0 || fetched < v.evidence {
		v.evidence = fetched
	}
	if v.expire == 0 || expire < v.expire {
		v.expire = expire
	}
	v.tier, v.stale = max(v.tier, f.held.Tier), v.stale || !f.fresh
}

// decideOracle returns what Decide must return.
func decideOracle(policy eligibility.Policy, segment eligibility.Segment, operation eligibility.Operation, account, qualifications *facetOracle, now int64) verdict {
	var v verdict
	if account.absent {
		return verdict{failure: account.absence()}
	}
	n, blocked, passes, recheck := 0, false, true, int64(0)
	add := func(code eligibility.ReasonCode, blocks bool, f *facetOracle) {
		v.reasons[n] = eligibility.Reason{Code: code, Blocks: blocks}
		n++
		v.use(f)
		if !blocks {
			return
		}
		blocked = true
		passes = passes && slices.Contains(temporary, code)
		at := f.held.Lifetime.FreshUntil.UnixNano()
		if !f.fresh {
			at = now + retry(f.retry)
		}
		recheck = max(recheck, at)
	}
	decidable, failure, wait := true, eligibility.KindInternal, time.Duration(0)
	fail := func(kind eligibility.Kind, retry time.Duration) {
		if decidable {
			decidable, failure, wait = false, kind, retry
		}
	}

	switch {
	case account.usable:
		code := accountTable[account.held.Evidence.Status].code
		if code == eligibility.ReasonAccountUnderReview && exempt(policy, operation) {
			code = eligibility.ReasonAccountReviewExempt
		}
		add(code, blocksOracle(policy, segment, operation, account.held.Evidence), account)
	case account.failed:
		fail(account.kind, account.retry)
	}
	if asksForQualification(policy, segment, operation) {
		switch {
		case qualifications.usable && !qualifications.absent:
			code := segmentOracle(segment, qualifications.held.Evidence.Qualifications)
			add(code, code != eligibility.ReasonQualificationApproved, qualifications)
		case qualifications.absent:
			fail(qualifications.absence(), 0)
		case qualifications.failed:
			fail(qualifications.kind, qualifications.retry)
		default:
			fail(eligibility.KindUnavailable, time.Second)
		}
	}

	switch {
	case blocked:
		v.decision = eligibility.DecisionBlocked
		if passes {
			v.recheck = recheck
		}
	case !decidable && policy.BlockUndecidable && slices.Contains(undecidable, failure):
		v.decision, v.expire, v.recheck = eligibility.DecisionBlocked, 0, now+retry(wait)
		reason := eligibility.Reason{Code: eligibility.ReasonUndecidable, Blocks: true}
		if account.usable {
			v.reasons[n] = reason
		} else {
			v.reasons = [2]eligibility.Reason{reason, v.reasons[0]}
		}
	case !decidable, !account.usable:
		return verdict{failure: failure}
	default:
		v.decision = eligibility.DecisionAllowed
	}
	return v
}

// blocksOracle reports whether usable evidence alone blocks.
func blocksOracle(policy eligibility.Policy, segment eligibility.Segment, operation eligibility.Operation, evidence *eligibility.Evidence) bool {
	if evidence.Absence != eligibility.AbsenceNone {
		return true
	}
	if evidence.Facet == eligibility.FacetQualifications {
		return asksForQualification(policy, segment, operation) && segmentOracle(segment, evidence.Qualifications) != eligibility.ReasonQualificationApproved
	}
	if evidence.Status == eligibility.AccountStatusUnderReview && exempt(policy, operation) {
		return false
	}
	row := accountTable[evidence.Status]
	if policy.NotReadyAllowed {
		return row.blocksIfAllow
	}
	return row.blocks
}

// retry is when to ask again after a failure.
func retry(after time.Duration) int64 {
	if after > 0 {
		return int64(after)
	}
	return int64(time.Minute)
}

// ageOracle is the configured age of the evidence's outcome for an operation.
func ageOracle(ages *eligibility.Ages, evidence *eligibility.Evidence, policy eligibility.Policy, operation eligibility.Operation) eligibility.Age {
	if evidence.Absence != eligibility.AbsenceNone {
		return eligibility.Age{Fresh: time.Minute, Usable: time.Minute}
	}
	if evidence.Facet == eligibility.FacetQualifications {
		if slices.ContainsFunc(evidence.Qualifications, func(q eligibility.Qualification) bool { return q.VettingStatus == eligibility.VettingInReview }) {
			return ages.QualificationsInReview
		}
		return ages.Qualifications
	}
	var age eligibility.Age
	switch evidence.Status {
	case eligibility.AccountStatusAllowed:
		age = ages.Allowed
	case eligibility.AccountStatusNone:
		age = ages.NoStatus
	case eligibility.AccountStatusNotAllowed:
		age = ages.NotAllowed
	default:
		age = ages.Pending
	}
	if evidence.Status == eligibility.AccountStatusNotReady && policy.NotReadyAllowed ||
		evidence.Status == eligibility.AccountStatusUnderReview && exempt(policy, operation) {
		age.Fresh, age.Usable = min(age.Fresh, ages.Allowed.Fresh), min(age.Usable, ages.Allowed.Usable)
	}
	return age
}
