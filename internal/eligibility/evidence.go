package eligibility

import (
	"slices"
	"sync/atomic"
	"time"
)

// Tier is a place that evidence came from; a larger one is slower.
type Tier uint8

// The tiers. TierNone stands for no evidence.
const (
	TierNone Tier = iota
	TierLocal
	TierRedis
	TierPartnerCenter
)

// Facet is one of the two things that Partner Center knows about a customer.
// The facets are fetched side by side, kept apart, and fail apart.
type Facet uint8

// The facets. FacetAccount is needed by every decision, FacetQualifications by
// those for a segment other than commercial.
const (
	FacetAccount Facet = iota
	FacetQualifications
)

// String returns the facet's name for logs, metrics and keys.
func (f Facet) String() string {
	if f == FacetQualifications {
		return "qualifications"
	}
	return "account"
}

// Key names the evidence of one facet of one customer.
type Key struct {
	CustomerID CustomerID
	Facet      Facet
}

// Absence is why Partner Center has no facts about a customer. The zero value
// means that it has facts.
type Absence uint8

// The kinds of absence. Each is an answer, kept for a minute under its own kind.
const (
	AbsenceNone Absence = iota
	// AbsenceNotFound: Partner Center knows no such tenant (404, code 60003).
	AbsenceNotFound
	// AbsenceNotServed: this partner does not serve that tenant (403, code 20002).
	AbsenceNotServed
)

// String returns the name of a kind of absence in events and records; "" if there is
// none.
func (a Absence) String() string {
	switch a {
	case AbsenceNotFound:
		return "NOT_FOUND"
	case AbsenceNotServed:
		return "NOT_SERVED"
	default:
		return ""
	}
}

// AccountStatus is the account validation status as read by the rule. The zero
// value stands for no evidence at all and never allows.
type AccountStatus uint8

// The account statuses.
const (
	AccountStatusUnspecified AccountStatus = iota
	// AccountStatusNone: Partner Center reported that there is no status (404, code 600074).
	AccountStatusNone
	AccountStatusAllowed
	AccountStatusUnderReview
	AccountStatusNotAllowed
	AccountStatusUnknown
	AccountStatusNotReady
	// AccountStatusUnrecognized: a word that the rule does not know.
	AccountStatusUnrecognized
)

// QualificationType is a kind of qualification. The zero value is a kind that
// the rule does not know; it satisfies nothing.
type QualificationType uint8

// The kinds of qualification.
const (
	QualificationUnrecognized QualificationType = iota
	QualificationEducation
	QualificationGovernmentCommunityCloud
	QualificationNonprofit
	// QualificationStateOwnedEntity is a marker; it has no vetting status.
	QualificationStateOwnedEntity
)

// VettingStatus is how far Microsoft's vetting of a qualification is.
type VettingStatus uint8

// The vetting statuses. VettingUnspecified means that none was sent.
const (
	VettingUnspecified VettingStatus = iota
	VettingApproved
	VettingInReview
	VettingDenied
	VettingUnrecognized
)

// Qualification is one entry of a customer's qualifications. The texts are
// Partner Center's words as sent; VettingCreatedTime is zero if none was sent
// or it could not be read.
type Qualification struct {
	Type               QualificationType
	VettingStatus      VettingStatus
	TypeText           string
	VettingStatusText  string
	VettingReason      string
	VettingCreatedTime time.Time
}

