package evidence_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func check(t *testing.T, cfg evidence.Config, account, held outcome, segment eligibility.Segment) (eligibility.Answer, error) {
	t.Helper()
	source := &scripted{account: account, held: held}
	service, stop := serve(t, source, newMemory(), cfg)
	defer stop()
	return service.Check(context.Background(), eligibility.Request{CustomerID: customer, Segment: segment})
}

func TestAccountRule(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name      string
		status    eligibility.AccountStatus
		allow     bool // policy.not_ready: allow
		decision  eligibility.Decision
		code      eligibility.ReasonCode
		temporary bool
		remedy    eligibility.Remedy
	}{
		{"Allowed passes", eligibility.AccountStatusAllowed, false, eligibility.DecisionAllowed, eligibility.ReasonAccountAllowed, false, eligibility.RemedyNone},
		{"no status passes", eligibility.AccountStatusNone, false, eligibility.DecisionAllowed, eligibility.ReasonAccountHasNoStatus, false, eligibility.RemedyNone},
		{"UnderReview blocks for now", eligibility.AccountStatusUnderReview, false, eligibility.DecisionBlocked, eligibility.ReasonAccountUnderReview, true, eligibility.RemedyWait},
		{"NotAllowed blocks", eligibility.AccountStatusNotAllowed, false, eligibility.DecisionBlocked, eligibility.ReasonAccountNotAllowed, false, eligibility.RemedyContactSupport},
		{"Unknown blocks for now", eligibility.AccountStatusUnknown, false, eligibility.DecisionBlocked, eligibility.ReasonAccountUnknown, true, eligibility.RemedyWait},
		{"Not Ready blocks for now", eligibility.AccountStatusNotReady, false, eligibility.DecisionBlocked, eligibility.ReasonAccountNotReady, true, eligibility.RemedyWait},
		{"Not Ready passes by policy", eligibility.AccountStatusNotReady, true, eligibility.DecisionAllowed, eligibility.ReasonAccountNotReady, false, eligibility.RemedyNone},
		{"another word blocks for now", eligibility.AccountStatusUnrecognized, true, eligibility.DecisionBlocked, eligibility.ReasonAccountStatusUnrecognized, true, eligibility.RemedyContactSupport},
		{"no evidence never passes", eligibility.AccountStatusUnspecified, true, eligibility.DecisionBlocked, eligibility.ReasonAccountStatusUnrecognized, true, eligibility.RemedyContactSupport},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			answer, err := check(t, evidence.Config{Policy: eligibility.Policy{NotReadyAllowed: row.allow}}, status(row.status), holding(), eligibility.SegmentCommercial)
			if err != nil {
				t.Fatal(err)
			}
			if answer.Decision != row.decision || len(answer.Reasons) != 1 {
				t.Fatalf("decision %d with reasons %+v, want %d", answer.Decision, answer.Reasons, row.decision)
			}
			reason := answer.Reasons[0]
			if reason.Code != row.code || reason.Temporary() != row.temporary || reason.Remedy() != row.remedy {
				t.Errorf("reason %d, temporary %t, remedy %d", reason.Code, reason.Temporary(), reason.Remedy())
			}
			if reason.Message(eligibility.English) == "" {
				t.Error("reason says nothing")
			}
			if answer.RecheckTime.IsZero() == row.temporary {
				t.Errorf("recheck time %v of a block that is temporary: %t", answer.RecheckTime, row.temporary)
			}
		})
	}
}

func dated(q eligibility.Qualification, day int) eligibility.Qualification {
	q.VettingCreatedTime = time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC)
	return q
}

