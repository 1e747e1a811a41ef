package decisionlog_test

import (
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// asked is a question with what Decide is given about it.
type asked struct {
	id        eligibility.CustomerID
	segment   eligibility.Segment
	operation eligibility.Operation
	basis     eligibility.Basis
	policy    eligibility.Policy
	ages      eligibility.Ages
}

func drawAsked(t *rapid.T) asked {
	a := asked{
		id:        eligibility.CustomerID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "customer")),
		segment:   eligibility.Segment(rapid.Uint8Range(0, 3).Draw(t, "segment")),
		operation: eligibility.Operation(rapid.Uint8Range(0, 5).Draw(t, "operation")),
		policy:    drawPolicy(t), ages: eligibility.DefaultAges(),
	}
	if rapid.Bool().Draw(t, "other ages") {
		age := rapid.Custom(func(t *rapid.T) eligibility.Age {
			fresh := rapid.SampledFrom([]time.Duration{2 * time.Second, 5 * time.Minute, 20 * time.Minute, time.Hour}).Draw(t, "fresh")
			return eligibility.Age{Fresh: fresh, Usable: fresh + rapid.SampledFrom([]time.Duration{fresh, time.Hour, 24 * time.Hour}).Draw(t, "usable")}
		})
		a.ages.Allowed, a.ages.Pending = age.Draw(t, "allowed"), age.Draw(t, "pending")
	}
	now := time.Date(2026, 11, 28, 14, 2, 3, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "now")))
	a.basis.Time = now
	if !rapid.Bool().Draw(t, "no account") || rapid.Bool().Draw(t, "no account at all") {
		words := rapid.SampledFrom([]string{"Allowed", "allowed", "UnderReview", "under_review", "NotAllowed", "Unknown", "NotReady", "Not Ready", "NotReady", "Paused", "\xff\"\\\n"})
		evidence := &eligibility.Evidence{Facet: eligibility.FacetAccount, Status: eligibility.AccountStatusNone}
		if word := words.Draw(t, "word"); rapid.IntRange(0, 9).Draw(t, "has status") > 0 {
			evidence.StatusText, evidence.Status = word, eligibility.ParseAccountStatus(word)
		}
		a.basis.Account.Evidence = evidence
	}
	if rapid.Bool().Draw(t, "qualifications") {
		evidence := &eligibility.Evidence{Facet: eligibility.FacetQualifications}
		for range rapid.IntRange(0, 3).Draw(t, "number of qualifications") {
			q, held := eligibility.ParseQualification(rapid.SampledFrom([]string{"Education", "GovernmentCommunityCloud", "Nonprofit", "StateOwnedEntity", "Other"}).Draw(t, "type"),
				rapid.SampledFrom([]string{"Approved", "InReview", "Denied", "", "Odd"}).Draw(t, "vetting"), rapid.String().Draw(t, "reason"), time.Time{})
			if rapid.Bool().Draw(t, "dated") {
				q.VettingCreatedTime = now.AddDate(0, 0, -rapid.IntRange(0, 3).Draw(t, "days"))
			}
			if held {
				evidence.Qualifications = append(evidence.Qualifications, q)
			}
		}
		a.basis.Qualifications.Evidence = evidence
	}
	a.drawHeld(t, &a.basis.Account, eligibility.FacetAccount)
	a.drawHeld(t, &a.basis.Qualifications, eligibility.FacetQualifications)
	return a
}

// drawHeld completes what is held about a facet.
func (a *asked) drawHeld(t *rapid.T, h *eligibility.Held, facet eligibility.Facet) {
	if rapid.IntRange(0, 3).Draw(t, "failed") == 0 {
		h.Err = &eligibility.Error{Kind: rapid.SampledFrom(eligibility.Kinds()).Draw(t, "kind"), Err: errors.New("a cause"), RetryAfter: time.Minute}
	}
	if h.Evidence == nil {
		return
	}
	if rapid.IntRange(0, 9).Draw(t, "absent") == 0 {
		*h.Evidence = eligibility.Evidence{Facet: facet, Absence: eligibility.Absence(rapid.Uint8Range(1, 2).Draw(t, "absence"))}
	}
	h.Evidence.CorrelationID = rapid.String().Draw(t, "correlation id")
	h.Evidence.FetchTime = a.basis.Time.Add(-time.Duration(rapid.SampledFrom([]int64{1, 61, 601, 1800, 4000, 20_000, 80_000}).Draw(t, "age")) * time.Second).Truncate(time.Millisecond)
	h.Tier = eligibility.Tier(rapid.Uint8Range(1, 3).Draw(t, "tier"))
	h.Lifetime = a.lifetime(facet, h.Evidence, a.policy)
	h.Fetched = rapid.IntRange(0, 3).Draw(t, "fetched") == 0
	h.Fresh = h.Fetched || rapid.Bool().Draw(t, "fresh")
}

