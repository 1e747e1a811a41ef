package evidence_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Evidence fetched at once, by a batch or after a deployment, must not expire at
// once: all callers would turn to Partner Center in that moment.
func TestEntriesFilledAtOnceExpireOverAFifthOfTheirAge(t *testing.T) {
	t.Parallel()
	longest := eligibility.Age{Fresh: 48 * time.Hour, Usable: 48 * time.Hour}
	accountFirst, qualificationsFirst := eligibility.DefaultAges(), eligibility.DefaultAges()
	accountFirst.Qualifications, qualificationsFirst.Allowed = longest, longest
	for name, row := range map[string]struct {
		ages eligibility.Ages
		age  time.Duration // of the facet that expires first
	}{
		"account":        {accountFirst, accountFirst.Allowed.Fresh},
		"qualifications": {qualificationsFirst, qualificationsFirst.Qualifications.Fresh},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const entries, parts = 100_000, 20
			first, last := time.Duration(1<<62), time.Duration(0)
			var expiring [parts]int // how many in each part of the span from 0.9 to 1.1 ages
			for left := range freshFor(t, row.ages, entries) {
				first, last = min(first, left), max(last, left)
				part := int((left - row.age*9/10) * parts / (row.age/5 + time.Second))
				expiring[min(max(part, 0), parts-1)]++
			}
			if last-first < row.age/5 {
				t.Errorf("entries expire over %v, want at least a fifth of %v", last-first, row.age)
			}
			for part, n := range expiring {
				if even := entries / parts; n < even/2 || n > even*3/2 {
					t.Errorf("%d entries expire in part %d of %d, want about %d", n, part, parts, even)
				}
			}
		})
	}
}

// freshFor fills that many entries within a second and yields how long each is
// fresh, counted from the first.
func freshFor(t *testing.T, ages eligibility.Ages, entries int) func(yield func(time.Duration) bool) {
	t.Helper()
	filled, store := time.Unix(1_800_000_000, 0), newMemory()
	service, err := evidence.New(new(scripted), store, evidence.Config{
		Ages: ages, Now: func() time.Time { return filled.Add(time.Second) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(time.Duration) bool) {
		for i := range entries {
			req := eligibility.Request{Segment: eligibility.SegmentEducation}
			binary.BigEndian.PutUint32(req.CustomerID[12:], uint32(i))
			for _, out := range []outcome{
				status(eligibility.AccountStatusAllowed),
				holding(qualification(eligibility.QualificationEducation, eligibility.VettingApproved)),
			} {
				evidence := out.evidence
				if evidence.Status == eligibility.AccountStatusUnspecified {
					evidence.Facet = eligibility.FacetQualifications
				}
				evidence.FetchTime = filled.Add(time.Duration(i) * time.Second / time.Duration(entries))
				store.Put(eligibility.Key{CustomerID: req.CustomerID, Facet: evidence.Facet}, &evidence)
			}
			answer, err := service.Check(context.Background(), req)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(answer.ExpireTime.Sub(filled)) {
				return
			}
		}
	}
}
