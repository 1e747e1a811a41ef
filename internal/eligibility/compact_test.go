package eligibility_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Compact changes where evidence lies, and nothing else; not even what it was made of.
func TestCompact(t *testing.T) {
	t.Parallel()
	education := eligibility.Qualification{
		Type: eligibility.QualificationEducation, TypeText: strings.Clone("Education"), VettingStatus: eligibility.VettingApproved,
		VettingStatusText: strings.Clone("Approved"), VettingReason: "a reason", VettingCreatedTime: time.Unix(7, 0).UTC(),
	}
	same := cmp.Options{cmpopts.IgnoreUnexported(eligibility.Evidence{})}
	for name, e := range map[string]eligibility.Evidence{
		"nothing":    {},
		"an account": {Status: eligibility.AccountStatusAllowed, StatusText: strings.Clone("Allowed"), CorrelationID: "c", RequestID: "r", FetchTime: time.Unix(3, 0)},
		"one ID":     {CorrelationID: "c"},
		"the other":  {RequestID: "r"},
		"another":    {StatusText: "a word", Absence: eligibility.AbsenceNotServed},
		"none":       {Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{}},
		"one":        {Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{education}},
		"two":        {Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{education, education}},
	} {
		compact := eligibility.Compact(e)
		if diff := cmp.Diff(&e, compact, same); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(e.Qualifications) > 0 {
			compact.Qualifications[0].VettingReason = "changed"
			if e.Qualifications[0].VettingReason != education.VettingReason {
				t.Errorf("%s: shares its qualifications", name)
			}
		}
	}
}

// A known word stays the word that it is, and so does any other.
func TestWord(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"Allowed", "UnderReview", "GovernmentCommunityCloud", "In Review", "allowed\x00", ""} {
		if got := eligibility.Word(strings.Clone(word)); got != word {
			t.Errorf("%q: %q", word, got)
		}
	}
}
