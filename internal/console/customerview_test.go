package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	commercial = eligibilityv1.Segment_SEGMENT_COMMERCIAL
	education  = eligibilityv1.Segment_SEGMENT_EDUCATION
	account    = eligibilityv1.Facet_FACET_ACCOUNT
	held       = eligibilityv1.Facet_FACET_QUALIFICATIONS

	testCustomer = "a0000000-0000-4000-8000-000000000002"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func minutes(n int) *timestamp { return timestamppb.New(noon.Add(time.Duration(n) * time.Minute)) }

// reason is a reason of the API with its code and remedy.
func reason(code eligibilityv1.ReasonCode, remedy eligibilityv1.Remedy) *eligibilityv1.Reason {
	return &eligibilityv1.Reason{Code: code, Remedy: remedy, Message: code.String()}
}

// answered is an explanation of a segment that has an answer.
func answered(segment eligibilityv1.Segment, decision eligibilityv1.Decision, reasons ...*eligibilityv1.Reason) *eligibilityv1.SegmentExplanation {
	return &eligibilityv1.SegmentExplanation{Segment: segment, Result: &eligibilityv1.SegmentExplanation_Response{
		Response: &eligibilityv1.CheckEligibilityResponse{CustomerId: testCustomer, Decision: decision, Reasons: reasons},
	}}
}

// open is an explanation of a segment that has no answer.
func open(segment eligibilityv1.Segment, why string) *eligibilityv1.SegmentExplanation {
	return &eligibilityv1.SegmentExplanation{Segment: segment, Result: &eligibilityv1.SegmentExplanation_Error{
		Error: &eligibilityv1.BatchCheckEligibilityError{Reason: why},
	}}
}

func statusFacts(status eligibilityv1.AccountStatus, word string) *eligibilityv1.Facts {
	return &eligibilityv1.Facts{AccountStatus: status, AccountStatusText: word}
}

func pageOf(in customerInput) *customerPage {
	in.id, in.partner, in.now = testCustomer, "contoso-eu", noon
	if in.explained.GetExplainTime() == nil {
		in.explained.ExplainTime = minutes(0)
	}
	return newCustomerPage(&in)
}

func TestBlockedVerdicts(t *testing.T) {
	t.Parallel()
	const (
		wait, update = eligibilityv1.Remedy_REMEDY_WAIT, eligibilityv1.Remedy_REMEDY_UPDATE_CUSTOMER
		request      = eligibilityv1.Remedy_REMEDY_REQUEST_QUALIFICATION
		support      = eligibilityv1.Remedy_REMEDY_CONTACT_SUPPORT
	)
	seen := map[eligibilityv1.ReasonCode]bool{}
	for _, c := range []struct {
		code           eligibilityv1.ReasonCode
		remedy         eligibilityv1.Remedy
		cause, was     string
		who, doesStart string
	}{
		{eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW, wait, "Microsoft is reviewing the account", "Microsoft was reviewing the account", "Microsoft", "Wait"},
		{eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_ALLOWED, support, "Microsoft's review ended against the account", "Microsoft's review had ended against the account", "Partner", "Open a ticket"},
		{eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNKNOWN, wait, "Microsoft reports that the account's status is unknown", "Microsoft reported", "Microsoft", "Wait. If it lasts"},
		{eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_READY, wait, "the account is not ready for Microsoft's review", "the account was not ready", "Microsoft", "Wait. The operator"},
		{eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_STATUS_UNRECOGNIZED, support, "Microsoft reports an account status that this service does not know", "Microsoft reported", "Operator of this service", "Report the word"},
		{eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_IN_REVIEW, wait, "Microsoft is reviewing the qualification", "Microsoft was reviewing", "Microsoft", "Wait"},
		{eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_DENIED, update, "Microsoft has denied the qualification", "Microsoft had denied", "Customer", "The customer corrects its data; then the partner requests"},
		{eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_MISSING, request, "the qualification has not been requested", "the qualification had not", "Partner", "Request the qualification"},
		{eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_UNRECOGNIZED, support, "Microsoft reports a vetting status that this service does not know, or none", "Microsoft reported", "Operator of this service", "Report the word"},
		{eligibilityv1.ReasonCode_REASON_CODE_UNDECIDABLE, wait, "Partner Center cannot be asked", "Partner Center could not", "", "Nobody has to act: check again"},
		{99, support, "for a reason that this page does not know", "for a reason", "Partner", "Open a ticket"},
		{99, eligibilityv1.Remedy_REMEDY_UNSPECIFIED, "for a reason that this page does not know", "for a reason", "Operator of this service", "Report the reason"},
	} {
		seen[c.code] = true
		explained := &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{
			answered(education, eligibilityv1.Decision_DECISION_BLOCKED, reason(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_ALLOWED, eligibilityv1.Remedy_REMEDY_NONE), reason(c.code, c.remedy)),
		}}
		v := pageOf(customerInput{explained: explained}).Verdicts[0]
		if want := "May not buy education licences: " + c.cause + "."; v.Sentence != want || v.State != blocked || v.Badge != "May not buy" {
			t.Errorf("%s: %s, %s, %q, want %q", c.code, v.State, v.Badge, v.Sentence, want)
		}
		if len(v.Actions) != 1 || v.Actions[0].Who != c.who || !strings.HasPrefix(v.Actions[0].Do, c.doesStart) {
			t.Errorf("%s: %+v", c.code, v.Actions)
		}
		v = pageOf(customerInput{explained: explained, past: true}).Verdicts[0]
		if want := "Could not buy education licences: " + c.was; !strings.HasPrefix(v.Sentence, want) || v.Badge != "Could not buy" {
			t.Errorf("%s, past: %q, want %q", c.code, v.Sentence, want)
		}
	}
	for number, name := range eligibilityv1.ReasonCode_name {
		code := eligibilityv1.ReasonCode(number)
		if strings.HasSuffix(name, "_ALLOWED") && !strings.Contains(name, "NOT") || number == 0 || strings.HasSuffix(name, "_NO_STATUS") || strings.HasSuffix(name, "_APPROVED") || strings.HasSuffix(name, "_EXEMPT") {
			continue // it allows
		}
		if !seen[code] || because[code][0] == "" {
			t.Errorf("%s has no sentence", name)
		}
	}
}

