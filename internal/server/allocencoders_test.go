//go:build !race

package server

import (
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestAllocationsOfEncoders(t *testing.T) {
	reply := &checkReply{answer: eligibility.Answer{Decision: eligibility.DecisionAllowed, Reasons: []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}}}}
	buffer := make([]byte, 0, 4096)
	if got := fewestAllocations(func() { _ = reply.appendJSON(buffer) }); got != 0 {
		t.Errorf("JSON: %v allocations", got)
	}
	if got := fewestAllocations(func() { _ = reply.appendProto(buffer) }); got != 0 {
		t.Errorf("protobuf: %v allocations", got)
	}
}
