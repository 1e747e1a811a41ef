package eligibility_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Whatever is cut off, the rule decides the same.
func TestAbridgeChangesNoDecision(t *testing.T) {
	t.Parallel()
	const most = 40
	forever := eligibility.Lifetime{FreshUntil: time.Unix(1e10, 0), UsableUntil: time.Unix(1e10, 0)}
	blank := func(t *rapid.T) string {
		return strings.Repeat(rapid.SampledFrom([]string{" ", "_", "-", "\t"}).Draw(t, "blank"), rapid.IntRange(0, 60).Draw(t, "blanks"))
	}
	word := func(t *rapid.T, words ...string) string {
		return blank(t) + rapid.SampledFrom(words).Draw(t, "word") + blank(t) + rapid.SampledFrom([]string{"", "", "x", "ö"}).Draw(t, "end")
	}
	rapid.Check(t, func(t *rapid.T) {
		evidence := &eligibility.Evidence{Facet: eligibility.FacetQualifications}
		for range rapid.IntRange(0, 6).Draw(t, "qualifications") {
			date := time.Time{}
			if rapid.Bool().Draw(t, "dated") {
				date = time.Unix(rapid.Int64Range(0, 3).Draw(t, "date"), 0)
			}
			q, held := eligibility.ParseQualification(
				word(t, "Education", "GovernmentCommunityCloud", "Nonprofit", "StateOwnedEntity", "Other"), word(t, "Approved", "InReview", "Denied", "Other"),
				strings.Repeat("ö", rapid.IntRange(0, 60).Draw(t, "reason")), date)
			if held {
				evidence.Qualifications = append(evidence.Qualifications, q)
			}
		}
		short := evidence.Abridge(most)
		for i, q := range short.Qualifications {
			again, _ := eligibility.ParseQualification(q.TypeText, q.VettingStatusText, q.VettingReason, q.VettingCreatedTime)
			if again != q || len(q.TypeText) > most || len(q.VettingStatusText) > most || len(q.VettingReason) > most || !utf8.ValidString(q.VettingReason) {
				t.Fatalf("%d: %+v, read again %+v", i, q, again)
			}
		}
		for _, segment := range []eligibility.Segment{eligibility.SegmentEducation, eligibility.SegmentGovernment, eligibility.SegmentNonprofit} {
			account := eligibility.Held{Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed"}, Lifetime: forever, Fresh: true}
			decide := func(e *eligibility.Evidence) eligibility.Decision {
				answer, err := eligibility.Decide(eligibility.Policy{}, segment, eligibility.OperationPurchase, account, eligibility.Held{Evidence: e, Lifetime: forever, Fresh: true}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				return answer.Decision
			}
			if full, cut := decide(evidence), decide(short); full != cut {
				t.Fatalf("%v: %v, abridged %v", segment, full, cut)
			}
		}
	})
	account := &eligibility.Evidence{Status: eligibility.AccountStatusUnrecognized, StatusText: "Allowed" + strings.Repeat(" ", 60) + "not"}
	if short := account.Abridge(most); eligibility.ParseAccountStatus(short.StatusText) != eligibility.AccountStatusUnrecognized {
		t.Errorf("cut to %q", short.StatusText)
	}
}