func TestOtherVerdicts(t *testing.T) {
	t.Parallel()
	e := &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{
		answered(commercial, eligibilityv1.Decision_DECISION_ALLOWED, reason(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_ALLOWED, eligibilityv1.Remedy_REMEDY_NONE)),
	}}
	if v := pageOf(customerInput{explained: e}).Verdicts[0]; v.Sentence != "May buy commercial licences." || v.State != allowed || v.Actions[0] != (action{"", "Nobody has to act."}) || v.Renewals != "" {
		t.Errorf("%+v", v)
	}
	if v := pageOf(customerInput{explained: e, past: true}).Verdicts[0]; v.Sentence != "Could buy commercial licences." || v.Badge != "Could buy" {
		t.Errorf("%+v", v)
	}
	e.GetSegments()[0].GetResponse().Stale = true
	if v := pageOf(customerInput{explained: e}).Verdicts[0]; v.Sentence != "May buy commercial licences, by old evidence: the next check asks Microsoft first." || v.State != undecided || v.Badge != "May buy (old evidence)" {
		t.Errorf("%+v", v)
	}
	if v := pageOf(customerInput{explained: e, past: true}).Verdicts[0]; v.State != undecided || v.Badge != "Could buy (old evidence)" {
		t.Errorf("%+v", v)
	}
	if got := commercialBadge(e, false); got != "may buy commercial (old evidence)" {
		t.Errorf("%q", got)
	}
	e.GetSegments()[0].GetResponse().Decision = eligibilityv1.Decision_DECISION_BLOCKED
	if v := pageOf(customerInput{explained: e}).Verdicts[0]; v.State != blocked || v.Badge != "May not buy" {
		t.Errorf("%+v", v)
	}
	for past, want := range map[bool]string{false: "may not buy commercial", true: "could not buy commercial"} {
		if got := commercialBadge(e, past); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for why, want := range map[string]struct{ cause, who, do string }{
		"NOT_KNOWN":                       {"nobody has asked Microsoft about the qualifications", "You", "Ask Microsoft now"},
		"CUSTOMER_NOT_FOUND":              {"Partner Center has no such customer", "You", "Compare the id"},
		"CUSTOMER_NOT_SERVED":             {"the customer has no relationship with this partner", "Partner", "Send the customer a reseller invitation"},
		"PARTNER_CENTER_UNAVAILABLE":      {"Partner Center or Microsoft's login host fails", "Microsoft", "Look at Microsoft's service health"},
		"PARTNER_CENTER_THROTTLED":        {"the limit on calls", "", "Nobody has to act"},
		"PARTNER_CENTER_CREDENTIALS":      {"Microsoft refuses the credentials of this service", "Operator of this service", "Report it at once"},
		"PARTNER_CENTER_INVALID_RESPONSE": {"Partner Center's answer cannot be read", "Operator of this service", "Report it at once"},
		"SOMETHING_NEW":                   {"a fault of this service (SOMETHING_NEW)", "Operator of this service", "Report it at once"},
	} {
		segment := open(education, why)
		segment.Rules = []*eligibilityv1.AppliedRule{{Facet: held, Rule: eligibilityv1.Rule_RULE_NO_EVIDENCE}}
		v := pageOf(customerInput{mayAsk: true, explained: &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{segment}}}).Verdicts[0]
		if !strings.HasPrefix(v.Sentence, "Not known for education licences: "+want.cause) || v.State != undecided || v.Actions[0].Who != want.who || !strings.HasPrefix(v.Actions[0].Do, want.do) {
			t.Errorf("%s: %q, %+v", why, v.Sentence, v.Actions)
		}
	}
	// Nobody is sent to a button that is not there.
	v := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{open(commercial, "NOT_KNOWN")}}}).Verdicts[0]
	if strings.Contains(fmt.Sprint(v.Actions), "Ask Microsoft now") {
		t.Errorf("%+v", v.Actions)
	}
}

