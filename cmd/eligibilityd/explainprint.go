package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// textWidth is how many columns a line of an explanation has at most.
	textWidth = 80
	// maxShownWord is how many bytes of one of Partner Center's words are shown.
	maxShownWord = 200
)

// explanationText writes an explanation for people.
type explanationText struct {
	strings.Builder

	now  time.Time // that ages are counted to
	past bool      // an earlier time was asked about
}

func printExplanation(resp *eligibilityv1.ExplainEligibilityResponse, past bool, out io.Writer) error {
	t := &explanationText{now: resp.GetExplainTime().AsTime(), past: past}
	t.line(0, "Customer %s, as of %s", shownWord(resp.GetCustomerId()), exactTime(resp.GetExplainTime()))
	for _, part := range resp.GetUnread() {
		t.line(0, "%s could not be read: more may be known.", unreadName(part))
	}
	for _, segment := range resp.GetSegments() {
		t.segment(segment, len(resp.GetEvidence()) > 0)
	}
	t.evidence(resp.GetEvidence(), resp.GetHistory())
	if !past {
		t.obstacles(resp.GetObstacles())
		t.reviews(resp.GetReviews())
	}
	t.history(resp.GetHistory())
	_, err := io.WriteString(out, t.String())
	return err
}

// line adds a paragraph, indented, of lines that fit into textWidth.
func (t *explanationText) line(indent int, format string, args ...any) {
	margin := strings.Repeat(" ", indent)
	column := 0
	for word := range strings.FieldsSeq(fmt.Sprintf(format, args...)) {
		for word != "" {
			size := utf8.RuneCountInString(word)
			switch {
			case column == 0:
				_, _ = t.WriteString(margin)
				column = indent
			case column+1+size <= textWidth:
				_ = t.WriteByte(' ')
				column++
			default:
				_, _ = t.WriteString("\n" + margin)
				column = indent
			}
			head := word
			if column+size > textWidth { // longer than a line
				head = string([]rune(word)[:textWidth-column])
			}
			_, _ = t.WriteString(head)
			column += utf8.RuneCountInString(head)
			word = word[len(head):]
		}
	}
	_ = t.WriteByte('\n')
}

func (t *explanationText) heading(text string) { t.line(0, ""); t.line(0, "%s", text) }

func (t *explanationText) segment(s *eligibilityv1.SegmentExplanation, hasEvidence bool) {
	name := shortWord(s.GetSegment().String(), "SEGMENT_")
	answer := s.GetResponse()
	verb := "may"
	if t.past {
		verb = "could"
	}
	t.line(0, "")
	switch {
	case answer == nil:
		t.line(0, "%s: undecided.", name)
		t.line(2, "%s", unknownText(s.GetError(), t.past, hasEvidence))
	case answer.GetDecision() == eligibilityv1.Decision_DECISION_ALLOWED:
		t.line(0, "%s: the customer %s buy.", name, verb)
	default:
		t.line(0, "%s: the customer %s not buy.", name, verb)
	}
	for _, reason := range answer.GetReasons() {
		t.line(2, "%s", shownWord(reason.GetMessage()))
	}
	if answer.GetStale() {
		t.line(2, "The evidence is old (stale): a check asks Partner Center first, and gives this answer if that fails.")
	}
	t.remedies(answer)
	for _, rule := range s.GetRules() {
		t.line(2, "- %s", ruleText(rule))
	}
}