// Evidence is what Partner Center reported about one facet of one customer. It is
// a fact, never a decision, and must not be changed once shared. All its texts are
// valid UTF-8: what reads them from Partner Center or Redis rejects anything else.
//
// It is two lines of a processor's cache. All that shows whether it answers lies in the
// first.
type Evidence struct {
	Facet Facet
	// Absence, if set, is all that the evidence contains.
	Absence Absence
	// Status and StatusText are the account facet's; the text is the word as
	// sent, empty for AccountStatusNone.
	Status AccountStatus
	// refreshing is 1 once an early refresh of this very evidence was scheduled;
	// accessed atomically. Evidence is passed by value, which atomic.Uint32 forbids.
	refreshing uint32
	// FetchTime is when the fetch started, rounded down to whole milliseconds:
	// set once, carried unchanged through every tier, so that an age is never
	// under-reported and the time survives clients that store milliseconds.
	FetchTime time.Time
	// started is when this process started the fetch, with all digits and the
	// monotonic reading; zero if another replica fetched the evidence. It is
	// never stored.
	started time.Time

	StatusText string
	// Qualifications are the other facet's; empty if none is held.
	Qualifications []Qualification
	// CorrelationID is the fetch's MS-CorrelationId, RequestID the MS-RequestId of the
	// request that was answered; both are what Microsoft support asks for.
	CorrelationID string
	RequestID     string
}

// SetFetchTime records that this process started the fetch of e at start. Call it
// before e is shared.
func (e *Evidence) SetFetchTime(start time.Time) {
	e.started, e.FetchTime = start, start.Truncate(time.Millisecond)
}

// FetchedHere reports whether this process fetched e: its FetchTime is then a
// reading of this process's clock. Evidence read from the shared tier or from a
// message is another replica's.
func (e *Evidence) FetchedHere() bool { return !e.started.IsZero() }

// Refreshing reports whether an early refresh of this very evidence was scheduled.
func (e *Evidence) Refreshing() bool { return atomic.LoadUint32(&e.refreshing) != 0 }

// StartRefreshing makes Refreshing true. It reports false if another caller has
// done so.
func (e *Evidence) StartRefreshing() bool { return atomic.CompareAndSwapUint32(&e.refreshing, 0, 1) }

// FetchedSince reports whether the fetch of e certainly started at moment, which
// carries a monotonic reading, or later. The clock of another replica may be ahead
// by the tolerance, so its evidence may be that much older than it seems. This
// process's own is compared by both clocks: the monotonic one stands still while
// the machine sleeps, and the wall clock may be set back.
func (e *Evidence) FetchedSince(moment time.Time) bool {
	if e.FetchedHere() {
		return !e.started.Before(moment) && !e.started.Round(0).Before(moment.Round(0))
	}
	return !e.FetchTime.Before(moment.Add(ClockTolerance))
}

// setBack returns how far the clock was set back since this process fetched e, or
// 0 within the tolerance: e is older by that much than its FetchTime shows. It is
// 0 for another replica's evidence, whose age no monotonic clock has measured.
func (e *Evidence) setBack(now time.Time) time.Duration {
	if !e.FetchedHere() {
		return 0
	}
	wall := time.Duration(now.UnixNano() - e.started.UnixNano())
	if behind := now.Sub(e.started) - wall; behind > ClockTolerance {
		return behind
	}
	return 0
}

// Compact returns a copy of e that takes as little memory as possible: words of
// Partner Center are shared by all evidence, the only qualification lies beside the
// evidence, and both IDs are in one piece of memory.
func Compact(e Evidence) *Evidence {
	e.StatusText = Word(e.StatusText)
	if e.RequestID != "" && e.CorrelationID != "" {
		ids := e.CorrelationID + e.RequestID
		e.CorrelationID, e.RequestID = ids[:len(e.CorrelationID)], ids[len(e.CorrelationID):]
	}
	if len(e.Qualifications) != 1 {
		e.Qualifications = slices.Clone(e.Qualifications)
		compactWords(e.Qualifications)
		return &e
	}
	both := &struct {
		evidence Evidence
		only     [1]Qualification
	}{evidence: e, only: [1]Qualification{e.Qualifications[0]}}
	both.evidence.Qualifications = both.only[:]
	compactWords(both.evidence.Qualifications)
	return &both.evidence
}

func compactWords(qualifications []Qualification) {
	for i := range qualifications {
		q := &qualifications[i]
		q.TypeText, q.VettingStatusText = Word(q.TypeText), Word(q.VettingStatusText)
	}
}
