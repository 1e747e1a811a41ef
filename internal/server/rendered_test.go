package server

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// Whatever was asked before, and whoever shares a slot, a memo says what the
// answer does, in every form.
func TestAMemoNeverAnswersForAnother(t *testing.T) {
	t.Parallel()
	base := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var accounts, held []*eligibility.Evidence
		for i := range 3 {
			at := base.Add(time.Duration(i) * time.Second)
			accounts = append(accounts, &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, StatusText: "Allowed", FetchTime: at})
			held = append(held, &eligibility.Evidence{Facet: eligibility.FacetQualifications, FetchTime: at, Qualifications: []eligibility.Qualification{{TypeText: at.String()}}})
		}
		accounts, held = append(accounts, nil), append(held, nil)
		moment := rapid.SampledFrom([]time.Time{{}, base, base.Add(time.Minute)})
		reasons := rapid.SampledFrom([][]eligibility.Reason{
			nil,
			{{Code: eligibility.ReasonAccountAllowed}},
			{{Code: eligibility.ReasonAccountUnderReview, Blocks: true}},
			{{Code: eligibility.ReasonAccountAllowed}, {Code: eligibility.ReasonQualificationMissing, Blocks: true}},
		})
		// The second customer has the slot of the first.
		ids := []eligibility.CustomerID{{1}, {2}, {}}
		for n := uint16(0); slotOf(ids[2], 1) != slotOf(ids[0], 1); n++ {
			ids[2] = eligibility.CustomerID{3, byte(n >> 8), byte(n)}
		}
		m := new(memo)
		for range rapid.IntRange(1, 40).Draw(t, "questions") {
			id := rapid.SampledFrom(ids).Draw(t, "customer")
			answer := &eligibility.Answer{
				Decision:       rapid.SampledFrom([]eligibility.Decision{eligibility.DecisionAllowed, eligibility.DecisionBlocked}).Draw(t, "decision"),
				Reasons:        reasons.Draw(t, "reasons"),
				Account:        rapid.SampledFrom(accounts).Draw(t, "account"),
				Qualifications: rapid.SampledFrom(held).Draw(t, "qualifications"),
				EvidenceTime:   moment.Draw(t, "evidence time"),
				ExpireTime:     moment.Draw(t, "expire time"),
				RecheckTime:    moment.Draw(t, "recheck time"),
				Tier:           rapid.SampledFrom([]eligibility.Tier{eligibility.TierLocal, eligibility.TierRedis}).Draw(t, "tier"),
				Stale:          rapid.Bool().Draw(t, "stale"),
			}
			got := m.of(id, answer)
			if plain := answer.Tier == eligibility.TierLocal && !answer.Stale; (got != nil) != plain {
				t.Fatalf("remembered %v of %+v", got != nil, answer)
			}
			if got == nil {
				continue
			}
			want := response(id.String(), answer)
			if diff := cmp.Diff(want, got.message, protocmp.Transform()); diff != "" {
				t.Fatalf("message (-want +got):\n%s", diff)
			}
			sent := new(eligibilityv1.CheckEligibilityResponse)
			if err := proto.Unmarshal(got.wire.ReadOnlyData(), sent); err != nil || !proto.Equal(want, sent) {
				t.Fatalf("over gRPC %v, %v, want %v", sent, err, want)
			}
			if diff := cmp.Diff(string(appendAnswerJSON(nil, want)), string(got.rest.body)); diff != "" {
				t.Fatalf("over REST (-want +got):\n%s", diff)
			}
			if got.rest.tag[0] != entityTag(want) || got.rest.cacheControl[0] != cacheControl(want) {
				t.Fatalf("headers %+v", got.rest)
			}
		}
	})
}