// Evidence that is too old, that nobody asked for and that cannot be read have sentences of
// their own.
func TestWhyNothingIsKnown(t *testing.T) {
	t.Parallel()
	segment := open(commercial, "NOT_KNOWN")
	segment.Rules = []*eligibilityv1.AppliedRule{{Facet: account, Rule: eligibilityv1.Rule_RULE_NO_EVIDENCE}}
	explained := &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{segment}}
	for _, c := range []struct {
		evidence []*eligibilityv1.HeldEvidence
		unread   []eligibilityv1.ExplanationPart
		past     bool
		want     string
	}{
		{nil, nil, false, "nobody has asked Microsoft about the account, or the answer is no longer kept"},
		{nil, nil, true, "nobody had asked Microsoft about the account, or it is no longer kept"},
		{nil, []eligibilityv1.ExplanationPart{1}, false, "this replica has nothing about the account, and the shared cache cannot be read"},
		{[]*eligibilityv1.HeldEvidence{{Facet: account, EvidenceTime: minutes(-60), ExpireTime: minutes(-50), UsableUntilTime: minutes(-1)}}, nil, false, "what Microsoft last returned about the account is too old to be used"},
		{[]*eligibilityv1.HeldEvidence{{Facet: account, EvidenceTime: minutes(-60), ExpireTime: minutes(-50), UsableUntilTime: minutes(-1)}}, nil, true, "what Microsoft had returned about the account was too old to be used"},
	} {
		explained.Evidence, explained.Unread = c.evidence, c.unread
		page := pageOf(customerInput{explained: explained, past: c.past})
		if want := "Not known for commercial licences: " + c.want + "."; page.Verdicts[0].Sentence != want {
			t.Errorf("%q, want %q", page.Verdicts[0].Sentence, want)
		}
		if page.Nothing != (c.evidence == nil && c.unread == nil) {
			t.Errorf("%s: nothing is known: %v", c.want, page.Nothing)
		}
	}
}

func TestRenewalsAreShownForWhatIsBlocked(t *testing.T) {
	t.Parallel()
	review := reason(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW, eligibilityv1.Remedy_REMEDY_WAIT)
	denied := reason(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_NOT_ALLOWED, eligibilityv1.Remedy_REMEDY_CONTACT_SUPPORT)
	const mayNot, may = eligibilityv1.Decision_DECISION_BLOCKED, eligibilityv1.Decision_DECISION_ALLOWED
	for _, c := range []struct {
		reason  *eligibilityv1.Reason
		renewal *eligibilityv1.SegmentExplanation
		want    string
	}{
		{review, answered(commercial, may), "Allowed: they sell nothing more."},
		{review, answered(commercial, mayNot, review), "Blocked too, by the operator's policy"},
		{denied, answered(commercial, mayNot, denied), "Blocked too."},
		{review, open(commercial, "NOT_KNOWN"), "Not known."},
		{review, nil, "Not known."},
	} {
		in := customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{answered(commercial, mayNot, c.reason)}}}
		if c.renewal != nil {
			in.renewal = &eligibilityv1.ExplainEligibilityResponse{Segments: []*eligibilityv1.SegmentExplanation{answered(education, may), c.renewal}}
		}
		if v := pageOf(in).Verdicts[0]; !strings.HasPrefix(v.Renewals, c.want) {
			t.Errorf("%q, want %q", v.Renewals, c.want)
		}
	}
}

