package console

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// everywhere is an explanation that has a text in each place that can have one.
func everywhere(word string, entries int) *eligibilityv1.ExplainEligibilityResponse {
	facts := statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNRECOGNIZED, word)
	list := new(eligibilityv1.Facts)
	for range entries {
		list.Qualifications = append(list.Qualifications, &eligibilityv1.Qualification{
			Type: 1, TypeText: word, VettingStatus: 4, VettingStatusText: word, VettingReason: word, VettingCreatedTime: minutes(-5),
		})
	}
	e := &eligibilityv1.ExplainEligibilityResponse{
		CustomerId: testCustomer, ExplainTime: minutes(0), Unread: []eligibilityv1.ExplanationPart{1, 2, 3, 99},
		Segments:  []*eligibilityv1.SegmentExplanation{open(99, word), open(4, "NOT_KNOWN"), answered(commercial, eligibilityv1.Decision_DECISION_BLOCKED, &eligibilityv1.Reason{Code: 7, Remedy: 5, Message: word})},
		Obstacles: []*eligibilityv1.Obstacle{{Kind: 1, Host: 2, UntilTime: minutes(1)}, {Kind: 2}, {Kind: 3, Host: 1}, {Kind: 4, Host: 2}, {Kind: 5}, {Kind: 99, Host: 99}},
		Reviews:   []*eligibilityv1.Review{{Facet: account, StatusText: word, PendingSinceTime: minutes(-9), NextCheckTime: minutes(1)}, {}},
	}
	for rule := range int32(10) {
		for outcome := range int32(6) {
			e.Segments[2].Rules = append(e.Segments[2].Rules, &eligibilityv1.AppliedRule{Word: word, Rule: eligibilityv1.Rule(rule), Outcome: eligibilityv1.AppliedRule_Outcome(outcome), Facet: 2})
		}
	}
	for tier := range int32(4) {
		e.Evidence = append(e.Evidence,
			&eligibilityv1.HeldEvidence{Facet: account, Tier: eligibilityv1.EvidenceSource(tier), Facts: facts, EvidenceTime: minutes(-int(tier)), ExpireTime: minutes(1), UsableUntilTime: minutes(9), CorrelationId: word, MustRevalidate: true},
			&eligibilityv1.HeldEvidence{Facet: held, Tier: eligibilityv1.EvidenceSource(tier), Facts: list, EvidenceTime: minutes(-int(tier)), CorrelationId: word})
	}
	for i := range entries {
		e.History = append(e.History,
			&eligibilityv1.HistoryEntry{Facet: account, Before: facts, After: facts, EvidenceTime: minutes(-i), ConfirmedTime: minutes(-i), CorrelationId: word},
			&eligibilityv1.HistoryEntry{Facet: held, Before: list, After: list, EvidenceTime: minutes(-i), ConfirmedTime: minutes(-i), CorrelationId: word})
	}
	return e
}

// All that Partner Center can send is text on the page, isolated from the text around it.
func TestHostileTextsStayText(t *testing.T) {
	t.Parallel()
	count := func(page *html.Node) (counts string) {
		for _, name := range []string{"script", "form", "button", "input", "a", "section", "main", "svg", "rect", "h1", "h2", "h3", "pre", "table", "tr", "td"} {
			counts += fmt.Sprint(name, len(all(page, element(name))), " ")
		}
		return counts
	}
	plain := map[bool]string{}
	for i, word := range append([]string{"plain"}, hostile...) {
		for _, past := range []bool{false, true} {
			page, source := render(t, "customer", pageOf(customerInput{explained: everywhere(word, 2), past: past, mayAsk: true, asked: outcome{word: word, at: noon.UnixMilli()}}))
			if i == 0 {
				plain[past] = count(page)
			}
			if got := count(page); got != plain[past] {
				t.Errorf("%.30q: elements %s, want %s", word, got, plain[past])
			}
			if strings.ContainsAny(source, "\x00\u202e\u2066\u2028\u200b\ufeff\x1b") {
				t.Errorf("%.30q: the page has an invisible character", word)
			}
			if shown := visible(word, 10); strings.TrimSpace(shown) != "" {
				found := false
				for _, n := range all(page, element("bdi")) {
					found = found || strings.HasPrefix(textOf(n), strings.Join(strings.Fields(shown), " "))
				}
				if !found {
					t.Errorf("%.30q is not on the page", word)
				}
			}
		}
	}
}

