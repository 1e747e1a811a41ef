package eligibility_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func account(word string) *eligibility.Evidence {
	return &eligibility.Evidence{StatusText: word, Status: eligibility.ParseAccountStatus(word)}
}

func qualified(items ...eligibility.Qualification) *eligibility.Evidence {
	return &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: items}
}

func vetted(kind, vetting, reason string, created time.Time) eligibility.Qualification {
	q, _ := eligibility.ParseQualification(kind, vetting, reason, created)
	return q
}

func TestSameFacts(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	education := vetted("Education", "InReview", "", date)
	marker := vetted("StateOwnedEntity", "", "", time.Time{})
	none := &eligibility.Evidence{Status: eligibility.AccountStatusNone}
	tests := map[string]struct {
		a, b *eligibility.Evidence
		want bool
	}{
		"the same word":            {account("UnderReview"), account("UnderReview"), true},
		"another spelling":         {account("UnderReview"), account("under_review"), true},
		"another word":             {account("UnderReview"), account("Allowed"), false},
		"unrecognised words":       {account("Frozen"), account("Thawed"), false},
		"no status":                {none, account("Allowed"), false},
		"absent":                   {&eligibility.Evidence{Absence: eligibility.AbsenceNotFound}, &eligibility.Evidence{Absence: eligibility.AbsenceNotServed}, false},
		"another facet":            {&eligibility.Evidence{Absence: eligibility.AbsenceNotFound}, &eligibility.Evidence{Facet: eligibility.FacetQualifications, Absence: eligibility.AbsenceNotFound}, false},
		"none held":                {qualified(), &eligibility.Evidence{Facet: eligibility.FacetQualifications}, true},
		"another order, repeated":  {qualified(education, marker), qualified(marker, education, marker), true},
		"one more":                 {qualified(education), qualified(education, marker), false},
		"another vetting":          {qualified(education), qualified(vetted("education", "Approved", "", date)), false},
		"another spelling of both": {qualified(education), qualified(vetted("education", "In Review", "", date)), true},
		"another reason":           {qualified(education), qualified(vetted("Education", "InReview", "more documents", date)), false},
		"another date":             {qualified(education), qualified(vetted("Education", "InReview", "", date.Add(time.Hour))), false},
		"another zone":             {qualified(education), qualified(vetted("Education", "InReview", "", date.In(time.FixedZone("", 3600)))), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.b.FetchTime, test.b.CorrelationID = date, "another"
			if got := test.a.SameFacts(test.b); got != test.want {
				t.Errorf("same facts: %v, want %v", got, test.want)
			}
			if got := test.b.SameFacts(test.a); got != test.want {
				t.Errorf("the other way round: %v, want %v", got, test.want)
			}
			if got := test.a.FactsSum() == test.b.FactsSum(); got != test.want {
				t.Errorf("the same sum: %v, want %v", got, test.want)
			}
		})
	}
}

func TestUnderReview(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		policy   eligibility.Policy
		evidence *eligibility.Evidence
		want     bool
	}{
		"under review":                {evidence: account("UnderReview"), want: true},
		"under review, renewals pass": {policy: eligibility.Policy{AllowReducing: true}, evidence: account("UnderReview"), want: true},
		"unknown":                     {evidence: account("Unknown"), want: true},
		"not ready":                   {evidence: account("Not Ready"), want: true},
		"not ready passes":            {policy: eligibility.Policy{NotReadyAllowed: true}, evidence: account("Not Ready")},
		"unrecognised":                {evidence: account("Frozen"), want: true},
		"allowed":                     {evidence: account("Allowed")},
		"not allowed":                 {evidence: account("NotAllowed")},
		"no status":                   {evidence: &eligibility.Evidence{Status: eligibility.AccountStatusNone}},
		"absent":                      {evidence: &eligibility.Evidence{Absence: eligibility.AbsenceNotFound}},
		"vetted now":                  {evidence: qualified(vetted("Nonprofit", "InReview", "", time.Time{})), want: true},
		"an unrecognised vetting":     {evidence: qualified(vetted("Education", "Lost", "", time.Time{})), want: true},
		"approved":                    {evidence: qualified(vetted("Education", "Approved", "", time.Time{}))},
		"denied":                      {evidence: qualified(vetted("Education", "Denied", "", time.Time{}))},
		"a marker":                    {evidence: qualified(vetted("StateOwnedEntity", "", "", time.Time{}))},
		"none held":                   {evidence: qualified()},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.policy.UnderReview(test.evidence); got != test.want {
				t.Errorf("under review: %v, want %v", got, test.want)
			}
		})
	}
}