// A verdict shows since when it is so: from the change on that made it so, however often
// the facts were confirmed or other ones changed since.
func TestVerdictsShowSinceWhen(t *testing.T) {
	t.Parallel()
	list := func(words ...string) *eligibilityv1.Facts {
		f := new(eligibilityv1.Facts)
		for _, word := range words {
			q := &eligibilityv1.Qualification{Type: eligibilityv1.QualificationType_QUALIFICATION_TYPE_EDUCATION, VettingStatus: eligibilityv1.VettingStatus_VETTING_STATUS_DENIED}
			if word == "owned" {
				q = &eligibilityv1.Qualification{Type: eligibilityv1.QualificationType_QUALIFICATION_TYPE_STATE_OWNED_ENTITY}
			}
			f.Qualifications = append(f.Qualifications, q)
		}
		return f
	}
	review := statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW, "UnderReview")
	fine := statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, "Allowed")
	blockedBy := func(code eligibilityv1.ReasonCode, segment eligibilityv1.Segment) []*eligibilityv1.SegmentExplanation {
		return []*eligibilityv1.SegmentExplanation{answered(segment, eligibilityv1.Decision_DECISION_BLOCKED, reason(code, eligibilityv1.Remedy_REMEDY_WAIT))}
	}
	underReview := blockedBy(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW, commercial)
	entry := func(facet eligibilityv1.Facet, before, after *eligibilityv1.Facts, at int) *eligibilityv1.HistoryEntry {
		return &eligibilityv1.HistoryEntry{Facet: facet, Before: before, After: after, EvidenceTime: minutes(at), ConfirmedTime: minutes(-1)}
	}
	for name, c := range map[string]struct {
		segments []*eligibilityv1.SegmentExplanation
		newest   *eligibilityv1.HeldEvidence
		history  []*eligibilityv1.HistoryEntry
		want     int // minutes; 0: none
		first    bool
	}{
		"changed":          {underReview, &eligibilityv1.HeldEvidence{Facet: account, Facts: review}, []*eligibilityv1.HistoryEntry{entry(account, fine, review, -30), entry(account, nil, fine, -60)}, -30, false},
		"first seen":       {underReview, &eligibilityv1.HeldEvidence{Facet: account, Facts: review}, []*eligibilityv1.HistoryEntry{entry(account, nil, review, -30)}, -30, true},
		"seen again":       {underReview, &eligibilityv1.HeldEvidence{Facet: account, Facts: review}, []*eligibilityv1.HistoryEntry{entry(account, nil, review, -30), entry(account, fine, review, -60), entry(account, nil, fine, -90)}, -60, false},
		"no history":       {underReview, &eligibilityv1.HeldEvidence{Facet: account, Facts: review}, nil, 0, false},
		"of another facet": {underReview, &eligibilityv1.HeldEvidence{Facet: account, Facts: review}, []*eligibilityv1.HistoryEntry{entry(held, nil, list("denied"), -30)}, 0, false},
		"another since":    {underReview, &eligibilityv1.HeldEvidence{Facet: account, Facts: review}, []*eligibilityv1.HistoryEntry{entry(account, review, fine, -30), entry(account, nil, review, -60)}, 0, false},
		"another qualification came": {
			blockedBy(eligibilityv1.ReasonCode_REASON_CODE_QUALIFICATION_DENIED, education), &eligibilityv1.HeldEvidence{Facet: held, Facts: list("denied", "owned")},
			[]*eligibilityv1.HistoryEntry{entry(held, list("denied"), list("denied", "owned"), -30), entry(held, list(), list("denied"), -60)},
			-60, false,
		},
	} {
		v := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{
			Segments: c.segments, Evidence: []*eligibilityv1.HeldEvidence{c.newest}, History: c.history,
		}}).Verdicts[0]
		want := ""
		if c.want != 0 {
			want = momentOf(minutes(c.want), noon).ISO
		}
		got := ""
		if v.Since != nil {
			got = v.Since.ISO
		}
		if got != want || v.First != c.first {
			t.Errorf("%s: since %q, first %v; want %q, %v", name, got, v.First, want, c.first)
		}
	}
}

