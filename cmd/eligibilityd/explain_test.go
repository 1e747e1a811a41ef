package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// The command explains a customer now and at an earlier time, and exits as check does.
func TestExplainCommand(t *testing.T) {
	t.Parallel()
	const underReview, allowed = "a0000000-0000-4000-8000-000000000002", "a0000000-0000-4000-8000-000000000001"
	p := startDev(t, "ELIGIBILITY_CACHE__REDIS__ADDRESSES="+cachetest.StartRedis(t).Address)
	explain := func(args ...string) (int, string, string) {
		return runCommand(t, "", append([]string{"explain", "--address", p.GRPC}, args...)...)
	}
	if code, out, failure := explain(underReview); code != exitUndecided || !strings.Contains(out, "commercial: undecided.") || !strings.Contains(out, "Nothing is known") {
		t.Errorf("nobody has asked: %d, %s%s", code, out, failure)
	}
	runCommand(t, "", "check", "--address", p.GRPC, underReview, allowed)
	code, out := 0, ""
	eventually(t, "the review is listed", func() bool { // it is stored off the caller's path
		code, out, _ = explain(underReview)
		return strings.Contains(out, "Under review")
	})
	for _, text := range []string{
		"commercial: the customer may not buy.", "Microsoft is still reviewing this customer's account.", "Nobody has to act: wait.",
		`- account: the status "UnderReview" blocks`, "- qualifications: the segment needs none", "account, in this replica: UnderReview", "account, in the shared cache: UnderReview",
		"Nothing keeps the service from making them.", "known since",
	} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is missing:\n%s", text, out)
		}
	}
	if code != exitBlocked {
		t.Errorf("exit code %d", code)
	}
	if code, out, _ := explain(allowed); code != 0 || !strings.Contains(out, "commercial: the customer may buy.") {
		t.Errorf("%d, %s", code, out)
	}
	code, out, _ = explain(underReview, "--json", "--operation", "renewal")
	var object struct{ Segments, Evidence, History, Obstacles, Unread []any }
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exitBlocked || len(object.Segments) != 4 || strings.Count(out, "\n") != 1 {
		t.Errorf("%d, %v, %s", code, err, out)
	}
	if code, out, _ := explain(underReview, "--at", "1h"); code != exitUndecided || !strings.Contains(out, "Nothing was known") || strings.Contains(out, "Calls to Partner Center") {
		t.Errorf("an hour ago: %d, %s", code, out)
	}
	if code, out, _ := explain(underReview, "--at", "0s"); code != exitBlocked || !strings.Contains(out, "the customer could not buy.") {
		t.Errorf("--at now: %d, %s", code, out)
	}
	for _, args := range [][]string{{}, {underReview, allowed}, {underReview, "--at", "yesterday"}, {underReview, "--at", "2026-11-28"}, {underReview, "--operation", "x"}, {"\xff"}, {strings.Repeat("a", 100_000)}} {
		if code, _, _ := explain(args...); code != exitUsage {
			t.Errorf("%.60q: exit code %d", args, code)
		}
	}
	for _, args := range [][]string{{"x"}, {underReview, "--partner", "nobody"}, {underReview, "--at", time.Now().Add(time.Hour).Format(time.RFC3339)}} {
		if code, out, failure := explain(args...); code != exitUndecided || out != "" || failure == "" {
			t.Errorf("%q: exit code %d, %s, %s", args, code, out, failure)
		}
	}
}

