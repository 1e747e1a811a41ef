package console

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// timestamp abbreviates.
type timestamp = timestamppb.Timestamp

// The bar of an age has three parts of this width: fresh, usable, expired. Each is drawn
// to a scale of its own, because usable ages are up to a thousand times as long as fresh.
const barPart = 100

// age is how old the evidence about one facet is, that one or more tiers hold.
type age struct {
	Name, Tiers            string
	Fetched, Fresh, Usable *moment
	// Now is the place of now in the bar, and Parts how much of each part has passed.
	Now                       int
	FreshPart, UsablePart     int
	ExpiredPart               int
	IsFresh, IsUsable, IsOver bool
	State, Class              string
}

// ages returns the evidence of each tier; tiers that hold the same share an age.
func (p *customerBuilder) ages() (ages []age) {
	var shown []*eligibilityv1.HeldEvidence
	var tiers [][]string
	for _, held := range p.explained.GetEvidence() {
		tier := tierName(held.GetTier())
		if held.GetMustRevalidate() {
			tier += " (which has it confirmed before it is used)"
		}
		i := slices.IndexFunc(shown, func(other *eligibilityv1.HeldEvidence) bool { return sameAge(held, other) })
		if i < 0 {
			shown, tiers = append(shown, held), append(tiers, []string{tier})
			continue
		}
		tiers[i] = append(tiers[i], tier)
		if !held.GetMustRevalidate() {
			shown[i] = held
		}
	}
	for i, held := range shown {
		ages = append(ages, p.ageOf(held, strings.Join(tiers[i], " and ")))
	}
	return ages
}

func sameAge(a, b *eligibilityv1.HeldEvidence) bool {
	return a.GetFacet() == b.GetFacet() && proto.Equal(a.GetEvidenceTime(), b.GetEvidenceTime()) &&
		proto.Equal(a.GetExpireTime(), b.GetExpireTime()) && proto.Equal(a.GetUsableUntilTime(), b.GetUsableUntilTime())
}

func tierName(tier eligibilityv1.EvidenceSource) string {
	switch tier {
	case eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_LOCAL:
		return "this replica"
	case eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_REDIS:
		return "the shared cache"
	case eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_PARTNER_CENTER, eligibilityv1.EvidenceSource_EVIDENCE_SOURCE_UNSPECIFIED:
	}
	return "the history"
}

func (p *customerBuilder) ageOf(held *eligibilityv1.HeldEvidence, tiers string) age {
	fetched, fresh, usable := held.GetEvidenceTime().AsTime(), held.GetExpireTime().AsTime(), held.GetUsableUntilTime().AsTime()
	a := age{
		Name: facetName(held.GetFacet()), Tiers: tiers,
		Fetched: momentOf(held.GetEvidenceTime(), p.now), Fresh: momentOf(held.GetExpireTime(), p.now), Usable: momentOf(held.GetUsableUntilTime(), p.now),
		FreshPart:  passed(fetched, fresh, p.asOf),
		UsablePart: passed(fresh, usable, p.asOf),
		// The third part is as long as the evidence was usable.
		ExpiredPart: passed(usable, usable.Add(max(usable.Sub(fetched), time.Second)), p.asOf),
	}
	a.Now = min(a.FreshPart+a.UsablePart+a.ExpiredPart, 3*barPart-2)
	a.State, a.Class = p.stateOfAge(held)
	a.IsFresh = p.asOf.Before(fresh)
	a.IsUsable = !a.IsFresh && p.asOf.Before(usable)
	a.IsOver = !a.IsFresh && !a.IsUsable
	return a
}

// passed is how much of a part of the bar from begin to end has passed.
func passed(begin, end, now time.Time) int {
	switch {
	case !now.After(begin):
		return 0
	case !now.Before(end):
		return barPart
	default:
		return int(barPart * now.Sub(begin).Seconds() / end.Sub(begin).Seconds())
	}
}
