package server

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// rendered is an answer in every form in which callers get it. It is shared by
// those who get the same, and never changed.
type rendered struct {
	customerID eligibility.CustomerID
	answer     eligibility.Answer // that it was made of

	message *eligibilityv1.CheckEligibilityResponse
	result  *eligibilityv1.BatchCheckEligibilityResult // message, in a batch
	batch   []byte                                     // a batch of result alone, for gRPC
	wire    mem.Buffer                                 // message, for gRPC
	rest    restAnswer                                 // message, for REST
}

// is reports whether it says what answer does, which is fresh and of this process
// as well: evidence behind a pointer never changes, and all else that an answer
// in the API's words is made of is compared.
func (r *rendered) is(id eligibility.CustomerID, answer *eligibility.Answer) bool {
	was := &r.answer
	return r.customerID == id &&
		was.Account == answer.Account && was.Qualifications == answer.Qualifications &&
		was.Decision == answer.Decision &&
		was.EvidenceTime.Equal(answer.EvidenceTime) && was.ExpireTime.Equal(answer.ExpireTime) &&
		was.RecheckTime.Equal(answer.RecheckTime) &&
		slices.Equal(was.Reasons, answer.Reasons)
}

const (
	// memoSlots is how many answers a memo holds at most, about 1.5 KB each.
	memoSlots = 1 << 13
	// memoWays is in how many of them one customer may be, so that it takes more
	// than two who share one to forget each other's answers.
	memoWays = 4
)

// memo remembers answers from this process's own evidence. It is safe for
// concurrent use; its zero value is empty.
type memo [memoSlots]atomic.Pointer[rendered]

// of returns the answer in the API's forms; nil for one that is not worth
// remembering, or cannot be said.
func (m *memo) of(id eligibility.CustomerID, answer *eligibility.Answer) *rendered {
	if answer.Tier != eligibility.TierLocal || answer.Stale {
		return nil
	}
	first := slotOf(id, len(answer.Reasons))
	slots := m[first : first+memoWays]
	var replaced *atomic.Pointer[rendered]
	for i := range slots {
		known := slots[i].Load()
		switch {
		case known == nil:
			if replaced == nil {
				replaced = &slots[i]
			}
		case known.is(id, answer):
			return known
		case known.customerID == id && len(known.answer.Reasons) == len(answer.Reasons):
			replaced = &slots[i] // what it said before
		}
	}
	made := newRendered(response(id.String(), answer))
	if made == nil {
		return nil
	}
	made.customerID, made.answer = id, *answer
	// What only a log is told would keep an error alive.
	made.answer.Cause = nil
	if replaced == nil {
		replaced = &slots[rand.Uint32()%memoWays] //nolint:gosec // nobody gains by guessing it
	}
	replaced.Store(made)
	return made
}

// newRendered makes every form of a message; nil for one that cannot be encoded,
// by a text with invalid UTF-8, which evidence never has.
func newRendered(message *eligibilityv1.CheckEligibilityResponse) *rendered {
	result := resultOf(message)
	batch, err := proto.Marshal(&eligibilityv1.BatchCheckEligibilityResponse{Results: []*eligibilityv1.BatchCheckEligibilityResult{result}})
	if err != nil {
		return nil
	}
	return &rendered{
		message: message,
		result:  result,
		batch:   batch,
		wire:    mem.SliceBuffer(batch[len(batch)-proto.Size(message):]), // what a batch adds stands before it
		rest:    newRESTAnswer(message),
	}
}

// slotOf is the first slot in which a customer may be. It spreads customers evenly,
// and the segments of one that differ in what they ask for.
func slotOf(id eligibility.CustomerID, reasons int) uint64 {
	const odd = 0x9e3779b97f4a7c15
	x := binary.NativeEndian.Uint64(id[:8])*odd ^ binary.NativeEndian.Uint64(id[8:]) + uint64(reasons) //nolint:gosec // one or two
	// Whichever byte is the one in which IDs differ comes down to the slot.
	x = (x ^ x>>32) * odd
	return (x ^ x>>29) * odd >> 32 % (memoSlots / memoWays) * memoWays
}
