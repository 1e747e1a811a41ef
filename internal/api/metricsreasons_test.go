package api

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// TestEveryReasonIsCounted wants a counter for each reason, on each side on
// which the rule can put it.
func TestEveryReasonIsCounted(t *testing.T) {
	t.Parallel()
	m, err := newMetrics(Config{Registerer: prometheus.NewRegistry()}, []Service{{Desc: &eligibilityv1.EligibilityService_ServiceDesc}}, func() float64 { return 0 }, func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	for code := eligibility.ReasonAccountAllowed; code <= eligibility.ReasonUndecidable; code++ {
		allowed, blocked := m.allowed[code] != nil, m.blocked[code] != nil
		// It never stands first in an allowing answer, and cannot block.
		if code != eligibility.ReasonQualificationApproved && !allowed && !blocked {
			t.Errorf("%v is not counted", code)
		}
	}
	for _, kind := range eligibility.Kinds() {
		m.failed(&eligibility.Error{Kind: kind}, 1, false) // must not meet a nil counter
	}
	for _, method := range eligibilityv1.EligibilityService_ServiceDesc.Methods {
		series := m.rpcs["/"+eligibilityv1.EligibilityService_ServiceDesc.ServiceName+"/"+method.MethodName]
		if series.grpc == nil || series.rest == nil {
			t.Errorf("%s is not counted", method.MethodName)
		}
	}
}
