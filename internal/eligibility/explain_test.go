package eligibility_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// drawHeld draws what is held about one facet.
func drawHeld(t *rapid.T, facet eligibility.Facet, now time.Time) eligibility.Held {
	held := eligibility.Held{
		Tier:  eligibility.Tier(rapid.IntRange(0, 3).Draw(t, "tier")), //nolint:gosec // below 4
		Fresh: rapid.Bool().Draw(t, "fresh"), Fetched: rapid.Bool().Draw(t, "fetched"),
	}
	if rapid.Bool().Draw(t, "failed") {
		held.Err = &eligibility.Error{
			Kind:       rapid.SampledFrom(eligibility.Kinds()).Draw(t, "kind"),
			RetryAfter: time.Duration(rapid.IntRange(0, 9).Draw(t, "retry")) * time.Second,
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "nothing") == 0 {
		return held
	}
	evidence := &eligibility.Evidence{
		Facet: facet, FetchTime: now.Add(-time.Duration(rapid.IntRange(0, 3600).Draw(t, "age")) * time.Second),
		Absence: eligibility.Absence(max(rapid.IntRange(-6, 2).Draw(t, "absence"), 0)), //nolint:gosec // below 3
	}
	switch {
	case evidence.Absence != eligibility.AbsenceNone:
	case facet == eligibility.FacetAccount:
		evidence.StatusText = rapid.SampledFrom([]string{"", "Allowed", "UnderReview", "under review", "NotAllowed", "Unknown", "Not Ready", "Vetted", "\x1b\u202e"}).Draw(t, "word")
		if evidence.Status = eligibility.AccountStatusNone; evidence.StatusText != "" {
			evidence.Status = eligibility.ParseAccountStatus(evidence.StatusText)
		}
	default:
		for range rapid.IntRange(0, 4).Draw(t, "n") {
			q, isHeld := eligibility.ParseQualification(
				rapid.SampledFrom([]string{"None", "Education", "GovernmentCommunityCloud", "Nonprofit", "StateOwnedEntity", "Other"}).Draw(t, "type"),
				rapid.SampledFrom([]string{"", "Approved", "InReview", "Denied", "Other"}).Draw(t, "vetting"), "",
				now.AddDate(0, 0, -rapid.IntRange(0, 3).Draw(t, "days")))
			if isHeld {
				evidence.Qualifications = append(evidence.Qualifications, q)
			}
		}
	}
	held.Evidence = evidence
	held.Lifetime.FreshUntil = now.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "freshLeft")) * time.Minute)
	held.Lifetime.UsableUntil = now.Add(time.Duration(rapid.IntRange(-1, 3).Draw(t, "usableLeft")) * time.Minute)
	return held
}

// For all evidence, the answer explained is that of Decide, and the rules are those
// behind it: each reason is the result of one rule, and the outcomes make the decision.
func TestAnExplanationAgreesWithTheAnswer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := base.Add(time.Hour)
		policy := eligibility.Policy{
			NotReadyAllowed: rapid.Bool().Draw(t, "notReady"), AllowReducing: rapid.Bool().Draw(t, "reducing"), BlockUndecidable: rapid.Bool().Draw(t, "undecidable"),
		}
		segment := eligibility.Segment(rapid.IntRange(0, 4).Draw(t, "segment"))       //nolint:gosec // below 5
		operation := eligibility.Operation(rapid.IntRange(0, 6).Draw(t, "operation")) //nolint:gosec // below 7
		account := drawHeld(t, eligibility.FacetAccount, now)
		qualifications := drawHeld(t, eligibility.FacetQualifications, now)

		answer, rules, err := eligibility.Explain(policy, segment, operation, account, qualifications, now)
		decided, decideErr := eligibility.Decide(policy, segment, operation, account, qualifications, now)
		if diff := cmp.Diff(decided, answer, cmpopts.EquateErrors(), cmp.Comparer(func(a, b *eligibility.Evidence) bool { return a == b })); diff != "" && decided.Cause == nil {
			t.Fatalf("(-decided +explained):\n%s", diff)
		}
		if answer.Decision != decided.Decision || !slices.Equal(answer.Reasons, decided.Reasons) || kindOf(err) != kindOf(decideErr) || (err == nil) != (decideErr == nil) {
			t.Fatalf("%+v, %v, explained as %+v, %v", decided, decideErr, answer, err)
		}

		blocks, undecided := false, false
		var given []eligibility.ReasonCode
		seen := make(map[eligibility.Facet]bool)
		for _, rule := range rules {
			if rule.Rule == eligibility.RuleNone || rule.Outcome == eligibility.OutcomeNone {
				t.Fatalf("%+v", rule)
			}
			seen[rule.Facet] = true
			blocks = blocks || rule.Outcome == eligibility.OutcomeBlocks
			undecided = undecided || rule.Outcome == eligibility.OutcomeUndecided
			if rule.Reason != eligibility.ReasonNone {
				given = append(given, rule.Reason)
				if i := slices.IndexFunc(answer.Reasons, func(r eligibility.Reason) bool { return r.Code == rule.Reason }); err == nil && answer.Reasons[i].Blocks != (rule.Outcome == eligibility.OutcomeBlocks) {
					t.Fatalf("%+v has another outcome than %+v", rule, answer.Reasons[i])
				}
			}
		}
		if !seen[eligibility.FacetAccount] {
			t.Fatalf("no rule about the account: %+v", rules)
		}
		want := eligibility.DecisionAllowed
		switch {
		case blocks:
			want = eligibility.DecisionBlocked
		case undecided:
			want = eligibility.DecisionNone
		}
		if want != answer.Decision {
			t.Fatalf("the rules %+v make %v, the answer is %v", rules, want, answer.Decision)
		}
		var reasons []eligibility.ReasonCode
		for _, reason := range answer.Reasons {
			reasons = append(reasons, reason.Code)
		}
		slices.Sort(reasons)
		if err == nil && !slices.Equal(reasons, slices.Sorted(slices.Values(given))) {
			t.Fatalf("the rules gave %v, the answer has %v", given, reasons)
		}
	})
}