// remedies adds who must act to end a block.
func (t *explanationText) remedies(answer *eligibilityv1.CheckEligibilityResponse) {
	var seen []eligibilityv1.Remedy
	for _, reason := range answer.GetReasons() {
		remedy := reason.GetRemedy()
		if slices.Contains(seen, remedy) {
			continue
		}
		seen = append(seen, remedy)
		switch remedy {
		case eligibilityv1.Remedy_REMEDY_UNSPECIFIED, eligibilityv1.Remedy_REMEDY_NONE:
		case eligibilityv1.Remedy_REMEDY_WAIT:
			again := ""
			if at := answer.GetRecheckTime(); at != nil {
				again = " A check is worthwhile from " + exactTime(at) + " on."
			}
			t.line(2, "Nobody has to act: wait.%s", again)
		case eligibilityv1.Remedy_REMEDY_UPDATE_CUSTOMER:
			t.line(2, "The partner has to act: correct the customer's data in Partner Center and submit it again.")
		case eligibilityv1.Remedy_REMEDY_REQUEST_QUALIFICATION:
			t.line(2, "The partner has to act: request the qualification for the customer in Partner Center.")
		case eligibilityv1.Remedy_REMEDY_CONTACT_SUPPORT:
			t.line(2, "The partner has to act: ask Microsoft support, with the correlation id %s.", orText(shownWord(answer.GetCorrelationId()), "of the evidence"))
		}
	}
}

func (t *explanationText) evidence(all []*eligibilityv1.HeldEvidence, history []*eligibilityv1.HistoryEntry) {
	t.heading("Evidence")
	if len(all) == 0 {
		t.line(2, "None. Nothing is known that Partner Center returned about this customer.")
	}
	for _, held := range all {
		t.line(2, "%s, %s: %s", shortWord(held.GetFacet().String(), "FACET_"), tierName(held.GetTier()), factsText(held.GetFacts()))
		fetched := "fetched"
		if held.GetTier() == eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_UNSPECIFIED {
			fetched = "first fetched"
		}
		t.line(4, "%s %s, %s; %s; %s", fetched, exactTime(held.GetEvidenceTime()), t.relative(held.GetEvidenceTime()),
			t.until("fresh", held.GetExpireTime()), t.until("usable", held.GetUsableUntilTime()))
		if t.past && !held.GetUsableUntilTime().AsTime().After(t.now) {
			t.line(4, "last confirmed %s; what Microsoft would have returned at %s is not known", exactTime(confirmedOf(held, history)), t.now.UTC().Format(time.RFC3339Nano))
		}
		if held.GetMustRevalidate() {
			t.line(4, "another replica may have newer evidence: a check has it confirmed first")
		}
		t.id("correlation", held.GetCorrelationId())
		t.id("request", held.GetRequestId())
	}
}

// confirmedOf is when the facts of evidence were last fetched, by the history.
func confirmedOf(held *eligibilityv1.HeldEvidence, history []*eligibilityv1.HistoryEntry) *timestamppb.Timestamp {
	for _, entry := range history {
		if entry.GetFacet() == held.GetFacet() && proto.Equal(entry.GetEvidenceTime(), held.GetEvidenceTime()) {
			return entry.GetConfirmedTime()
		}
	}
	return held.GetEvidenceTime()
}

func (t *explanationText) id(name, id string) {
	if id != "" {
		t.line(4, "%s id %s", name, shownWord(id))
	}
}

func (t *explanationText) obstacles(all []*eligibilityv1.Obstacle) {
	t.heading("Calls to Partner Center")
	if len(all) == 0 {
		t.line(2, "Nothing keeps the service from making them.")
	}
	for _, o := range all {
		text := obstacleText(o)
		if until := o.GetUntilTime(); until != nil {
			text += fmt.Sprintf(", until %s (%s)", exactTime(until), t.relative(until))
		}
		t.line(2, "%s.", text)
	}
}

func (t *explanationText) reviews(all []*eligibilityv1.Review) {
	if len(all) == 0 {
		return
	}
	t.heading("Under review")
	for _, r := range all {
		t.line(2, "%s, %s: known since %s, %s; next check %s, %s", shortWord(r.GetFacet().String(), "FACET_"), orText(shownWord(r.GetStatusText()), "status not known"),
			exactTime(r.GetPendingSinceTime()), t.relative(r.GetPendingSinceTime()), exactTime(r.GetNextCheckTime()), t.relative(r.GetNextCheckTime()))
	}
}

