package console

import (
	"slices"
	"strings"
	"time"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// since is when the facts that decide a segment became known; first is set if nothing
// was known before.
func (p *customerBuilder) since(segment eligibilityv1.Segment, state string, blocking []*eligibilityv1.Reason) (at *moment, first bool) {
	var facets []eligibilityv1.Facet
	switch {
	case state == blocked:
		facets = facetsOf(blocking)
	case state == allowed && segment == eligibilityv1.Segment_SEGMENT_COMMERCIAL:
		facets = []eligibilityv1.Facet{eligibilityv1.Facet_FACET_ACCOUNT}
	case state == allowed:
		facets = []eligibilityv1.Facet{eligibilityv1.Facet_FACET_ACCOUNT, eligibilityv1.Facet_FACET_QUALIFICATIONS}
	}
	var latest time.Time
	for _, facet := range facets {
		begin, isFirst, ok := p.began(facet, segment)
		if !ok {
			return nil, false
		}
		if begin.GetEvidenceTime().AsTime().After(latest) {
			latest, at, first = begin.GetEvidenceTime().AsTime(), momentOf(begin.GetEvidenceTime(), p.now), isFirst
		}
		if state == blocked {
			break // the first reason that blocks is enough
		}
	}
	return at, first
}

// began returns the entry of the history with which the facts about a facet, as far as a
// segment needs them, became what they are.
func (p *customerBuilder) began(facet eligibilityv1.Facet, segment eligibilityv1.Segment) (begin *eligibilityv1.HistoryEntry, first, ok bool) {
	held := p.newest(facet)
	if held == nil {
		return nil, false, false
	}
	same := deciding(held.GetFacts(), segment)
	first = true
	for _, entry := range p.explained.GetHistory() {
		if entry.GetFacet() != facet || entry.GetEvidenceTime().AsTime().After(p.asOf) {
			continue
		}
		if deciding(entry.GetAfter(), segment) != same {
			first = false
			break
		}
		begin = entry
		if before := entry.GetBefore(); before != nil && deciding(before, segment) != same {
			first = false
			break
		}
	}
	return begin, first, begin != nil
}

// deciding is the part of facts that a segment's answer depends on.
func deciding(f *eligibilityv1.Facts, segment eligibilityv1.Segment) string {
	words := []string{f.GetAbsence().String(), f.GetAccountStatus().String()}
	if f.GetAccountStatus() == eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNRECOGNIZED {
		words = append(words, f.GetAccountStatusText())
	}
	needed := map[eligibilityv1.Segment]eligibilityv1.QualificationType{
		eligibilityv1.Segment_SEGMENT_EDUCATION:  eligibilityv1.QualificationType_QUALIFICATION_TYPE_EDUCATION,
		eligibilityv1.Segment_SEGMENT_GOVERNMENT: eligibilityv1.QualificationType_QUALIFICATION_TYPE_GOVERNMENT_COMMUNITY_CLOUD,
		eligibilityv1.Segment_SEGMENT_NONPROFIT:  eligibilityv1.QualificationType_QUALIFICATION_TYPE_NONPROFIT,
	}[segment]
	var vetting []string
	for _, q := range f.GetQualifications() {
		if q.GetType() == needed && needed != eligibilityv1.QualificationType_QUALIFICATION_TYPE_UNSPECIFIED {
			vetting = append(vetting, q.GetVettingStatus().String())
		}
	}
	slices.Sort(vetting)
	return strings.Join(append(words, vetting...), "\x00")
}
