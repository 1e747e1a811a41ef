package decisionlog

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Policy is what the operator of a partner has decided, as it stands in each record
// of the partner, in the words of the configuration. It must not be changed.
type Policy struct {
	Values eligibility.Policy
	Ages   eligibility.Ages
	// Digest is "sha256:" and the hash of the values and ages as written.
	Digest string

	json []byte // of the member
}

// NewPolicy returns the policy of values and ages.
func NewPolicy(values eligibility.Policy, ages eligibility.Ages) *Policy {
	p := &Policy{Values: values, Ages: ages}
	b := []byte{'{'}
	for _, value := range valuesOf(&values) {
		b = append(append(append(b, '"'), value.key...), `":"`...)
		b = append(append(b, value.word()...), `",`...)
	}
	b = append(b, `"ages":{`...)
	for i, named := range namedAges(&p.Ages) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, named.name)
		b = append(append(b, `:{"fresh":"`...), named.age.Fresh.String()...)
		b = append(append(b, `","usable":"`...), named.age.Usable.String()...)
		b = append(b, `"}`...)
	}
	b = append(b, '}')
	hash := sha256.Sum256(append(b, '}'))
	p.Digest = "sha256:" + hex.EncodeToString(hash[:])
	p.json = append(append(append(b, `,"digest":"`...), p.Digest...), `"}`...)
	return p
}

// policyValue is a value of a policy by the name of its key in the configuration, with
// the configuration's words.
type policyValue struct {
	key        string
	set        *bool
	yes, other string // the word if it is set, and if it is not
}

// valuesOf returns the values of a policy.
func valuesOf(p *eligibility.Policy) []policyValue {
	return []policyValue{
		{"not_ready", &p.NotReadyAllowed, "allow", "block"},
		{"under_review", &p.AllowReducing, "allow_reducing", "block_all"},
		{"when_undecidable", &p.BlockUndecidable, "block", "error"},
	}
}

func (v *policyValue) word() string {
	if *v.set {
		return v.yes
	}
	return v.other
}

// take sets the value to a word. It returns false if the word is none of its two.
func (v *policyValue) take(word string) bool {
	*v.set = word == v.yes
	return word == v.yes || word == v.other
}

type namedAge struct {
	name string
	age  *eligibility.Age
}

// namedAges returns the ages by the names of their keys in the configuration.
func namedAges(a *eligibility.Ages) []namedAge {
	return []namedAge{
		{"allowed", &a.Allowed},
		{"no_status", &a.NoStatus},
		{"pending", &a.Pending},
		{"not_allowed", &a.NotAllowed},
		{"qualifications", &a.Qualifications},
		{"qualifications_in_review", &a.QualificationsInReview},
	}
}

// policyLine is the member policy.
type policyLine struct {
	NotReady        string                     `json:"not_ready"`
	UnderReview     string                     `json:"under_review"`
	WhenUndecidable string                     `json:"when_undecidable"`
	Ages            map[string]policyLineOfAge `json:"ages"`
	Digest          string                     `json:"digest"`
}

type policyLineOfAge struct {
	Fresh  string `json:"fresh"`
	Usable string `json:"usable"`
}

// policy converts the member. Its digest is taken as it is.
func (l *policyLine) policy() (*Policy, error) {
	p := new(Policy)
	words := []string{l.NotReady, l.UnderReview, l.WhenUndecidable}
	for i, value := range valuesOf(&p.Values) {
		if !value.take(words[i]) {
			return nil, errPolicy
		}
	}
	for _, named := range namedAges(&p.Ages) {
		var err error
		of := l.Ages[named.name]
		if named.age.Fresh, err = time.ParseDuration(of.Fresh); err != nil {
			return nil, errPolicy
		}
		if named.age.Usable, err = time.ParseDuration(of.Usable); err != nil {
			return nil, errPolicy
		}
	}
	if p.Ages.Validate() != nil {
		return nil, errPolicy
	}
	p.Digest = l.Digest
	return p, nil
}
