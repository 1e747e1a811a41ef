package eligibility

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// SameFacts reports whether two pieces of evidence about one facet state the same:
// the absence, the status word as the rule reads it, and the set of qualifications
// with their vetting. When and under which correlation id they were fetched, the
// order of qualifications, their repetition and the spelling of words do not matter.
func (e *Evidence) SameFacts(other *Evidence) bool {
	if e.Facet != other.Facet || e.Absence != other.Absence || e.Status != other.Status || FoldWord(e.StatusText) != FoldWord(other.StatusText) {
		return false
	}
	return slices.EqualFunc(factsOf(e.Qualifications), factsOf(other.Qualifications), func(a, b Qualification) bool {
		return compareFacts(a, b) == 0
	})
}

// FactsSum returns a short hash of what evidence states: what SameFacts calls the same
// has the same sum, and anything else most probably another.
func (e *Evidence) FactsSum() uint64 {
	// Of the status only its word counts: what it means to one release may differ.
	b := append(make([]byte, 0, 128), byte(e.Facet), byte(e.Absence))
	if e.Status == AccountStatusNone {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	text(FoldWord(e.StatusText))
	for _, q := range factsOf(e.Qualifications) {
		text(FoldWord(q.TypeText))
		text(FoldWord(q.VettingStatusText))
		text(q.VettingReason)
		b = binary.AppendVarint(binary.AppendVarint(b, q.VettingCreatedTime.Unix()), int64(q.VettingCreatedTime.Nanosecond()))
	}
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// factsOf returns the set of qualifications, in an order of its own.
func factsOf(held []Qualification) []Qualification {
	sorted := slices.SortedFunc(slices.Values(held), compareFacts)
	return slices.CompactFunc(sorted, func(a, b Qualification) bool { return compareFacts(a, b) == 0 })
}

func compareFacts(a, b Qualification) int {
	return cmp.Or(
		cmp.Compare(FoldWord(a.TypeText), FoldWord(b.TypeText)),
		cmp.Compare(FoldWord(a.VettingStatusText), FoldWord(b.VettingStatusText)),
		cmp.Compare(a.VettingReason, b.VettingReason),
		a.VettingCreatedTime.Compare(b.VettingCreatedTime),
	)
}

// UnderReview reports whether evidence is a block of purchases that may pass by
// itself: of all of them, or of those in a segment that asks for a qualification.
func (p Policy) UnderReview(evidence *Evidence) bool {
	if evidence.Absence != AbsenceNone {
		return false
	}
	if evidence.Facet == FacetAccount {
		return p.accountReason(evidence.Status, OperationPurchase).Temporary()
	}
	for _, segment := range []Segment{SegmentEducation, SegmentGovernment, SegmentNonprofit} {
		if segmentReason(segment, evidence.Qualifications).Temporary() {
			return true
		}
	}
	return false
}

// Differs reports whether two pieces of evidence about one facet make a difference to
// a purchase in the segment: to the facet's part in the decision and its reasons, or
// to the qualification that the segment asks for. before is nil if nothing was known;
// that makes a difference if the facet has a part.
func (p Policy) Differs(segment Segment, before, after *Evidence) bool {
	switch {
	case after.Facet == FacetQualifications && segment == SegmentCommercial:
		return false
	case before == nil || before.Absence != after.Absence:
		return true
	case after.Absence != AbsenceNone:
		return false
	case after.Facet == FacetAccount:
		return p.accountReason(before.Status, OperationPurchase) != p.accountReason(after.Status, OperationPurchase)
	}
	if segmentReason(segment, before.Qualifications) != segmentReason(segment, after.Qualifications) {
		return true
	}
	needed := neededQualification(segment)
	earlier, later := deciding(before.Qualifications, needed), deciding(after.Qualifications, needed)
	return earlier != nil && later != nil && compareFacts(*earlier, *later) != 0
}
