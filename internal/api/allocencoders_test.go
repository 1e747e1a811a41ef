//go:build !race

package api

import (
	"testing"

	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

func TestAllocationsOfEncoders(t *testing.T) {
	reply := &CheckReply{Answer: eligibility.Answer{Decision: eligibility.DecisionAllowed, Reasons: []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}}}}
	buffer := make([]byte, 0, 4096)
	if got := apitest.FewestAllocations(func() { _ = reply.AppendJSON(buffer) }); got != 0 {
		t.Errorf("JSON: %v allocations", got)
	}
	if got := apitest.FewestAllocations(func() { _ = reply.appendProto(buffer) }); got != 0 {
		t.Errorf("protobuf: %v allocations", got)
	}
}
