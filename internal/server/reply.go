package server

import (
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// checkReply is the answer to one question. It is encoded once, straight from the
// evidence, in the form that the caller asked for: [checkReply.appendProto] or
// [checkReply.appendJSON].
type checkReply struct {
	customerID eligibility.CustomerID
	answer     eligibility.Answer
}

// batchReply holds the results of a batch in the order of its questions.
type batchReply []itemReply

// itemReply is the result of one question of a batch: err if it is not nil, and
// the answer otherwise.
type itemReply struct {
	checkReply

	err *eligibility.Error
}

// The typical size of one encoded answer, to size buffers. Larger ones fit too.
const (
	protoBytes = 320
	jsonBytes  = 768
)