// A page has less than 1 MB, however much is known.
func TestThePageOfACustomerIsBounded(t *testing.T) {
	t.Parallel()
	for _, word := range []string{strings.Repeat("<", 10_000), strings.Repeat("\u202e", 10_000)} {
		_, source := render(t, "customer", pageOf(customerInput{explained: everywhere(word, 50)}))
		t.Logf("%.3q: %d bytes", word, len(source))
		if len(source) >= 1<<20 {
			t.Errorf("%.3q: %d bytes", word, len(source))
		}
		if n := strings.Count(source, "Confirmed until"); n != 100 {
			t.Errorf("%d changes", n)
		}
	}
}

func TestTheCustomerPageForWhomNothingIsKnown(t *testing.T) {
	t.Parallel()
	segments := []*eligibilityv1.SegmentExplanation{open(commercial, "NOT_KNOWN")}
	for i, c := range []struct {
		mayAsk, past bool
		has, hasNot  string
	}{
		// The fourth has an obstacle.
		{true, false, "Ask Microsoft now: the answer is here", "needs the right"},
		{false, false, "The shop's next check asks Microsoft", "Recorded with your name"},
		{true, true, "Nobody has asked about it, or that is no longer kept", "Recorded with your name"},
		{true, false, "Microsoft cannot be asked at the moment: see below why.", "a second later"},
	} {
		explained := &eligibilityv1.ExplainEligibilityResponse{Segments: segments}
		if i == 3 {
			explained.Obstacles = []*eligibilityv1.Obstacle{{Kind: eligibilityv1.Obstacle_KIND_PAUSE}}
		}
		page, _ := render(t, "customer", pageOf(customerInput{explained: explained, mayAsk: c.mayAsk, past: c.past}))
		text := mainOf(page)
		if !strings.Contains(text, "Nothing is known about this customer for partner contoso-eu.") || !strings.Contains(text, c.has) || strings.Contains(text, c.hasNot) {
			t.Errorf("%+v: %s", c, text)
		}
		if n := len(all(page, withClass("verdict"))); n != 0 {
			t.Errorf("%+v: %d verdicts", c, n)
		}
		if forms := all(page, func(n *html.Node) bool {
			return attr(n, "method") == "post" && strings.HasSuffix(attr(n, "action"), "/ask?partner=contoso-eu")
		}); (len(forms) == 1) != (c.mayAsk && !c.past) {
			t.Errorf("%+v: %d forms", c, len(forms))
		}
	}
}

// A part that could not be read is never shown as one that is empty.
func TestUnreadPartsAreStated(t *testing.T) {
	t.Parallel()
	for part, want := range map[eligibilityv1.ExplanationPart][]string{
		1: {"The shared cache could not be read", "the shared cache cannot be read"}, 2: {"The list of reviews could not be read"}, 3: {"The history could not be read: there may be changes", "The history could not be read."},
	} {
		page, _ := render(t, "customer", pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{
			Segments: []*eligibilityv1.SegmentExplanation{open(commercial, "NOT_KNOWN")}, Unread: []eligibilityv1.ExplanationPart{part},
		}}))
		text := mainOf(page)
		for _, sentence := range want {
			if !strings.Contains(text, sentence) {
				t.Errorf("%s: %q is missing: %s", part, sentence, text)
			}
		}
		if strings.Contains(text, "Nothing is known about this customer") || part == 3 && strings.Contains(text, "No change is kept") || part == 1 && strings.Contains(text, "Nobody has asked") {
			t.Errorf("%s: %s", part, text)
		}
	}
}

