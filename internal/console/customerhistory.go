package console

import (
	"slices"
	"unicode"
	"unicode/utf8"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// maxChanges is how many changes a page shows: all that are kept of both facets.
	maxChanges = 100
	// maxListed is how many qualifications a change shows.
	maxListed = 4
)

// change is an entry of the timeline.
type change struct {
	Facet, Class string
	// Before is nil if nothing was known before, or if that is no longer kept.
	Before *summary
	After  summary
	// When is when it was found out, Confirmed when it was last fetched unchanged.
	When, Confirmed *moment
	Correlation     string
	// Path is that of the page at that time; Current is set if the page is of a time to
	// which the change applies.
	Path    string
	Current bool
}

// summary is what Microsoft returned about one facet, in short.
type summary struct {
	Plain string
	Word  *text
	Items []item
	More  int
}

// item is a qualification in short.
type item struct{ Type, Vetting, Reason text }

// history returns the changes of both facets, the newest first.
func (p *customerBuilder) history() (changes []change) {
	entries := slices.Clone(p.explained.GetHistory())
	slices.SortStableFunc(entries, func(a, b *eligibilityv1.HistoryEntry) int {
		return b.GetEvidenceTime().AsTime().Compare(a.GetEvidenceTime().AsTime())
	})
	current := map[eligibilityv1.Facet]bool{}
	for _, entry := range entries[:min(len(entries), maxChanges)] {
		facet := entry.GetFacet()
		c := change{
			Facet: facetName(facet), Class: factsClass(entry.GetAfter()), After: p.summaryOf(facet, entry.GetAfter()),
			When: momentOf(entry.GetEvidenceTime(), p.now), Confirmed: momentOf(entry.GetConfirmedTime(), p.now),
			Correlation: p.texts.brief(entry.GetCorrelationId()).Short, Path: p.pathAt(entry.GetEvidenceTime().AsTime()),
		}
		if entry.GetBefore() != nil {
			before := p.summaryOf(facet, entry.GetBefore())
			c.Before = &before
		}
		if !current[facet] && !entry.GetEvidenceTime().AsTime().After(p.asOf) {
			current[facet], c.Current = true, true
		}
		changes = append(changes, c)
	}
	return changes
}

func (p *customerBuilder) summaryOf(facet eligibilityv1.Facet, f *eligibilityv1.Facts) summary {
	if plain := absenceText(f.GetAbsence()); plain != "" {
		return summary{Plain: plain}
	}
	if facet == eligibilityv1.Facet_FACET_ACCOUNT {
		if f.GetAccountStatus() == eligibilityv1.AccountStatus_ACCOUNT_STATUS_NONE {
			return summary{Plain: "no status"}
		}
		word := p.texts.brief(f.GetAccountStatusText())
		return summary{Word: &word}
	}
	all := f.GetQualifications()
	if len(all) == 0 {
		return summary{Plain: "no qualification"}
	}
	var s summary
	for _, q := range all[:min(len(all), maxListed)] {
		s.Items = append(s.Items, item{p.texts.brief(q.GetTypeText()), p.texts.brief(q.GetVettingStatusText()), p.texts.brief(q.GetVettingReason())})
	}
	s.More = len(all) - len(s.Items)
	return s
}

// factsClass is the class of a change to facts.
func factsClass(f *eligibilityv1.Facts) string {
	switch f.GetAccountStatus() {
	case eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, eligibilityv1.AccountStatus_ACCOUNT_STATUS_NONE:
		return allowed
	case eligibilityv1.AccountStatus_ACCOUNT_STATUS_NOT_READY:
		return undecided
	case eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNDER_REVIEW, eligibilityv1.AccountStatus_ACCOUNT_STATUS_NOT_ALLOWED,
		eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNKNOWN, eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNRECOGNIZED:
		return blocked
	case eligibilityv1.AccountStatus_ACCOUNT_STATUS_UNSPECIFIED:
	}
	class := ""
	for _, q := range f.GetQualifications() {
		switch of := vettingClass(q.GetVettingStatus()); {
		case of == allowed:
			return allowed
		case class == "" || of == undecided:
			class = of
		}
	}
	return class
}

func upperFirst(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[size:]
}
