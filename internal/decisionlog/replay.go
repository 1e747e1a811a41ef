package decisionlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Answer is the part of an answer that a policy determines.
type Answer struct {
	Outcome Outcome
	// Reasons are those of a decision, Kind is why there is none.
	Reasons []eligibility.ReasonCode
	Kind    eligibility.Kind
	Stale   bool
}

// Equal reports whether two answers are the same.
func (a Answer) Equal(b Answer) bool {
	return a.Outcome == b.Outcome && a.Kind == b.Kind && a.Stale == b.Stale && slices.Equal(a.Reasons, b.Reasons)
}

// maxReasons is more than an answer has: one reason a rule.
const maxReasons = 4

// String returns the answer as a line of a table has it.
func (a Answer) String() string {
	if a.Outcome == OutcomeError {
		return a.Outcome.String() + " " + a.Kind.Reason()
	}
	var b strings.Builder
	b.WriteString(a.Outcome.String())
	for i, reason := range a.Reasons[:min(len(a.Reasons), maxReasons)] {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte(' ')
		b.WriteString(reason.String())
	}
	if len(a.Reasons) > maxReasons {
		b.WriteString(", …")
	}
	if a.Stale {
		b.WriteString(" (stale)")
	}
	return b.String()
}

// Answer returns the answer that the record has.
func (r *Record) Answer() Answer {
	return Answer{Outcome: r.Outcome, Reasons: r.Reasons, Kind: r.Kind, Stale: r.Stale}
}

// Errors of Replay. The first two are no faults of the record.
var (
	// ErrNotDecided: the question was refused before the rule was applied, which no
	// policy changes.
	ErrNotDecided = errors.New("the question never reached the rule")
	// ErrNotHeld: under the other policy, the service would have asked Partner Center
	// for evidence that the record does not have.
	ErrNotHeld = errors.New("evidence that the other policy needs is not in the record")

	errNoPolicy = errors.New("decision log: the record has evidence and no policy")
)

// Replay returns the answer to the record's question by the record's evidence, at the
// record's time, under its policy as changed by overrides. Without overrides, that is
// the record's own answer.
//
// An override may change how long an account's evidence answers; its lifetime is then
// that of the record's ages under the changed policy. Evidence is taken as fresh only
// if it was fresh. Evidence that was too old under the record's policy is not in the
// record: an error for lack of it remains one.
//
// Replay fails with ErrNotDecided, ErrNotHeld or, if the record contradicts itself,
// with another error.
func (r *Record) Replay(overrides ...Override) (Answer, error) {
	switch {
	case r.Basis.Time.IsZero() || r.Question.Invalid:
		return Answer{}, ErrNotDecided
	case r.Policy == nil:
		return Answer{}, errNoPolicy
	}
	from, to := r.Policy.Values, r.Policy.Values
	for _, override := range overrides {
		override(&to)
	}
	account := r.Basis.Account
	if from != to {
		var err error
		if account, err = r.accountUnder(from, to); err != nil {
			return Answer{}, err
		}
		if r.lacksQualifications(from, to, &account) {
			return Answer{}, ErrNotHeld
		}
	}
	answer, err := eligibility.Decide(to, r.Question.Segment, r.Question.Operation, account, r.Basis.Qualifications, r.Basis.Time)
	return answerOf(&answer, err), nil
}

// answerOf returns what a record has of an answer.
func answerOf(answer *eligibility.Answer, err error) Answer {
	if err != nil {
		return Answer{Outcome: OutcomeError, Kind: kindOf(err)}
	}
	a := Answer{Outcome: OutcomeBlocked, Stale: answer.Stale}
	if answer.Decision == eligibility.DecisionAllowed {
		a.Outcome = OutcomeAllowed
	}
	for _, reason := range answer.Reasons {
		a.Reasons = append(a.Reasons, reason.Code)
	}
	return a
}

// accountUnder returns the account's evidence with its lifetime under another policy.
// If that ended while the evidence answered without a fetch, the service would have
// fetched.
func (r *Record) accountUnder(from, to eligibility.Policy) (eligibility.Held, error) {
	account := r.Basis.Account
	if account.Evidence == nil {
		return account, nil
	}
	var key *eligibility.Key
	if id, known := r.Question.Customer.ID(); known {
		key = &eligibility.Key{CustomerID: id, Facet: eligibility.FacetAccount}
	}
	lifetime, ok := r.Policy.Ages.LifetimeUnder(from, to, account.Lifetime, key, account.Evidence, r.Question.Operation)
	if !ok {
		return account, ErrNotHeld
	}
	ended := !r.Basis.Time.Before(lifetime.FreshUntil) && r.Basis.Time.Before(account.Lifetime.FreshUntil)
	account.Lifetime = lifetime
	if ended && account.Fresh && !account.Fetched {
		return account, ErrNotHeld
	}
	return account, nil
}

// lacksQualifications reports whether the decision depends on qualifications under
// the policy to, for which nobody waited under the policy from, and which no tier had.
func (r *Record) lacksQualifications(from, to eligibility.Policy, account *eligibility.Held) bool {
	held, of := &r.Basis.Qualifications, &r.Question
	needed := func(p eligibility.Policy) bool {
		return p.NeedsQualifications(of.Segment, of.Operation, account.Evidence)
	}
	usable := func(h *eligibility.Held) bool {
		return h.Evidence != nil && r.Basis.Time.Before(h.Lifetime.UsableUntil)
	}
	return usable(account) && needed(to) && !needed(from) && !usable(held) && held.Err == nil
}

// Override changes a value of a policy.
type Override func(*eligibility.Policy)

// ParseOverride reads KEY=VALUE: a key of the configuration's policy, with or without
// the prefix "policy.", and one of its words.
func ParseOverride(text string) (Override, error) {
	key, word, _ := strings.Cut(text, "=")
	key, word = strings.TrimPrefix(strings.TrimSpace(key), "policy."), strings.TrimSpace(word)
	var known []string
	for i, value := range valuesOf(new(eligibility.Policy)) {
		known = append(known, "policy."+value.key)
		switch {
		case value.key != key:
		case !value.take(word):
			return nil, fmt.Errorf("policy.%s is %s or %s, not %q", key, value.other, value.yes, word)
		default:
			return func(p *eligibility.Policy) { valuesOf(p)[i].take(word) }, nil
		}
	}
	if strings.HasPrefix(key, "cache.") || strings.HasPrefix(key, "ages") {
		return nil, fmt.Errorf("%q cannot be replayed: with other ages the service would have asked Partner Center at other times, and its answers then are not in a record", key)
	}
	return nil, fmt.Errorf("%q cannot be replayed: a record has what %s decide by, and nothing of other keys", key, strings.Join(known, ", "))
}