// The facts of the past come from the history: if that cannot be read, nobody knows
// whether anybody had asked.
func TestThePastWithoutItsHistory(t *testing.T) {
	t.Parallel()
	segment := open(commercial, "NOT_KNOWN")
	segment.Rules = []*eligibilityv1.AppliedRule{{Facet: account, Rule: eligibilityv1.Rule_RULE_NO_EVIDENCE}}
	page, _ := render(t, "customer", pageOf(customerInput{past: true, explained: &eligibilityv1.ExplainEligibilityResponse{
		ExplainTime: minutes(-61), Segments: []*eligibilityv1.SegmentExplanation{segment}, Unread: []eligibilityv1.ExplanationPart{1, 3},
	}}))
	text := mainOf(page)
	for _, want := range []string{
		"Not known for commercial licences: the history cannot be read, and only it has what Microsoft had returned about the account.",
		"Load this page again later", "Account: the history cannot be read",
		"The history cannot be read, and only it has what Microsoft had returned about the qualifications.",
		"There is nothing to send: the history could not be read.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
	for _, not := range []string{"obody had asked", "obody has asked", "failed if there was no answer", "Microsoft has returned nothing"} {
		if strings.Contains(text, not) {
			t.Errorf("%q: %s", not, text)
		}
	}
}

// The link of a change leads to the millisecond, and the form keeps it.
func TestTheFieldOfATimeKeepsMilliseconds(t *testing.T) {
	t.Parallel()
	at := noon.Add(-time.Hour + 123*time.Millisecond)
	page := pageOf(customerInput{past: true, explained: &eligibilityv1.ExplainEligibilityResponse{ExplainTime: timestamppb.New(at)}})
	if got, err := parseAt(page.AtValue); err != nil || !got.Equal(at) || page.AtValue > page.MaxAt {
		t.Errorf("%q is %v, %v; at most %q", page.AtValue, got, err, page.MaxAt)
	}
}

func TestTheHistoryStatesThatItForgets(t *testing.T) {
	t.Parallel()
	page, _ := render(t, "customer", pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{History: []*eligibilityv1.HistoryEntry{
		{Facet: account, After: statusFacts(eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, "Allowed"), EvidenceTime: minutes(-9), ConfirmedTime: minutes(-9)},
	}}}))
	if text := mainOf(page); !strings.Contains(text, "Account: nothing known, or no longer kept") {
		t.Errorf("%s", text)
	}
}

// The page states that the answer is on it only if it is, and only for some minutes.
func TestTheNoticeOfAsking(t *testing.T) {
	t.Parallel()
	now := noon.UnixMilli()
	const here, waits, part = "Its answer is below.", "does not have the answer yet: reload the page.", "has not answered all of it"
	for name, c := range map[string]struct {
		asked  outcome
		listed int // when the qualifications were fetched, in minutes; 1: never
		want   string
	}{
		"here":                   {outcome{askedWell, now, minutes(-2).AsTime().UnixMilli()}, -2, here},
		"newer":                  {outcome{askedWell, now, minutes(-3).AsTime().UnixMilli()}, -2, here},
		"older":                  {outcome{askedWell, now, minutes(-2).AsTime().UnixMilli() + 1}, -2, waits},
		"of one part":            {outcome{askedWell, now, minutes(-2).AsTime().UnixMilli()}, -3, waits},
		"nothing about one part": {outcome{askedWell, now, minutes(-2).AsTime().UnixMilli()}, 1, waits},
		"five minutes ago":       {outcome{askedWell, now - 300_000, 0}, -2, here},
		"long ago":               {outcome{askedWell, now - 300_001, 0}, -2, ""},
		"in the future":          {outcome{askedWell, now + 300_001, 0}, -2, ""},
		"without a time":         {outcome{askedWell, 0, 0}, -2, ""},
		"in part":                {outcome{askedInPart, now, 0}, 1, part},
		"in part, long ago":      {outcome{askedInPart, now - 300_001, 0}, 1, ""},
	} {
		e := &eligibilityv1.ExplainEligibilityResponse{Evidence: []*eligibilityv1.HeldEvidence{{Facet: account, EvidenceTime: minutes(-2)}}}
		if c.listed < 0 {
			e.Evidence = append(e.Evidence, &eligibilityv1.HeldEvidence{Facet: held, EvidenceTime: minutes(c.listed)})
		}
		page, _ := render(t, "customer", pageOf(customerInput{explained: e, asked: c.asked}))
		got := ""
		for _, n := range all(page, func(n *html.Node) bool { return attr(n, "role") == "status" }) {
			got += textOf(n)
			if hasAttr(n, "data-done") == (c.want == waits) || hasAttr(n, "data-waits") != (c.want == waits) {
				t.Errorf("%s: %v", name, n.Attr)
			}
		}
		if !strings.HasSuffix(got, c.want) && !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for query, want := range map[string]outcome{
		"asked=ok&asked_at=5&evidence=7": {"ok", 5, 7}, "asked=ok&asked_at=x&evidence=x": {"ok", 0, math.MaxInt64}, "": {"", 0, math.MaxInt64},
	} {
		values, err := url.ParseQuery(query)
		if got := parseOutcome(values); err != nil || got != want {
			t.Errorf("%q: %+v", query, got)
		}
	}
}

func TestThePastIsMarked(t *testing.T) {
	t.Parallel()
	in := customerInput{past: true, explained: everywhere("word", 1), mayAsk: true}
	in.explained.ExplainTime = minutes(-61)
	page, _ := render(t, "customer", pageOf(in))
	text := mainOf(page)
	for _, want := range []string{"This is the past: what was known at Sat 2026-11-28 10:59:00 UTC (1 hour ago).", "Show what is known now", "Microsoft had returned"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing: %s", want, text)
		}
	}
	if len(all(page, func(n *html.Node) bool { return hasAttr(n, "data-refresh") })) != 0 || strings.Contains(text, "Ask Microsoft now") {
		t.Error("the past updates itself, or can be asked for")
	}
	if input := all(page, func(n *html.Node) bool { return attr(n, "name") == "at" })[0]; attr(input, "value") != "2026-11-28T10:59:00.000" || attr(input, "step") != "0.001" {
		t.Errorf("the form has %q", attr(input, "value"))
	}
}