func (t *explanationText) history(all []*eligibilityv1.HistoryEntry) {
	t.heading("History, newest first")
	if len(all) == 0 {
		t.line(2, "None is kept.")
	}
	for _, entry := range all {
		change := "first seen"
		if entry.GetBefore() != nil {
			change = factsText(entry.GetBefore()) + " became"
		}
		t.line(2, "%s %s: %s %s", exactTime(entry.GetEvidenceTime()), shortWord(entry.GetFacet().String(), "FACET_"), change, factsText(entry.GetAfter()))
		t.line(4, "last confirmed %s", exactTime(entry.GetConfirmedTime()))
		t.id("correlation", entry.GetCorrelationId())
	}
}

// relative is how far from now a time is, in words.
func (t *explanationText) relative(at *timestamppb.Timestamp) string {
	away := at.AsTime().Sub(t.now)
	switch {
	case away <= -time.Second:
		return ageInWords(-away) + " before"
	case away >= time.Second:
		return "in " + ageInWords(away)
	default:
		return "just now"
	}
}

// until is how much longer evidence has a quality, or since when it does not.
func (t *explanationText) until(quality string, at *timestamppb.Timestamp) string {
	if left := at.AsTime().Sub(t.now); left > 0 {
		return quality + " for " + ageInWords(left)
	}
	return "no longer " + quality + " since " + ageInWords(t.now.Sub(at.AsTime()))
}

// ageInWords is a duration in its largest unit, rounded down.
func ageInWords(d time.Duration) string {
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		switch n := d / unit.size; {
		case n == 1:
			return "1 " + unit.name
		case n > 1:
			return fmt.Sprintf("%d %ss", n, unit.name)
		}
	}
	return "less than a second"
}

func exactTime(at *timestamppb.Timestamp) string {
	if at == nil {
		return "-"
	}
	return at.AsTime().UTC().Format(time.RFC3339Nano)
}

// shortWord is the name of an enumeration's value in lower case, without its prefix.
func shortWord(name, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, prefix)), "_", " ")
}

// shownWord is a word of Partner Center as it is shown: escaped, and cut if it is long.
func shownWord(word string) string {
	shown := printable(word[:min(len(word), 2*maxShownWord)])
	if len(shown) <= maxShownWord {
		return shown
	}
	return strings.ToValidUTF8(shown[:maxShownWord], "") + "…"
}

func factsText(f *eligibilityv1.Facts) string {
	switch {
	case f.GetAbsence() == eligibilityv1.Absence_ABSENCE_NOT_FOUND:
		return "no such customer"
	case f.GetAbsence() == eligibilityv1.Absence_ABSENCE_NOT_SERVED:
		return "not served by this partner"
	case f.GetAccountStatus() == eligibilityv1.AccountStatus_ACCOUNT_STATUS_NONE:
		return "no status"
	case f.GetAccountStatus() != eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNSPECIFIED:
		return shownWord(f.GetAccountStatusText())
	}
	var texts []string
	for _, q := range f.GetQualifications() {
		text := strings.TrimSpace(shownWord(q.GetTypeText()) + " " + shownWord(q.GetVettingStatusText()))
		if reason := q.GetVettingReason(); reason != "" {
			text += " (" + shownWord(reason) + ")"
		}
		texts = append(texts, text)
	}
	return orText(strings.Join(texts, ", "), "no qualification")
}

func tierName(tier eligibilityv1.EvidenceSource) string {
	switch tier {
	case eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL:
		return "in this replica"
	case eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS:
		return "in the shared cache"
	default:
		return "by the history"
	}
}

func unreadName(part eligibilityv1.ExplanationPart) string {
	switch part {
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_EVIDENCE:
		return "The shared cache"
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_REVIEWS:
		return "The list of reviews"
	case eligibilityv1.ExplanationPart_EXPLANATION_PART_HISTORY:
		return "The history"
	default:
		return "A part"
	}
}