// Whatever Partner Center or a service sends, the text has lines of up to 80 columns,
// and no character that a terminal or a reader could take for something else.
func TestAnExplanationIsFitToPrint(t *testing.T) {
	t.Parallel()
	at := timestamppb.New(time.Date(2026, 11, 28, 14, 2, 0, 0, time.UTC))
	for _, word := range []string{"Under\x1b[31mReview", "\u202eweiveR\u2066", "a\nb\r\tc\u2028d", strings.Repeat("x", 1<<20), strings.Repeat("\u202e", 1000), strings.Repeat("語", 500), "\xff\x00", "…\u00a0…", `\"`, ""} {
		facts := &eligibilityv1.Facts{AccountStatus: eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNRECOGNIZED, AccountStatusText: word}
		held := &eligibilityv1.Facts{Qualifications: []*eligibilityv1.Qualification{{TypeText: word, VettingStatusText: word, VettingReason: word}, {}}}
		resp := &eligibilityv1.ExplainEligibilityResponse{
			CustomerId: word, ExplainTime: at, Unread: []eligibilityv1.ExplanationPart{1, 2, 3, 99},
			Segments: []*eligibilityv1.SegmentExplanation{
				{Segment: 99, Result: &eligibilityv1.SegmentExplanation_Error{Error: &eligibilityv1.BatchCheckEligibilityError{Reason: word, Message: word}}},
				{Result: &eligibilityv1.SegmentExplanation_Response{Response: &eligibilityv1.CheckEligibilityResponse{
					CorrelationId: word, RecheckTime: at, Stale: true, Reasons: []*eligibilityv1.Reason{{Message: word}, {Remedy: 1}, {Remedy: 2}, {Remedy: 3}, {Remedy: 4}, {Remedy: 5}, {Remedy: 99}},
				}}},
			},
			Evidence:  []*eligibilityv1.HeldEvidence{{Facts: facts, CorrelationId: word, MustRevalidate: true, EvidenceTime: at, ExpireTime: at, UsableUntilTime: at}, {Facts: held}, {}},
			Obstacles: []*eligibilityv1.Obstacle{{Kind: 1, Host: 2, UntilTime: at}, {Kind: 2}, {Kind: 3, Host: 1}, {Kind: 4, Host: 2}, {Kind: 5}, {Kind: 99, Host: 99}},
			Reviews:   []*eligibilityv1.Review{{StatusText: word, PendingSinceTime: at}, {}},
			History:   []*eligibilityv1.HistoryEntry{{Before: facts, After: held, EvidenceTime: at, CorrelationId: word}, {After: facts}, {}},
		}
		for rule := range int32(10) {
			for outcome := range int32(6) {
				resp.Segments[1].Rules = append(resp.Segments[1].Rules, &eligibilityv1.AppliedRule{Word: word, Rule: eligibilityv1.Rule(rule), Outcome: eligibilityv1.AppliedRule_Outcome(outcome), Facet: 2})
			}
		}
		for _, past := range []bool{false, true} {
			var out bytes.Buffer
			if err := printExplanation(resp, past, &out); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				line = strings.TrimSuffix(line, "\n")
				if utf8.RuneCountInString(line) > textWidth || !utf8.ValidString(line) {
					t.Errorf("%.20q: %q", word, line)
				}
				for _, r := range line {
					if !unicode.IsPrint(r) {
						t.Errorf("%.20q: %q has %q", word, line, r)
					}
				}
			}
			if out.Len() > 300_000 {
				t.Errorf("%.20q: %d bytes", word, out.Len())
			}
		}
	}
	if out := new(bytes.Buffer); printExplanation(&eligibilityv1.ExplainEligibilityResponse{}, false, out) != nil || out.Len() == 0 {
		t.Error("nothing is printed of an empty message")
	}
}

// What was last known is shown with its times, if it was too old to be used.
func TestAnExplanationShowsWhatWasLastKnown(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	at := func(hours int) *timestamppb.Timestamp {
		return timestamppb.New(noon.Add(time.Duration(hours) * time.Hour))
	}
	facts := &eligibilityv1.Facts{AccountStatus: eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, AccountStatusText: "Allowed"}
	resp := &eligibilityv1.ExplainEligibilityResponse{
		ExplainTime: at(30),
		Segments: []*eligibilityv1.SegmentExplanation{{
			Segment: 1, Result: &eligibilityv1.SegmentExplanation_Error{Error: &eligibilityv1.BatchCheckEligibilityError{Reason: "NOT_KNOWN"}},
		}},
		Evidence: []*eligibilityv1.HeldEvidence{{Facet: 1, Facts: facts, EvidenceTime: at(0), ExpireTime: at(24), UsableUntilTime: at(25)}},
		History:  []*eligibilityv1.HistoryEntry{{Facet: 2, EvidenceTime: at(0)}, {Facet: 1, After: facts, EvidenceTime: at(0), ConfirmedTime: at(24)}},
	}
	const want = "last confirmed 2026-11-29T12:00:00Z; what Microsoft would have returned at 2026-11-29T18:00:00Z is not known"
	printed := func() string {
		var out bytes.Buffer
		if err := printExplanation(resp, true, &out); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(out.String()), " ")
	}
	if out := printed(); !strings.Contains(out, want) || !strings.Contains(out, "still be used, see the evidence") {
		t.Error(out)
	}
	resp.ExplainTime = at(24)
	if out := printed(); strings.Contains(out, "would have") {
		t.Errorf("while it is usable: %s", out)
	}
}

func TestAgesInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "less than a second", time.Second: "1 second", 119 * time.Second: "1 minute", 2 * time.Minute: "2 minutes", 25 * time.Hour: "1 day", 1000 * time.Hour: "41 days",
	} {
		if got := ageInWords(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