func TestSegmentRule(t *testing.T) {
	t.Parallel()
	const (
		education = eligibility.QualificationEducation
		approved  = eligibility.VettingApproved
		inReview  = eligibility.VettingInReview
		denied    = eligibility.VettingDenied
		other     = eligibility.VettingUnrecognized
		none      = eligibility.VettingUnspecified
	)
	held := func(qs ...eligibility.Qualification) []eligibility.Qualification { return qs }
	for _, row := range []struct {
		name      string
		segment   eligibility.Segment
		held      []eligibility.Qualification
		code      eligibility.ReasonCode
		blocks    bool
		temporary bool
		remedy    eligibility.Remedy
	}{
		{"approved passes", eligibility.SegmentEducation, held(qualification(education, approved)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"in review blocks for now", eligibility.SegmentEducation, held(qualification(education, inReview)), eligibility.ReasonQualificationInReview, true, true, eligibility.RemedyWait},
		{"denied blocks", eligibility.SegmentEducation, held(qualification(education, denied)), eligibility.ReasonQualificationDenied, true, false, eligibility.RemedyUpdateCustomer},
		{"absent blocks", eligibility.SegmentEducation, nil, eligibility.ReasonQualificationMissing, true, false, eligibility.RemedyRequestQualification},
		{"another word blocks for now", eligibility.SegmentEducation, held(qualification(education, other)), eligibility.ReasonQualificationUnrecognized, true, true, eligibility.RemedyContactSupport},
		{"no vetting status blocks for now", eligibility.SegmentEducation, held(qualification(education, none)), eligibility.ReasonQualificationUnrecognized, true, true, eligibility.RemedyContactSupport},
		{"another qualification is none", eligibility.SegmentEducation, held(qualification(eligibility.QualificationGovernmentCommunityCloud, approved)), eligibility.ReasonQualificationMissing, true, false, eligibility.RemedyRequestQualification},
		{"an unknown qualification satisfies nothing", eligibility.SegmentEducation, held(qualification(eligibility.QualificationUnrecognized, approved)), eligibility.ReasonQualificationMissing, true, false, eligibility.RemedyRequestQualification},
		{"a state-owned entity is a marker only", eligibility.SegmentGovernment, held(qualification(eligibility.QualificationStateOwnedEntity, none)), eligibility.ReasonQualificationMissing, true, false, eligibility.RemedyRequestQualification},
		{"government needs GCC", eligibility.SegmentGovernment, held(qualification(eligibility.QualificationGovernmentCommunityCloud, approved)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"nonprofit needs Nonprofit", eligibility.SegmentNonprofit, held(qualification(eligibility.QualificationNonprofit, approved)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"an unknown segment is never satisfied", eligibility.Segment(9), held(qualification(eligibility.QualificationUnrecognized, approved)), eligibility.ReasonQualificationMissing, true, false, eligibility.RemedyRequestQualification},
		{"a later Denied revokes an Approved", eligibility.SegmentEducation, held(dated(qualification(education, denied), 9), dated(qualification(education, approved), 1)), eligibility.ReasonQualificationDenied, true, false, eligibility.RemedyUpdateCustomer},
		{"a Denied between two Approved revokes nothing", eligibility.SegmentEducation, held(dated(qualification(education, approved), 1), dated(qualification(education, denied), 5), dated(qualification(education, approved), 9)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"a Denied of the same date revokes nothing", eligibility.SegmentEducation, held(dated(qualification(education, denied), 5), dated(qualification(education, approved), 5)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"an undated Denied revokes nothing", eligibility.SegmentEducation, held(qualification(education, denied), dated(qualification(education, approved), 1)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"an undated Approved is not revoked", eligibility.SegmentEducation, held(dated(qualification(education, denied), 9), qualification(education, approved)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"one undated Approved of two is not revoked", eligibility.SegmentEducation, held(dated(qualification(education, denied), 9), dated(qualification(education, approved), 1), qualification(education, approved)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"InReview never revokes an Approved", eligibility.SegmentEducation, held(dated(qualification(education, approved), 1), dated(qualification(education, inReview), 9)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"a revocation outlasts a later InReview", eligibility.SegmentEducation, held(dated(qualification(education, approved), 1), dated(qualification(education, denied), 5), dated(qualification(education, inReview), 9)), eligibility.ReasonQualificationDenied, true, false, eligibility.RemedyUpdateCustomer},
		{"a Denied of another qualification revokes nothing", eligibility.SegmentEducation, held(dated(qualification(education, approved), 1), dated(qualification(eligibility.QualificationNonprofit, denied), 9)), eligibility.ReasonQualificationApproved, false, false, eligibility.RemedyNone},
		{"then the newest date", eligibility.SegmentEducation, held(dated(qualification(education, inReview), 1), dated(qualification(education, denied), 9)), eligibility.ReasonQualificationDenied, true, false, eligibility.RemedyUpdateCustomer},
		{"undated is oldest", eligibility.SegmentEducation, held(qualification(education, inReview), dated(qualification(education, denied), 1)), eligibility.ReasonQualificationDenied, true, false, eligibility.RemedyUpdateCustomer},
		{"then InReview over Denied", eligibility.SegmentEducation, held(qualification(education, denied), qualification(education, inReview)), eligibility.ReasonQualificationInReview, true, true, eligibility.RemedyWait},
		{"then Denied over another word", eligibility.SegmentEducation, held(qualification(education, other), qualification(education, denied)), eligibility.ReasonQualificationDenied, true, false, eligibility.RemedyUpdateCustomer},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			answer, err := check(t, evidence.Config{}, status(eligibility.AccountStatusAllowed), holding(row.held...), row.segment)
			if err != nil {
				t.Fatal(err)
			}
			want := []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}, {Code: row.code, Blocks: row.blocks}}
			if diff := cmp.Diff(want, answer.Reasons); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if blocked := answer.Decision == eligibility.DecisionBlocked; blocked != row.blocks {
				t.Errorf("decision %d", answer.Decision)
			}
			if got := answer.Reasons[1]; got.Temporary() != row.temporary || got.Remedy() != row.remedy || got.Message(eligibility.English) == "" {
				t.Errorf("temporary %t, remedy %d, message %q", got.Temporary(), got.Remedy(), got.Message(eligibility.English))
			}
		})
	}
}

func TestEveryRuleAddsItsReasonTheAccountsFirst(t *testing.T) {
	t.Parallel()
	answer, err := check(t, evidence.Config{}, status(eligibility.AccountStatusUnderReview),
		holding(qualification(eligibility.QualificationEducation, eligibility.VettingDenied)), eligibility.SegmentEducation)
	if err != nil {
		t.Fatal(err)
	}
	want := []eligibility.Reason{
		{Code: eligibility.ReasonAccountUnderReview, Blocks: true},
		{Code: eligibility.ReasonQualificationDenied, Blocks: true},
	}
	if diff := cmp.Diff(want, answer.Reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	if !answer.RecheckTime.IsZero() {
		t.Error("a block that waiting does not cure has a recheck time")
	}
}