func drawPolicy(t *rapid.T) eligibility.Policy {
	return eligibility.Policy{
		NotReadyAllowed: rapid.Bool().Draw(t, "not ready"), AllowReducing: rapid.Bool().Draw(t, "under review"), BlockUndecidable: rapid.Bool().Draw(t, "undecidable"),
	}
}

func (a *asked) lifetime(facet eligibility.Facet, evidence *eligibility.Evidence, policy eligibility.Policy) eligibility.Lifetime {
	return a.ages.LifetimeOf(eligibility.Key{CustomerID: a.id, Facet: facet}, evidence, policy, a.operation, a.basis.Time)
}

// decide returns the answer under a policy.
func (a *asked) decide(policy eligibility.Policy) decisionlog.Answer {
	account := a.basis.Account
	if account.Evidence != nil {
		account.Lifetime = a.lifetime(eligibility.FacetAccount, account.Evidence, policy)
	}
	answer, err := eligibility.Decide(policy, a.segment, a.operation, account, a.basis.Qualifications, a.basis.Time)
	if err != nil {
		var failure *eligibility.Error
		errors.As(err, &failure)
		return decisionlog.Answer{Kind: failure.Kind}
	}
	got := decisionlog.Answer{Outcome: decisionlog.OutcomeAllowed, Stale: answer.Stale}
	if answer.Decision == eligibility.DecisionBlocked {
		got.Outcome = decisionlog.OutcomeBlocked
	}
	for _, reason := range answer.Reasons {
		got.Reasons = append(got.Reasons, reason.Code)
	}
	return got
}

// record returns the record of the answer, as it is read from a line.
func (a *asked) record(t *rapid.T, hashed bool) decisionlog.Record {
	was := a.decide(a.policy)
	r := decisionlog.Record{
		Time: a.basis.Time, DecisionID: "order-17", Basis: a.basis, Policy: decisionlog.NewPolicy(a.policy, a.ages),
		Question: decisionlog.Question{Customer: decisionlog.PlainCustomer(a.id), Segment: a.segment, Operation: a.operation},
		Outcome:  was.Outcome, Reasons: was.Reasons, Kind: was.Kind, Stale: was.Stale, Sampled: 1,
	}
	if hashed {
		r.Question.Customer = decisionlog.HashedCustomer([]byte("a key"), a.id)
	}
	read, err := decisionlog.Parse(r.AppendJSON(nil))
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// overrides returns what makes any policy the policy p.
func overrides(t *rapid.T, p eligibility.Policy) []decisionlog.Override {
	words := []string{"policy.not_ready=block", "under_review=block_all", "policy.when_undecidable=error"}
	if p.NotReadyAllowed {
		words[0] = "not_ready=allow"
	}
	if p.AllowReducing {
		words[1] = "policy.under_review=allow_reducing"
	}
	if p.BlockUndecidable {
		words[2] = " when_undecidable = block "
	}
	parsed := make([]decisionlog.Override, len(words))
	for i, word := range words {
		var err error
		if parsed[i], err = decisionlog.ParseOverride(word); err != nil {
			t.Fatal(err)
		}
	}
	return parsed
}

// A record derives its own answer under its own policy. Under another one it derives
// what Decide answers with the lifetimes of that policy, unless that needs evidence
// for which nobody had asked.
func TestReplayDerivesTheAnswerAgain(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := drawAsked(t)
		read := a.record(t, rapid.Bool().Draw(t, "hashed"))
		for _, same := range [][]decisionlog.Override{nil, overrides(t, a.policy)} {
			if got, err := read.Replay(same...); err != nil || !got.Equal(a.decide(a.policy)) || !got.Equal(read.Answer()) {
				t.Fatalf("under the same policy: %v, %v; was %v", got, err, read.Answer())
			}
		}
		other := drawPolicy(t)
		got, err := read.Replay(overrides(t, other)...)
		switch {
		case errors.Is(err, decisionlog.ErrNotHeld):
			if !a.lacks(other) && !a.endsEarlier(other) {
				t.Fatalf("under %+v: %v", other, err)
			}
		case err != nil || !got.Equal(a.decide(other)):
			t.Fatalf("under %+v: %v, %v; want %v", other, got, err, a.decide(other))
		case a.lacks(other), a.endsEarlier(other):
			t.Fatalf("under %+v: %v by evidence that the service would not have had", other, got)
		}
	})
}