func TestDiffers(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	gone := &eligibility.Evidence{Absence: eligibility.AbsenceNotFound}
	foreign := &eligibility.Evidence{Absence: eligibility.AbsenceNotServed}
	inReview, approved := vetted("Education", "InReview", "", date), vetted("Education", "Approved", "", date)
	denied, other := vetted("Education", "Denied", "no proof", date), vetted("Nonprofit", "Approved", "", date)
	commercial, education := eligibility.SegmentCommercial, eligibility.SegmentEducation
	tests := map[string]struct {
		policy        eligibility.Policy
		segment       eligibility.Segment
		before, after *eligibility.Evidence
		want          bool
	}{
		"a review ends":                        {segment: commercial, before: account("UnderReview"), after: account("Allowed"), want: true},
		"one block follows another":            {segment: commercial, before: account("UnderReview"), after: account("NotAllowed"), want: true},
		"one permission follows another":       {segment: commercial, before: &eligibility.Evidence{Status: eligibility.AccountStatusNone}, after: account("Allowed"), want: true},
		"another word that nobody knows":       {segment: commercial, before: account("Frozen"), after: account("Thawed")},
		"not ready passes":                     {policy: eligibility.Policy{NotReadyAllowed: true}, segment: commercial, before: account("NotReady"), after: account("Allowed"), want: true},
		"first seen":                           {segment: commercial, after: account("Allowed"), want: true},
		"gone":                                 {segment: commercial, before: account("Allowed"), after: gone, want: true},
		"back":                                 {segment: commercial, before: gone, after: account("Allowed"), want: true},
		"gone in another way":                  {segment: commercial, before: gone, after: foreign, want: true},
		"still gone":                           {segment: commercial, before: gone, after: gone},
		"the account, another segment":         {segment: education, before: account("UnderReview"), after: account("Allowed"), want: true},
		"qualifications do not matter":         {segment: commercial, before: qualified(inReview), after: qualified(approved)},
		"first seen, and do not matter":        {segment: commercial, after: qualified(approved)},
		"qualifications first seen":            {segment: education, after: qualified(), want: true},
		"vetting ends":                         {segment: education, before: qualified(inReview), after: qualified(approved), want: true},
		"requested":                            {segment: education, before: qualified(), after: qualified(inReview), want: true},
		"that of another segment":              {segment: education, before: qualified(inReview), after: qualified(inReview, other)},
		"another spelling":                     {segment: education, before: qualified(inReview), after: qualified(vetted("education", "in review", "", date))},
		"another reason of the same denial":    {segment: education, before: qualified(denied), after: qualified(vetted("Education", "Denied", "still none", date)), want: true},
		"requested once more":                  {segment: education, before: qualified(inReview), after: qualified(vetted("Education", "InReview", "", date.Add(time.Hour))), want: true},
		"an earlier entry that does not count": {segment: education, before: qualified(approved), after: qualified(approved, vetted("Education", "InReview", "", date))},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.policy.Differs(test.segment, test.before, test.after); got != test.want {
				t.Errorf("differs: %v, want %v", got, test.want)
			}
		})
	}
}

