package eligibility

// ReasonCode names a rule that applied. The zero value is none.
type ReasonCode uint8

// The reason codes, in the words of the API.
const (
	ReasonNone ReasonCode = iota
	ReasonAccountAllowed
	ReasonAccountHasNoStatus
	ReasonAccountUnderReview
	ReasonAccountNotAllowed
	ReasonAccountUnknown
	ReasonAccountNotReady
	ReasonAccountStatusUnrecognized
	ReasonAccountReviewExempt
	ReasonQualificationApproved
	ReasonQualificationInReview
	ReasonQualificationDenied
	ReasonQualificationMissing
	ReasonQualificationUnrecognized
	ReasonUndecidable
)

// String returns the code's name as the API spells it, without its prefix, for
// logs, metrics and tables.
func (c ReasonCode) String() string {
	switch c {
	case ReasonAccountAllowed:
		return "ACCOUNT_ALLOWED"
	case ReasonAccountHasNoStatus:
		return "ACCOUNT_HAS_NO_STATUS"
	case ReasonAccountUnderReview:
		return "ACCOUNT_UNDER_REVIEW"
	case ReasonAccountNotAllowed:
		return "ACCOUNT_NOT_ALLOWED"
	case ReasonAccountUnknown:
		return "ACCOUNT_UNKNOWN"
	case ReasonAccountNotReady:
		return "ACCOUNT_NOT_READY"
	case ReasonAccountStatusUnrecognized:
		return "ACCOUNT_STATUS_UNRECOGNIZED"
	case ReasonAccountReviewExempt:
		return "ACCOUNT_REVIEW_EXEMPT"
	case ReasonQualificationApproved:
		return "QUALIFICATION_APPROVED"
	case ReasonQualificationInReview:
		return "QUALIFICATION_IN_REVIEW"
	case ReasonQualificationDenied:
		return "QUALIFICATION_DENIED"
	case ReasonQualificationMissing:
		return "QUALIFICATION_MISSING"
	case ReasonQualificationUnrecognized:
		return "QUALIFICATION_UNRECOGNIZED"
	case ReasonUndecidable:
		return "UNDECIDABLE"
	default:
		return "NONE"
	}
}

// Remedy is who can change a block. The zero value means that nobody can.
type Remedy uint8

// The remedies.
const (
	RemedyNone Remedy = iota
	RemedyWait
	RemedyUpdateCustomer
	RemedyRequestQualification
	RemedyContactSupport
)

// Reason is the result of one rule that applied.
type Reason struct {
	Code ReasonCode
	// Blocks reports that the customer may not buy for this reason.
	Blocks bool
}

// list returns the list of this reason only, whose array all lists of it share: what is
// appended goes into another.
func (r Reason) list() []Reason {
	switch {
	case r.Code > ReasonUndecidable:
		return []Reason{r}
	case r.Blocks:
		return singleReasons[r.Code][1][:]
	default:
		return singleReasons[r.Code][0][:]
	}
}

// singleReasons has the array of each reason, by whether it blocks.
var singleReasons = func() (all [ReasonUndecidable + 1][2][1]Reason) { //nolint:gochecknoglobals // only read
	for code := range all {
		for blocks := range 2 {
			all[code][blocks][0] = Reason{Code: ReasonCode(code), Blocks: blocks == 1}
		}
	}
	return all
}()

// Temporary reports whether a blocking reason may pass by itself.
func (r Reason) Temporary() bool {
	if !r.Blocks {
		return false
	}
	switch r.Code {
	case ReasonAccountUnderReview, ReasonAccountUnknown, ReasonAccountNotReady,
		ReasonAccountStatusUnrecognized, ReasonQualificationInReview,
		ReasonQualificationUnrecognized, ReasonUndecidable:
		return true
	default:
		return false
	}
}

// Remedy returns who can change a blocking reason; RemedyNone if it allows.
func (r Reason) Remedy() Remedy {
	if !r.Blocks {
		return RemedyNone
	}
	switch r.Code {
	case ReasonAccountUnderReview, ReasonAccountUnknown, ReasonAccountNotReady,
		ReasonQualificationInReview, ReasonUndecidable:
		return RemedyWait
	case ReasonQualificationMissing:
		return RemedyRequestQualification
	case ReasonQualificationDenied:
		return RemedyUpdateCustomer
	default:
		return RemedyContactSupport
	}
}
