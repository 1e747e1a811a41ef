package console

import (
	"errors"
	"net/http"
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The usual partner is shown unless it certainly knows nothing and another one knows
// something.
func TestThePartnerThatIsShown(t *testing.T) {
	t.Parallel()
	holds := forPartner{explained: &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{{}}}}
	unread := func(part eligibilityv1.ExplanationPart) forPartner {
		return forPartner{explained: &eligibilityv1.ExplainEligibilityResponse{Unread: []eligibilityv1.ExplanationPart{part}}}
	}
	var nothing forPartner
	failed := forPartner{err: errors.New("test")}
	for _, c := range []struct {
		all               []forPartner
		wanted, byDefault string
		want              int
	}{
		{[]forPartner{nothing, nothing, nothing}, "", "", 0},
		{[]forPartner{nothing, nothing, nothing}, "", "b", 1},
		{[]forPartner{nothing, nothing, holds}, "", "b", 2},
		{[]forPartner{holds, holds, holds}, "", "b", 1},
		{[]forPartner{nothing, holds, holds}, "a", "b", 0},
		{[]forPartner{failed, holds, holds}, "", "", 0},
		{[]forPartner{holds, failed, holds}, "", "b", 1},
		{[]forPartner{holds, unread(1), holds}, "", "b", 1},
		{[]forPartner{holds, unread(3), holds}, "", "b", 1},
		{[]forPartner{holds, unread(2), holds}, "", "b", 0}, // the list of reviews is no evidence
	} {
		for i := range c.all {
			c.all[i].partner = string(rune('a' + i))
		}
		if got := chooseHolder(c.all, c.wanted, c.byDefault); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// A page names its partner, so that it stays with it when another one comes to know the
// customer.
func TestThePageStaysWithItsPartner(t *testing.T) {
	t.Parallel()
	s := startSite(t, servertest.Setup{Partners: map[string]apitest.Source{
		"eu": apitest.Returns(eligibility.AccountStatusAllowed, "Allowed"), "us": apitest.Returns(eligibility.AccountStatusNotAllowed, "NotAllowed"),
	}, DefaultPartner: "eu"}, Config{Partners: []string{"eu", "us"}, DefaultPartner: "eu"}, as(support))
	at := "/console/customers/" + apitest.CustomerA
	for given, want := range map[string]string{
		"": "?partner=eu", "?at=2026-11-28T12:00:00Z&asked=ok": "?asked=ok&at=2026-11-28T12%3A00%3A00Z&partner=eu", "?partner=us": "",
	} {
		w := s.do(http.MethodGet, at+given, nil)
		if want == "" && w.Code == http.StatusOK {
			continue
		}
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != at+want {
			t.Errorf("%q: %d, %q", given, w.Code, w.Header().Get("Location"))
		}
	}
	s.h.fictive = as(support, "us") // there is nothing to choose
	if w := s.do(http.MethodGet, at, nil); w.Code != http.StatusOK {
		t.Errorf("a user of one partner: %d", w.Code)
	}
}
