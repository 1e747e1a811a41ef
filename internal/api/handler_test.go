package api

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestMinEvidenceTimeMayLieOneSecondAhead(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	partners, err := NewPartners(map[string]*evidence.Service{DefaultPartner: new(evidence.Service)}, "")
	if err != nil {
		t.Fatal(err)
	}
	h := &handler{partners: partners, now: func() time.Time { return now }}
	for ahead, refused := range map[time.Duration]bool{
		0: false, time.Second: false, time.Second + 1: true, time.Hour: true, -time.Hour: false,
	} {
		req := apitest.Ask(apitest.CustomerA)
		req.MinEvidenceTime = timestamppb.New(now.Add(ahead))
		var faults Violations
		q := QuestionOf(req)
		h.question(&q, access.Anonymous, &faults)
		if (len(faults.kept) > 0) != refused {
			t.Errorf("%v ahead: %v", ahead, faults.kept)
		}
	}
}