func TestObstaclesAreShownWithTheirEnd(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		obstacle *eligibilityv1.Obstacle
		want     string
	}{
		{&eligibilityv1.Obstacle{Kind: eligibilityv1.Obstacle_KIND_PAUSE, Host: eligibilityv1.Obstacle_HOST_LOGIN, UntilTime: minutes(5)}, "Microsoft's login host has asked for a pause. Until Sat 2026-11-28 12:05:00 UTC (in 5 minutes)."},
		{&eligibilityv1.Obstacle{Kind: eligibilityv1.Obstacle_KIND_BUDGET}, "This service's own budget of calls to Partner Center is spent."},
		{&eligibilityv1.Obstacle{Kind: eligibilityv1.Obstacle_KIND_CIRCUIT_BREAKER, Host: eligibilityv1.Obstacle_HOST_PARTNER_CENTER}, "Partner Center fails, and is not called for a while (circuit breaker)."},
		{&eligibilityv1.Obstacle{Kind: eligibilityv1.Obstacle_KIND_CREDENTIALS, Host: eligibilityv1.Obstacle_HOST_PARTNER_CENTER}, "Partner Center refuses the credentials of this service. Its operator has to act."},
		{&eligibilityv1.Obstacle{Kind: eligibilityv1.Obstacle_KIND_SHARED_CACHE}, "The shared cache is out of reach: this replica has only a share of the budget."},
		{&eligibilityv1.Obstacle{Kind: 99}, "Something that this page does not know keeps the service from calling Partner Center."},
	} {
		page, _ := render(t, "customer", pageOf(customerInput{explained: &eligibilityv1.ExplainEligibilityResponse{Obstacles: []*eligibilityv1.Obstacle{c.obstacle}}}))
		text := mainOf(page)
		heading := "Microsoft cannot be asked at the moment. "
		if c.obstacle.GetKind() == eligibilityv1.Obstacle_KIND_SHARED_CACHE {
			heading = "Microsoft can be asked less often at the moment. "
		}
		if !strings.Contains(text, heading+c.want) || strings.Contains(text, "Nothing keeps the service") {
			t.Errorf("%s: %q is missing: %s", c.obstacle.GetKind(), c.want, text)
		}
	}
}