// TestDiffersIsWhatDecisionsShow compares Differs with decisions on both pieces of
// evidence beside the same other facet, and with the entry that decides by the oracle.
func TestDiffersIsWhatDecisionsShow(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	held := func(evidence *eligibility.Evidence) eligibility.Held {
		life := eligibility.Lifetime{FreshUntil: now.Add(time.Minute), UsableUntil: now.Add(time.Hour)}
		return eligibility.Held{Evidence: evidence, Lifetime: life, Fresh: true}
	}
	rapid.Check(t, func(t *rapid.T) {
		policy := eligibility.Policy{NotReadyAllowed: rapid.Bool().Draw(t, "not ready allowed"), AllowReducing: rapid.Bool().Draw(t, "allow reducing")}
		segment := rapid.SampledFrom([]eligibility.Segment{
			eligibility.SegmentCommercial, eligibility.SegmentEducation, eligibility.SegmentGovernment, eligibility.SegmentNonprofit,
		}).Draw(t, "segment")
		facet := rapid.SampledFrom([]eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications}).Draw(t, "facet")
		before, after := drawFacts(t, facet, "before"), drawFacts(t, facet, "after")
		decide := func(evidence *eligibility.Evidence) (eligibility.Answer, error) {
			on, beside := held(evidence), held(qualified())
			if facet == eligibility.FacetQualifications {
				on, beside = held(account("Allowed")), on
			}
			return eligibility.Decide(policy, segment, eligibility.OperationPurchase, on, beside, now)
		}
		earlier, failedEarlier := decide(before)
		later, failedLater := decide(after)
		want := earlier.Decision != later.Decision || !slices.Equal(earlier.Reasons, later.Reasons) || !sameKind(failedEarlier, failedLater)
		if facet == eligibility.FacetQualifications && segment != eligibility.SegmentCommercial {
			want = want || decidingOracle(segment, before) != decidingOracle(segment, after)
		}
		if got := policy.Differs(segment, before, after); got != want {
			t.Fatalf("differs: %v, want %v: %+v, %+v", got, want, before, after)
		}
	})
}

func drawFacts(t *rapid.T, facet eligibility.Facet, name string) *eligibility.Evidence {
	absence := rapid.SampledFrom([]eligibility.Absence{0, 0, 0, eligibility.AbsenceNotFound, eligibility.AbsenceNotServed}).Draw(t, name+" absence")
	if absence != eligibility.AbsenceNone {
		return &eligibility.Evidence{Facet: facet, Absence: absence}
	}
	if facet == eligibility.FacetAccount {
		word := rapid.SampledFrom([]string{"", "Allowed", "UnderReview", "NotAllowed", "Unknown", "NotReady", "Frozen", "Thawed"}).Draw(t, name+" word")
		if word == "" {
			return &eligibility.Evidence{Status: eligibility.AccountStatusNone}
		}
		return account(word)
	}
	// Each entry has a day of its own, so that no two are equal in rank.
	days := rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, name+" days")
	items := make([]eligibility.Qualification, rapid.IntRange(0, 3).Draw(t, name+" entries"))
	for i := range items {
		created := time.Time{}
		if days[i] > 0 {
			created = time.Date(2026, 1, days[i], 0, 0, 0, 0, time.UTC)
		}
		kind := rapid.SampledFrom([]string{"Education", "Education", "Nonprofit", "GovernmentCommunityCloud", "Unheard"}).Draw(t, "kind")
		vetting := rapid.SampledFrom([]string{"Approved", "InReview", "Denied", "Lost"}).Draw(t, "vetting")
		items[i] = vetted(kind, vetting, rapid.SampledFrom([]string{"", "why"}).Draw(t, "reason"), created)
	}
	return qualified(items...)
}

// decidingOracle returns the entry that decides by its reason; the zero entry if none
// does. No two entries have the same date.
func decidingOracle(segment eligibility.Segment, evidence *eligibility.Evidence) eligibility.Qualification {
	vetting := map[eligibility.ReasonCode]eligibility.VettingStatus{
		eligibility.ReasonQualificationApproved: eligibility.VettingApproved, eligibility.ReasonQualificationDenied: eligibility.VettingDenied,
		eligibility.ReasonQualificationInReview: eligibility.VettingInReview, eligibility.ReasonQualificationUnrecognized: eligibility.VettingUnrecognized,
	}[segmentOracle(segment, evidence.Qualifications)]
	var newest eligibility.Qualification
	for _, q := range evidence.Qualifications {
		if q.Type == segmentTable[segment] && q.VettingStatus == vetting && (newest.TypeText == "" || q.VettingCreatedTime.After(newest.VettingCreatedTime)) {
			newest = q
		}
	}
	return newest
}

func sameKind(a, b error) bool {
	kind := func(err error) (kind eligibility.Kind) {
		if known, ok := errors.AsType[*eligibility.Error](err); ok {
			kind = known.Kind
		}
		return kind
	}
	return kind(a) == kind(b)
}
