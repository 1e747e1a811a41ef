package api

import (
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// CheckReply is the answer to one question. It is encoded once, straight from the
// evidence, in the form that the caller asked for: [checkReply.appendProto] or
// [checkReply.appendJSON].
type CheckReply struct {
	CustomerID eligibility.CustomerID
	Answer     eligibility.Answer
	// Language is that of the messages.
	Language eligibility.Language
}

// inLanguage returns the reply with its messages in a language.
func (r *CheckReply) inLanguage(l eligibility.Language) *CheckReply {
	return &CheckReply{CustomerID: r.CustomerID, Answer: r.Answer, Language: l}
}

// BatchReply holds the results of a batch in the order of its questions.
type BatchReply []ItemReply

// ItemReply is the result of one question of a batch: err if it is not nil, and
// the answer otherwise. The customer of an error is zero if it is not known.
type ItemReply struct {
	CheckReply

	err      *eligibility.Error
	recorded bool // in the decision log
}

// done reports whether the question has its result.
func (r *ItemReply) done() bool {
	return r.err != nil || r.Answer.Decision != eligibility.DecisionNone
}

// neededPartnerCenter reports whether a question was not answered by evidence that
// was at hand.
func (r BatchReply) neededPartnerCenter() bool {
	for i := range r {
		if r[i].Answer.Tier == eligibility.TierPartnerCenter || r[i].err != nil && FaultOf(r[i].err.Kind).Retry {
			return true
		}
	}
	return false
}

// The typical size of one encoded answer, to size buffers. Larger ones fit too.
const (
	protoBytes = 320
	jsonBytes  = 768
)