func kindOf(err error) eligibility.Kind {
	if known, ok := errors.AsType[*eligibility.Error](err); ok {
		return known.Kind
	}
	return eligibility.KindInternal
}

// Each kind of rule, with the word that it looked at.
func TestExplainNamesTheRule(t *testing.T) {
	t.Parallel()
	now := base.Add(time.Hour)
	held := func(evidence eligibility.Evidence) eligibility.Held {
		evidence.FetchTime = base
		return eligibility.Held{Evidence: &evidence, Tier: eligibility.TierLocal, Fresh: true, Lifetime: eligibility.Lifetime{FreshUntil: now.Add(time.Minute), UsableUntil: now.Add(time.Hour)}}
	}
	account := func(word string) eligibility.Held {
		return held(eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word})
	}
	education := func(vetting string) eligibility.Held {
		q, _ := eligibility.ParseQualification("Education", vetting, "", time.Time{})
		return held(eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{q}})
	}
	throttled := eligibility.Held{Err: &eligibility.Error{Kind: eligibility.KindThrottled}}
	notNeeded := eligibility.Applied{Facet: eligibility.FacetQualifications, Rule: eligibility.RuleNoQualificationNeeded, Outcome: eligibility.OutcomeNotNeeded}
	for name, row := range map[string]struct {
		policy                  eligibility.Policy
		segment                 eligibility.Segment
		operation               eligibility.Operation
		account, qualifications eligibility.Held
		want                    []eligibility.Applied
	}{
		"status": {
			account: account("under review"),
			want:    []eligibility.Applied{{0, "under review", eligibility.RuleAccountStatus, eligibility.OutcomeBlocks, eligibility.ReasonAccountUnderReview}, notNeeded},
		},
		"not ready, allowed": {
			policy: eligibility.Policy{NotReadyAllowed: true}, account: account("Not Ready"),
			want: []eligibility.Applied{{0, "Not Ready", eligibility.RuleNotReady, eligibility.OutcomeAllows, eligibility.ReasonAccountNotReady}, notNeeded},
		},
		"exempt": {
			policy: eligibility.Policy{AllowReducing: true}, segment: eligibility.SegmentEducation, operation: eligibility.OperationRenewal, account: account("UnderReview"),
			want: []eligibility.Applied{
				{0, "UnderReview", eligibility.RuleReducingOperation, eligibility.OutcomeAllows, eligibility.ReasonAccountReviewExempt},
				{Facet: eligibility.FacetQualifications, Rule: eligibility.RuleReducingOperation, Outcome: eligibility.OutcomeNotNeeded},
			},
		},
		"qualification": {
			segment: eligibility.SegmentEducation, account: account("Allowed"), qualifications: education("denied"),
			want: []eligibility.Applied{
				{0, "Allowed", eligibility.RuleAccountStatus, eligibility.OutcomeAllows, eligibility.ReasonAccountAllowed},
				{eligibility.FacetQualifications, "denied", eligibility.RuleQualification, eligibility.OutcomeBlocks, eligibility.ReasonQualificationDenied},
			},
		},
		"no evidence about the qualifications": {
			segment: eligibility.SegmentEducation, account: account("NotAllowed"),
			want: []eligibility.Applied{
				{0, "NotAllowed", eligibility.RuleAccountStatus, eligibility.OutcomeBlocks, eligibility.ReasonAccountNotAllowed},
				{Facet: eligibility.FacetQualifications, Rule: eligibility.RuleNoEvidence, Outcome: eligibility.OutcomeUndecided},
			},
		},
		"absent": {
			segment: eligibility.SegmentEducation, account: held(eligibility.Evidence{Absence: eligibility.AbsenceNotServed}),
			want: []eligibility.Applied{{Rule: eligibility.RuleAbsent, Outcome: eligibility.OutcomeUndecided}},
		},
		"qualifications absent": {
			segment: eligibility.SegmentEducation, account: account("Allowed"), qualifications: held(eligibility.Evidence{Facet: eligibility.FacetQualifications, Absence: eligibility.AbsenceNotFound}),
			want: []eligibility.Applied{
				{0, "Allowed", eligibility.RuleAccountStatus, eligibility.OutcomeAllows, eligibility.ReasonAccountAllowed},
				{Facet: eligibility.FacetQualifications, Rule: eligibility.RuleAbsent, Outcome: eligibility.OutcomeUndecided},
			},
		},
		"undecidable": {
			policy: eligibility.Policy{BlockUndecidable: true}, account: throttled,
			want: []eligibility.Applied{
				{Rule: eligibility.RuleNoEvidence, Outcome: eligibility.OutcomeUndecided},
				notNeeded,
				{Rule: eligibility.RuleUndecidable, Outcome: eligibility.OutcomeBlocks, Reason: eligibility.ReasonUndecidable},
			},
		},
	} {
		_, got, _ := eligibility.Explain(row.policy, row.segment, row.operation, row.account, row.qualifications, now)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
