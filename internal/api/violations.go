package api

import (
	"slices"
	"strconv"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// maxViolations is how many violations the answer to one call names.
	maxViolations = 100
	// maxItemViolations is how many of them one item of a batch may have.
	maxItemViolations = 20
)

// Violations collects what is wrong with a request, or with one item of a
// batch. It keeps the first few and counts the rest, so that its cost does not
// depend on how much is wrong. The zero value is an empty one of a request.
type Violations struct {
	item  bool // of the item at place
	place int
	kept  []eligibility.Violation
	more  int // how many were not kept
}

// ItemViolations returns those of an item of a batch, by its place: none yet.
func ItemViolations(place int) Violations { return Violations{item: true, place: place} }

// Empty reports whether nothing is wrong.
func (v *Violations) Empty() bool { return len(v.kept) == 0 }

// Add records a violation. In an item, an empty field means the whole item.
func (v *Violations) Add(field, description string) {
	most := maxViolations
	if v.item {
		most = maxItemViolations
	}
	if len(v.kept) >= most {
		v.more++
		return
	}
	if v.item {
		path := "requests[" + strconv.Itoa(v.place) + "]"
		if field != "" {
			path += "." + field
		}
		field = path
	}
	v.kept = append(v.kept, eligibility.Violation{Field: field, Description: description})
}

// limit drops, but counts, all violations beyond the first most.
func (v *Violations) limit(most int) {
	if excess := len(v.kept) - most; excess > 0 {
		v.kept, v.more = v.kept[:most], v.more+excess
	}
}

// Err is the error of a request with violations; nil if there are none.
func (v *Violations) Err() error {
	if len(v.kept) == 0 {
		return nil
	}
	named := v.kept
	if v.more > 0 {
		named = append(slices.Clip(named), eligibility.Violation{Description: "and " + strconv.Itoa(v.more) + " more"})
	}
	return &eligibility.Error{Kind: eligibility.KindInvalidArgument, Violations: named}
}