// In the past, what was found out later does not count.
func TestVerdictsOfThePastShowSinceWhen(t *testing.T) {
	t.Parallel()
	review := statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW, "UnderReview")
	fine := statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, "Allowed")
	v := pageOf(customerInput{past: true, explained: &eligibilityv1.ExplainEligibilityResponse{
		ExplainTime: minutes(-40),
		Segments:    []*eligibilityv1.SegmentExplanation{answered(commercial, eligibilityv1.Decision_DECISION_BLOCKED, reason(eligibilityv1.ReasonCode_REASON_CODE_ACCOUNT_UNDER_REVIEW, eligibilityv1.Remedy_REMEDY_WAIT))},
		Evidence:    []*eligibilityv1.HeldEvidence{{Facet: account, Facts: review, EvidenceTime: minutes(-50)}},
		History: []*eligibilityv1.HistoryEntry{
			{Facet: account, Before: review, After: fine, EvidenceTime: minutes(-30)}, {Facet: account, Before: fine, After: review, EvidenceTime: minutes(-50)},
		},
	}}).Verdicts[0]
	if v.Since == nil || v.Since.ISO != "2026-11-28T11:10:00.000Z" || v.NextCheck != nil || v.Fresh != nil {
		t.Errorf("%+v", v)
	}
}

// Evidence that one tier has confirmed before it is used is not shown as doubtful if
// another tier vouches for it.
func TestEvidenceOfSeveralTiersHasOneBar(t *testing.T) {
	t.Parallel()
	local := &eligibilityv1.HeldEvidence{Facet: account, Tier: 1, EvidenceTime: minutes(-1), ExpireTime: minutes(9), UsableUntilTime: minutes(60), MustRevalidate: true}
	shared := &eligibilityv1.HeldEvidence{Facet: account, Tier: 2, EvidenceTime: minutes(-1), ExpireTime: minutes(9), UsableUntilTime: minutes(60)}
	page := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{local, shared}}})
	if len(page.Ages) != 1 || page.Ages[0].State != "fresh" || page.Ages[0].Tiers != "this replica (which has it confirmed before it is used) and the shared cache" || page.Returned[0].State != "fresh" {
		t.Errorf("%+v, %+v", page.Ages, page.Returned[0])
	}
	page = pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{local}}})
	if page.Ages[0].State != "fresh, to be confirmed" || page.Returned[0].State != "fresh, to be confirmed" {
		t.Errorf("%+v, %+v", page.Ages, page.Returned[0])
	}
}

func TestBarsShowHowOldEvidenceIs(t *testing.T) {
	t.Parallel()
	for now, want := range map[int]struct {
		parts [3]int
		state string
	}{
		-1: {[3]int{0, 0, 0}, "fresh"}, 0: {[3]int{0, 0, 0}, "fresh"}, 5: {[3]int{50, 0, 0}, "fresh"}, 10: {[3]int{100, 0, 0}, "usable, no longer fresh"},
		35: {[3]int{100, 50, 0}, "usable, no longer fresh"}, 60: {[3]int{100, 100, 0}, "expired"}, 90: {[3]int{100, 100, 50}, "expired"}, 6000: {[3]int{100, 100, 100}, "expired"},
	} {
		one := &eligibilityv1.HeldEvidence{Facet: account, Tier: 1, EvidenceTime: minutes(-now), ExpireTime: minutes(10 - now), UsableUntilTime: minutes(60 - now)}
		shared := &eligibilityv1.HeldEvidence{Facet: account, Tier: 2, EvidenceTime: minutes(-now), ExpireTime: minutes(10 - now), UsableUntilTime: minutes(60 - now)}
		other := &eligibilityv1.HeldEvidence{Facet: held, Tier: 2, EvidenceTime: minutes(-now), ExpireTime: minutes(-now), UsableUntilTime: minutes(-now)}
		ages := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{one, shared, other}}}).Ages
		if len(ages) != 2 || ages[0].Tiers != "this replica and the shared cache" || ages[1].Tiers != "the shared cache" {
			t.Fatalf("%+v", ages)
		}
		a := ages[0]
		if got := [3]int{a.FreshPart, a.UsablePart, a.ExpiredPart}; got != want.parts || a.State != want.state || a.Now < 0 || a.Now > 298 {
			t.Errorf("after %d min: %v, %s, %d; want %+v", now, got, a.State, a.Now, want)
		}
		if n := map[bool]int{true: 1}; n[a.IsFresh]+n[a.IsUsable]+n[a.IsOver] != 1 {
			t.Errorf("after %d min: %+v", now, a)
		}
	}
}

