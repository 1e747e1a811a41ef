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
		// The third customer has the slots of the first.
		ids := []eligibility.CustomerID{{1}, {2}, {}}
		for n := uint16(0); slotOf(ids[2], 1) != slotOf(ids[0], 1); n++ {
			ids[2] = eligibility.CustomerID{3, byte(n >> 8), byte(n)}
		}
		m := new(memo)
		id, answer := ids[0], &eligibility.Answer{
			Decision: eligibility.DecisionAllowed, Reasons: []eligibility.Reason{{Code: eligibility.ReasonAccountAllowed}},
			Account: accounts[0], Qualifications: held[0], EvidenceTime: base, ExpireTime: base, Tier: eligibility.TierLocal,
		}
		// Each question differs from the one before in one thing.
		for range rapid.IntRange(1, 60).Draw(t, "questions") {
			next := *answer
			switch answer = &next; rapid.IntRange(0, 9).Draw(t, "what changes") {
			case 0:
				id = rapid.SampledFrom(ids).Draw(t, "customer")
			case 1:
				answer.Decision = rapid.SampledFrom([]eligibility.Decision{eligibility.DecisionAllowed, eligibility.DecisionBlocked}).Draw(t, "decision")
			case 2:
				answer.Reasons = reasons.Draw(t, "reasons")
			case 3:
				answer.Account = rapid.SampledFrom(accounts).Draw(t, "account")
			case 4:
				answer.Qualifications = rapid.SampledFrom(held).Draw(t, "qualifications")
			case 5:
				answer.EvidenceTime = moment.Draw(t, "evidence time")
			case 6:
				answer.ExpireTime = moment.Draw(t, "expire time")
			case 7:
				answer.RecheckTime = moment.Draw(t, "recheck time")
			case 8:
				answer.Tier = rapid.SampledFrom([]eligibility.Tier{eligibility.TierLocal, eligibility.TierRedis}).Draw(t, "tier")
			case 9:
				answer.Stale = rapid.Bool().Draw(t, "stale")
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
			batched := new(eligibilityv1.BatchCheckEligibilityResponse)
			if err := proto.Unmarshal(got.batch, batched); err != nil || len(batched.GetResults()) != 1 || !proto.Equal(want, batched.GetResults()[0].GetResponse()) {
				t.Fatalf("in a batch %v, %v, want %v", batched, err, want)
			}
			if diff := cmp.Diff(string(appendAnswerJSON(nil, want)), string(got.rest.body)); diff != "" {
				t.Fatalf("over REST (-want +got):\n%s", diff)
			}
			if got.rest.tag[0] != newRESTAnswer(want).tag[0] || got.rest.cacheControl[0] != cacheControl(want) {
				t.Fatalf("headers %+v", got.rest)
			}
		}
	})
}

// Customers whose IDs were numbered, by whichever of their bytes, do not make
// each other be forgotten.
func TestAMemoSpreadsNumberedCustomers(t *testing.T) {
	t.Parallel()
	const customers = 1000
	answer := &eligibility.Answer{Decision: eligibility.DecisionAllowed, Tier: eligibility.TierLocal}
	for place := range len(eligibility.CustomerID{}) {
		m, first := new(memo), make(map[int]*rendered)
		numbered := func(n int) (id eligibility.CustomerID) {
			id = eligibility.CustomerID{1, 2, 3, 4, 5, 6, 7, 8, 9}
			id[place], id[(place+1)%len(id)] = byte(n), byte(n>>8) //nolint:gosec // two bytes of n
			return id
		}
		for n := range customers {
			first[n] = m.of(numbered(n), answer)
		}
		forgotten := 0
		for n := range customers {
			if m.of(numbered(n), answer) != first[n] {
				forgotten++
			}
		}
		if forgotten > customers/100 {
			t.Errorf("bytes from %d: %d of %d customers forgotten", place, forgotten, customers)
		}
	}
}