// needsQualifications states the rule a second time: the account permits the
// operation, and the segment asks for a qualification.
func (a *asked) needsQualifications(p eligibility.Policy) bool {
	account, exempt := a.basis.Account.Evidence, p.AllowReducing && a.operation >= eligibility.OperationRenewal
	if account == nil || account.Absence != eligibility.AbsenceNone || a.segment == eligibility.SegmentCommercial || exempt {
		return false
	}
	switch account.Status {
	case eligibility.AccountStatusAllowed, eligibility.AccountStatusNone:
		return true
	case eligibility.AccountStatusNotReady:
		return p.NotReadyAllowed
	default:
		return false
	}
}

// lacks reports whether the record has nothing about qualifications, which only the
// other policy needs.
func (a *asked) lacks(other eligibility.Policy) bool {
	held := a.basis.Qualifications
	if !a.needsQualifications(other) || a.needsQualifications(a.policy) || held.Err != nil ||
		held.Evidence != nil && a.basis.Time.Before(held.Lifetime.UsableUntil) {
		return false
	}
	return a.basis.Time.Before(a.lifetime(eligibility.FacetAccount, a.basis.Account.Evidence, other).UsableUntil)
}

// endsEarlier reports whether the account's evidence answered without a fetch, and
// would be past its fresh age under the other policy.
func (a *asked) endsEarlier(other eligibility.Policy) bool {
	held := a.basis.Account
	return held.Evidence != nil && held.Fresh && !held.Fetched && a.basis.Time.Before(held.Lifetime.FreshUntil) &&
		!a.basis.Time.Before(a.lifetime(eligibility.FacetAccount, held.Evidence, other).FreshUntil)
}

// Questions that never reached the rule have nothing to replay, and a record that
// contradicts itself is no answer.
func TestReplayRefusesWhatItCannotDerive(t *testing.T) {
	t.Parallel()
	refused := decisionlog.Record{Outcome: decisionlog.OutcomeError, Kind: eligibility.KindOverloaded}
	if got, err := refused.Replay(); !errors.Is(err, decisionlog.ErrNotDecided) {
		t.Errorf("refused: %v, %v", got, err)
	}
	contradicting := refused
	contradicting.Basis.Time = time.Now()
	if got, err := contradicting.Replay(); err == nil || errors.Is(err, decisionlog.ErrNotDecided) || errors.Is(err, decisionlog.ErrNotHeld) {
		t.Errorf("without a policy: %v, %v", got, err)
	}
}

func TestParseOverrideExplainsWhatCannotBeReplayed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"policy.not_ready=maybe":        `policy.not_ready is block or allow, not "maybe"`,
		"not_ready":                     `policy.not_ready is block or allow, not ""`,
		"under_review=allow":            `policy.under_review is block_all or allow_reducing, not "allow"`,
		"cache.ages.allowed.fresh=5m":   `"cache.ages.allowed.fresh" cannot be replayed: with other ages the service would have asked Partner Center at other times, and its answers then are not in a record`,
		"partner_center.budget=5":       `"partner_center.budget" cannot be replayed: a record has what policy.not_ready, policy.under_review, policy.when_undecidable decide by, and nothing of other keys`,
		"=":                             `"" cannot be replayed: a record has what policy.not_ready, policy.under_review, policy.when_undecidable decide by, and nothing of other keys`,
		"when_undecidable=block,error":  `policy.when_undecidable is error or block, not "block,error"`,
		"policy.policy.not_ready=allow": `"policy.not_ready" cannot be replayed: a record has what policy.not_ready, policy.under_review, policy.when_undecidable decide by, and nothing of other keys`,
	} {
		if _, err := decisionlog.ParseOverride(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
}