// unknownText is why there is no answer.
func unknownText(failure *eligibilityv1.BatchCheckEligibilityError, past, hasEvidence bool) string {
	switch {
	case failure.GetReason() != "NOT_KNOWN":
		return shownWord(failure.GetMessage()) + " (" + shownWord(failure.GetReason()) + ")"
	case past && hasEvidence:
		return "Nothing was known that could still be used, see the evidence (NOT_KNOWN)."
	case past:
		return "Nothing was known that could be used (NOT_KNOWN)."
	default:
		return "Nothing is known that can be used (NOT_KNOWN): a check asks Partner Center."
	}
}

func ruleText(r *eligibilityv1.AppliedRule) string {
	word := ""
	if r.GetWord() != "" {
		word = " \"" + shownWord(r.GetWord()) + "\""
	}
	outcome := map[eligibilityv1.AppliedRule_Outcome]string{
		eligibilityv1.AppliedRule_OUTCOME_ALLOWS: "allows", eligibilityv1.AppliedRule_OUTCOME_BLOCKS: "blocks",
		eligibilityv1.AppliedRule_OUTCOME_UNDECIDED: "leaves it undecided", eligibilityv1.AppliedRule_OUTCOME_NOT_NEEDED: "needs no qualification",
	}[r.GetOutcome()]
	facet := shortWord(r.GetFacet().String(), "FACET_")
	switch r.GetRule() {
	case eligibilityv1.Rule_RULE_ACCOUNT_STATUS:
		if word == "" {
			word = " (none)"
		}
		return fmt.Sprintf("account: the status%s %s", word, outcome)
	case eligibilityv1.Rule_RULE_NOT_READY:
		return fmt.Sprintf("account: the policy policy.not_ready %s the status%s", outcome, word)
	case eligibilityv1.Rule_RULE_REDUCING_OPERATION:
		return fmt.Sprintf("%s: the policy policy.under_review %s, since the operation sells nothing more", facet, outcome)
	case eligibilityv1.Rule_RULE_QUALIFICATION:
		if word == "" {
			word = " (missing, or without a vetting status)"
		}
		return fmt.Sprintf("qualifications: the one of the segment%s %s", word, outcome)
	case eligibilityv1.Rule_RULE_NO_QUALIFICATION_NEEDED:
		return "qualifications: the segment needs none"
	case eligibilityv1.Rule_RULE_ABSENT:
		return facet + ": Partner Center does not have the customer, or this partner does not serve it"
	case eligibilityv1.Rule_RULE_NO_EVIDENCE:
		return facet + ": no evidence that can be used"
	case eligibilityv1.Rule_RULE_UNDECIDABLE:
		return "the policy policy.when_undecidable " + outcome
	default:
		return facet + ": a rule that this program does not know " + outcome
	}
}

func obstacleText(o *eligibilityv1.Obstacle) string {
	host := "Partner Center"
	if o.GetHost() == eligibilityv1.Obstacle_HOST_LOGIN {
		host = "Microsoft's login host"
	}
	switch o.GetKind() {
	case eligibilityv1.Obstacle_KIND_PAUSE:
		return host + " has asked for a pause"
	case eligibilityv1.Obstacle_KIND_BUDGET:
		return "The service's budget of calls is spent"
	case eligibilityv1.Obstacle_KIND_CIRCUIT_BREAKER:
		return host + " fails, and is left alone (circuit breaker)"
	case eligibilityv1.Obstacle_KIND_CREDENTIALS:
		return host + " refuses the service's credentials: its operator has to act"
	case eligibilityv1.Obstacle_KIND_SHARED_CACHE:
		return "The shared cache is out of reach: this replica has a share of the budget"
	default:
		return "Something that this program does not know keeps the service from calling " + host
	}
}