func TestTheHistoryIsNewestFirst(t *testing.T) {
	t.Parallel()
	fine, review := statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, "Allowed"), statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW, "UnderReview")
	page := pageOf(customerInput{past: true, explained: &eligibilityv1.ExplainEligibilityResponse{
		ExplainTime: minutes(-35),
		History: []*eligibilityv1.HistoryEntry{
			{Facet: account, Before: review, After: fine, EvidenceTime: minutes(-10), ConfirmedTime: minutes(-1)},
			{Facet: account, After: review, EvidenceTime: minutes(-40), ConfirmedTime: minutes(-11)},
			{Facet: held, After: new(eligibilityv1.Facts), EvidenceTime: minutes(-30), ConfirmedTime: minutes(-1)},
			{Facet: held, After: &eligibilityv1.Facts{Absence: 1}, EvidenceTime: minutes(-50), ConfirmedTime: minutes(-1)},
		},
	}})
	var got []string
	for _, c := range page.History {
		before := "-"
		if c.Before != nil {
			before = c.Before.Word.Short
		}
		after := c.After.Plain
		if c.After.Word != nil {
			after = c.After.Word.Short
		}
		got = append(got, fmt.Sprint(c.Facet, " ", before, " ", after, " ", c.Class, " ", c.Current))
	}
	want := []string{
		"Account UnderReview Allowed allowed false",
		"Qualifications - no qualification  false",
		"Account - UnderReview blocked true",
		"Qualifications - no such customer  true",
	}
	for i := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%d: %q, want %q", i, got, want[i])
		}
	}
	if want := "/console/customers/" + testCustomer + "?at=2026-11-28T11%3A50%3A00.000Z&partner=contoso-eu"; page.History[0].Path != want {
		t.Errorf("%q, want %q", page.History[0].Path, want)
	}
}

func TestTheBlockForMicrosoftSupport(t *testing.T) {
	t.Parallel()
	if block := pageOf(customerInput{explained: new(eligibilityv1.ExplainEligibilityResponse)}).Block; block != "" {
		t.Errorf("of nothing: %q", block)
	}
	evidence := []*eligibilityv1.HeldEvidence{
		{Facet: account, Facts: statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW, "Under\u202eReview\nMS-RequestId: 1"), EvidenceTime: minutes(-2), CorrelationId: "c-1", RequestId: "r-1"},
		{Facet: account, Facts: statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, "Allowed"), EvidenceTime: minutes(-3), CorrelationId: "c-0"},
		{Facet: held, EvidenceTime: minutes(-1), CorrelationId: "c-2", Facts: &eligibilityv1.Facts{Qualifications: []*eligibilityv1.Qualification{
			{TypeText: "Education", VettingStatusText: "Denied", VettingReason: "Not an Education Customer", VettingCreatedTime: minutes(-100)}, {TypeText: "StateOwnedEntity"},
		}}},
	}
	const want = `Customer tenant id: a0000000-0000-4000-8000-000000000002

Request: GET /v1/customers/a0000000-0000-4000-8000-000000000002/validationStatus?type=account
Account status: Under\u202eReview\nMS-RequestId: 1
Time (UTC): 2026-11-28T11:58:00.000Z
MS-CorrelationId: c-1
MS-RequestId: r-1

Request: GET /v1/customers/a0000000-0000-4000-8000-000000000002/qualifications
Qualification: Education, Denied, reason: Not an Education Customer, created 2026-11-28T10:20:00.000Z
Qualification: StateOwnedEntity, no vetting status
Time (UTC): 2026-11-28T11:59:00.000Z
MS-CorrelationId: c-2
MS-RequestId: not kept
`
	if got := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: evidence}}).Block; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for facts, want := range map[*eligibilityv1.Facts]string{
		{Absence: 1}: "Returned: HTTP 404, code 60003", {Absence: 2}: "Returned: HTTP 403, code 20002", {AccountStatus: 1}: "Returned: HTTP 404, code 600074",
	} {
		got := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{{Facet: account, Facts: facts}}}}).Block
		if !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	long := &eligibilityv1.Facts{}
	for range 100 {
		long.Qualifications = append(long.Qualifications, &eligibilityv1.Qualification{TypeText: strings.Repeat("x", 10_000), VettingStatusText: strings.Repeat("\u202e", 10_000)})
	}
	if got := pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{{Facet: held, Facts: long}}}}).Block; len(got) > 40_000 || !strings.Contains(got, "and 90 more") {
		t.Errorf("%d bytes", len(got))
	}
}
