package eligibility

// cutMark ends a text that was cut. With it, a text is no word that the rule knows.
const cutMark = "…"

// Abridge returns evidence that the rule reads as it reads e, with no text longer
// than maxText bytes: of the qualifications, it has those that decide for some
// segment. maxText must be more than the length of any word that the rule knows.
func (e *Evidence) Abridge(maxText int) *Evidence {
	short := &Evidence{
		Facet: e.Facet, Absence: e.Absence, Status: e.Status, StatusText: abridge(e.StatusText, e.Status != AccountStatusUnrecognized, maxText),
		FetchTime: e.FetchTime, CorrelationID: abridge(e.CorrelationID, false, maxText), RequestID: abridge(e.RequestID, false, maxText),
	}
	for _, segment := range []Segment{SegmentEducation, SegmentGovernment, SegmentNonprofit} {
		q := deciding(e.Qualifications, neededQualification(segment))
		if q == nil {
			continue
		}
		cut := *q
		cut.TypeText = abridge(q.TypeText, q.Type != QualificationUnrecognized, maxText)
		cut.VettingStatusText = abridge(q.VettingStatusText, q.VettingStatus != VettingUnrecognized, maxText)
		cut.VettingReason = abridge(q.VettingReason, false, maxText)
		short.Qualifications = append(short.Qualifications, cut)
	}
	return short
}

// abridge cuts text at a rune. A known word is folded, since what is cut off could be
// a part of it.
func abridge(text string, known bool, maxText int) string {
	if len(text) <= maxText {
		return text
	}
	if known {
		return FoldWord(text)
	}
	end := maxText - len(cutMark)
	for end > 0 && text[end]&0xc0 == 0x80 {
		end--
	}
	return text[:end] + cutMark
}
