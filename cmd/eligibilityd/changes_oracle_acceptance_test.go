//go:build acceptance

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// sighting is an account status that some answer has shown, with its evidence time.
type sighting struct {
	status   eligibilityv1.AccountStatus
	evidence int64 // Unix ms
}

// answers are what callers have been shown: all that watchers must receive.
type answers struct {
	mu sync.Mutex
	of map[string]map[sighting]bool // customer → sightings; guarded by mu
}

func (a *answers) see(resp *eligibilityv1.CheckEligibilityResponse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.of == nil {
		a.of = map[string]map[sighting]bool{}
	}
	if a.of[resp.GetCustomerId()] == nil {
		a.of[resp.GetCustomerId()] = map[sighting]bool{}
	}
	a.of[resp.GetCustomerId()][sighting{resp.GetAccountStatus(), resp.GetEvidenceTime().AsTime().UnixMilli()}] = true
}

// spell is a time in which answers about a customer showed one status: an evidence time
// of the change to it is after `after` and not after `until`.
type spell struct {
	status       eligibilityv1.AccountStatus
	after, until int64
}

// spells returns the spells of a customer in order. None of them may be missing.
func (a *answers) spells(customer string) (all []spell) {
	a.mu.Lock()
	defer a.mu.Unlock()
	shown := make([]sighting, 0, len(a.of[customer]))
	for one := range a.of[customer] {
		shown = append(shown, one)
	}
	slices.SortFunc(shown, func(x, y sighting) int { return cmp.Compare(x.evidence, y.evidence) })
	for i, one := range shown {
		if i == 0 || one.status != shown[i-1].status {
			after := int64(0)
			if i > 0 {
				after = shown[i-1].evidence
			}
			all = append(all, spell{status: one.status, after: after})
		}
		all[len(all)-1].until = one.evidence
	}
	return all
}

// customers returns the customers with an answer, in order.
func (a *answers) customers() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.of {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

// missing returns the spells that the changes of a watcher do not show, and the number
// of all. whole demands also that each change begins with the status with which the one
// before it ended: then nothing was lost that no answer has shown.
func (a *answers) missing(changes []received, whole bool) (lost []string, spells int) {
	of := map[string][]received{}
	for _, c := range changes {
		of[c.customer] = append(of[c.customer], c)
	}
	for _, customer := range a.customers() {
		got := of[customer]
		for _, s := range a.spells(customer) {
			spells++
			if !slices.ContainsFunc(got, func(c received) bool {
				return c.after == s.status && c.evidence > s.after && c.evidence <= s.until
			}) {
				lost = append(lost, fmt.Sprintf("%s %v between %d and %d", customer, s.status, s.after, s.until))
			}
		}
		for i, c := range got {
			if whole && (c.first != (i == 0) || i > 0 && c.before != got[i-1].after) {
				lost = append(lost, fmt.Sprintf("%s: before %d: from %v, first %t", customer, c.evidence, c.before, c.first))
			}
		}
	}
	return lost, spells
}

// some is the first of many faults.
func some(faults []string) string {
	return strings.Join(faults[:min(len(faults), 5)], "\n")
}

// The oracle finds each kind of loss.
func TestAcceptanceChangesOracle(t *testing.T) {
	t.Parallel()
	const allowed, blocked = eligibilityv1.AccountStatus_ACCOUNT_STATUS_ALLOWED, eligibilityv1.AccountStatus_ACCOUNT_STATUS_NOT_ALLOWED
	shown := &answers{of: map[string]map[sighting]bool{"a": {
		{allowed, 10}: true, {allowed, 20}: true, {blocked, 30}: true, {blocked, 40}: true, {allowed, 50}: true,
	}}}
	change := func(evidence int64, before, after eligibilityv1.AccountStatus) received {
		return received{customer: "a", first: before == 0, before: before, after: after, evidence: evidence}
	}
	for name, row := range map[string]struct {
		changes []received
		lost    int
	}{
		"all":                          {[]received{change(5, 0, allowed), change(30, allowed, blocked), change(45, blocked, allowed)}, 0},
		"a change that came late":      {[]received{change(10, 0, allowed), change(40, allowed, blocked), change(50, blocked, allowed)}, 0},
		"none":                         {nil, 3},
		"without the first":            {[]received{change(30, allowed, blocked), change(50, blocked, allowed)}, 2},
		"without one in the middle":    {[]received{change(10, 0, allowed), change(50, blocked, allowed)}, 2},
		"without two that cancel out":  {[]received{change(10, 0, allowed)}, 2},
		"without the last":             {[]received{change(10, 0, allowed), change(30, allowed, blocked)}, 1},
		"one that no answer has shown": {[]received{change(10, 0, allowed), change(25, blocked, allowed), change(30, allowed, blocked), change(50, blocked, allowed)}, 1},
		"one that came after its time": {[]received{change(10, 0, allowed), change(41, allowed, blocked), change(50, blocked, allowed)}, 1},
	} {
		lost, spells := shown.missing(row.changes, true)
		if len(lost) != row.lost || spells != 3 {
			t.Errorf("%s: %d of %d are missing, want %d: %s", name, len(lost), spells, row.lost, some(lost))
		}
	}
}
