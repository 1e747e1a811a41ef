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
}

// BatchReply holds the results of a batch in the order of its questions.
type BatchReply []ItemReply

// ItemReply is the result of one question of a batch: err if it is not nil, and
// the answer otherwise.
type ItemReply struct {
	CheckReply

	err *eligibility.Error
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
