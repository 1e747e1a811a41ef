package evidence_test

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// witness is a Source that answers at random and remembers every answer it
// gave, so that a decision can be compared with the answers.
type witness struct {
	mu   sync.Mutex
	now  time.Time
	slow time.Duration // how long an answer takes, by the clock
	next map[eligibility.Facet]outcome
	said []testimony
}

type testimony struct {
	facet eligibility.Facet
	at    time.Time
	other bool // another replica fetched it, by its own clock
	outcome
}

// clock advances a little with each reading.
func (w *witness) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(50 * time.Microsecond)
	return w.now
}

func (w *witness) Fetch(_ context.Context, query evidence.Query) (eligibility.Evidence, eligibility.Call, error) {
	facet := query.Facet
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.next[facet]
	query.Started()
	w.said = append(w.said, testimony{facet: facet, at: w.now, outcome: out})
	w.now = w.now.Add(w.slow)
	return out.evidence, eligibility.Call{}, out.err
}

func (w *witness) Room(context.Context, evidence.Lane) int { return math.MaxInt }

func (*witness) Obstacles(context.Context) []evidence.Obstacle { return nil }

// elsewhere has another replica fetch an answer, at a time by its own clock, and
// share it.
func (w *witness) elsewhere(store *memory, facet eligibility.Facet, out outcome, at time.Time) {
	if out.err != nil {
		return
	}
	w.mu.Lock()
	w.said = append(w.said, testimony{facet: facet, at: at, other: true, outcome: out})
	w.mu.Unlock()
	evidence := out.evidence
	evidence.Facet, evidence.FetchTime = facet, at
	store.mu.Lock()
	defer store.mu.Unlock()
	key := eligibility.Key{CustomerID: customer, Facet: facet}
	if old := store.shared[key]; old == nil || old.FetchTime.Before(at) {
		store.shared[key] = &evidence
	}
}

// asFresh reports whether an allowing answer for facet satisfies max_age: given at
// the time or later, or to another replica a second later.
func (w *witness) asFresh(facet eligibility.Facet, since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.said {
		if t.facet == facet && t.err == nil && (!t.other && !t.at.Before(since) || t.other && !t.at.Before(since.Add(time.Second))) {
			return true
		}
	}
	return false
}

// supports reports whether an allowing answer for facet was given within age
// before now and no earlier than minimum.
func (w *witness) supports(facet eligibility.Facet, now, minimum time.Time, age time.Duration, allows func(eligibility.Evidence) bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.said {
		if t.facet == facet && t.err == nil && t.evidence.Absence == eligibility.AbsenceNone &&
			!t.at.Before(minimum) && !(t.other && t.at.After(now.Add(time.Second))) && now.Sub(t.at) <= age && allows(t.evidence) {
			return true
		}
	}
	return false
}

var neededBy = map[eligibility.Segment]eligibility.QualificationType{
	eligibility.SegmentEducation:  eligibility.QualificationEducation,
	eligibility.SegmentGovernment: eligibility.QualificationGovernmentCommunityCloud,
	eligibility.SegmentNonprofit:  eligibility.QualificationNonprofit,
}

// The safety rule, above all others: ALLOWED implies an allowing account
// answer within its age (and, for a segment, an approved qualification within
// its own), whatever was answered, failed, expired or configured.
func TestAllowedImpliesAnAllowingAnswerWithinItsAge(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := &witness{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), next: map[eligibility.Facet]outcome{}}
		ages := drawAges(rt)
		notReadyAllowed := rapid.Bool().Draw(rt, "not_ready allow")
		allowReducing := rapid.Bool().Draw(rt, "allow_reducing")
		store := newMemory()
		service, stop := serve(t, w, store, evidence.Config{
			Policy: eligibility.Policy{
				AllowReducing:    allowReducing,
				NotReadyAllowed:  notReadyAllowed,
				BlockUndecidable: rapid.Bool().Draw(rt, "undecidable block"),
			},
			QualificationsGrace: time.Second,
			Ages:                ages,
			Now:                 w.clock,
		})
		defer stop()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			for service.FetchesInFlight()+service.RefreshesInFlight() > 0 { // of a caller that left: it moves the clock
				runtime.Gosched()
			}
			w.mu.Lock()
			w.now = w.now.Add(time.Duration(rapid.IntRange(-60, 5400).Draw(rt, "seconds")) * time.Second)
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 2e6).Draw(rt, "ns")))
			w.slow = time.Duration(rapid.SampledFrom([]int{0, 0, 1, 9, 3600}).Draw(rt, "slow")) * time.Second
			w.next[eligibility.FacetAccount] = drawAccount(rt)
			w.next[eligibility.FacetQualifications] = drawQualifications(rt)
			w.mu.Unlock()
			store.mu.Lock()
			store.mustRevalidate = rapid.Bool().Draw(rt, "untrusted")
			store.mu.Unlock()

			now := w.clock()
			if rapid.IntRange(0, 2).Draw(rt, "another replica") == 0 {
				skew := time.Duration(rapid.IntRange(-5000, 1500).Draw(rt, "dated")) * time.Millisecond
				w.elsewhere(store, eligibility.FacetAccount, drawAccount(rt), now.Add(skew))
				w.elsewhere(store, eligibility.FacetQualifications, drawQualifications(rt), now.Add(skew))
			}
			req := drawRequest(rt, now)
			ctx, cancel := context.WithCancel(context.Background())
			if rapid.IntRange(0, 4).Draw(rt, "caller") == 0 {
				cancel()
			}
			var basis eligibility.Basis
			req.Basis = &basis
			answer, err := service.Check(ctx, req)
			cancel()
			if err != nil && answer.Decision != eligibility.DecisionNone {
				rt.Fatalf("both a decision and an error: %v, %v", answer.Decision, err)
			}
			if answer.Decision != eligibility.DecisionAllowed {
				continue
			}
			if req.MaxAgeSet && !answer.Stale {
				for _, facet := range []eligibility.Facet{eligibility.FacetAccount, eligibility.FacetQualifications}[:len(answer.Reasons)] {
					if !w.asFresh(facet, now.Add(-req.MaxAge)) {
						rt.Fatalf("ALLOWED and not stale, although nothing about the %s satisfies max_age: %+v", facet, answer)
					}
				}
			}
			// The moment of the answer counts. Fetches that the caller did not wait for move
			// the clock after it.
			if basis.Time.Before(now) || basis.Time.After(w.clock()) {
				rt.Fatalf("asked at %v, answered at %v, which is not before %v", now, basis.Time, w.clock())
			}
			now = basis.Time
			allowed := w.supports(eligibility.FacetAccount, now, req.MinEvidenceTime, ages.Allowed.Usable, func(e eligibility.Evidence) bool {
				return e.Status == eligibility.AccountStatusAllowed || notReadyAllowed && e.Status == eligibility.AccountStatusNotReady
			})
			noStatus := w.supports(eligibility.FacetAccount, now, req.MinEvidenceTime, ages.NoStatus.Usable, func(e eligibility.Evidence) bool {
				return e.Status == eligibility.AccountStatusNone
			})
			exempt := allowReducing && req.Operation >= eligibility.OperationRenewal
			underReview := exempt && w.supports(eligibility.FacetAccount, now, req.MinEvidenceTime, min(ages.Pending.Usable, ages.Allowed.Usable), func(e eligibility.Evidence) bool {
				return e.Status == eligibility.AccountStatusUnderReview
			})
			if !allowed && !noStatus && !underReview {
				rt.Fatalf("ALLOWED without an allowing account answer within its age: %+v", answer)
			}
			if needed, asks := neededBy[req.Segment]; asks && !exempt && !w.supports(eligibility.FacetQualifications, now, req.MinEvidenceTime, max(ages.Qualifications.Usable, ages.QualificationsInReview.Usable), func(e eligibility.Evidence) bool {
				for _, q := range e.Qualifications {
					if q.Type == needed && q.VettingStatus == eligibility.VettingApproved {
						return true
					}
				}
				return false
			}) {
				rt.Fatalf("ALLOWED for segment %d without an approved qualification within its age: %+v", req.Segment, answer)
			}
		}
	})
}

func drawAges(rt *rapid.T) eligibility.Ages {
	age := func(label string) eligibility.Age {
		fresh := time.Duration(rapid.IntRange(1, 3600).Draw(rt, label+" fresh")) * time.Second
		return eligibility.Age{Fresh: fresh, Usable: fresh + time.Duration(rapid.IntRange(0, 7200).Draw(rt, label+" usable"))*time.Second}
	}
	return eligibility.Ages{
		Allowed: age("allowed"), NoStatus: age("no status"), Pending: age("pending"), NotAllowed: age("not allowed"),
		Qualifications: age("qualifications"), QualificationsInReview: age("in review"),
	}
}

func drawAccount(rt *rapid.T) outcome {
	if failure, failed := drawFailure(rt, "account fails"); failed {
		return failure
	}
	return status(eligibility.AccountStatus(rapid.IntRange(0, 9).Draw(rt, "status"))) //nolint:gosec // small
}

func drawQualifications(rt *rapid.T) outcome {
	if failure, failed := drawFailure(rt, "qualifications fail"); failed {
		return failure
	}
	held := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) eligibility.Qualification {
		q := qualification(
			eligibility.QualificationType(rapid.IntRange(0, 5).Draw(rt, "type")), //nolint:gosec // small
			eligibility.VettingStatus(rapid.IntRange(0, 5).Draw(rt, "vetting")),  //nolint:gosec // small
		)
		if rapid.Bool().Draw(rt, "dated") {
			q.VettingCreatedTime = time.Unix(int64(rapid.IntRange(0, 3).Draw(rt, "date")), 0)
		}
		return q
	}), 0, 4).Draw(rt, "held")
	return holding(held...)
}

func drawFailure(rt *rapid.T, label string) (outcome, bool) {
	switch n := rapid.IntRange(0, 11).Draw(rt, label); {
	case n < int(eligibility.KindCanceled)-5:
		return failing(eligibility.Kind(n + int(eligibility.KindNotServed) + 1)), true //nolint:gosec // small
	case n == 10:
		return absent(eligibility.AbsenceNotFound), true
	case n == 11:
		return absent(eligibility.AbsenceNotServed), true
	default:
		return outcome{}, false
	}
}

func drawRequest(rt *rapid.T, now time.Time) eligibility.Request {
	req := eligibility.Request{
		CustomerID: customer,
		Segment:    eligibility.Segment(rapid.IntRange(0, 4).Draw(rt, "segment")),     //nolint:gosec // small
		Operation:  eligibility.Operation(rapid.IntRange(0, 5).Draw(rt, "operation")), //nolint:gosec // small
	}
	if rapid.Bool().Draw(rt, "max_age set") {
		req.MaxAgeSet = true
		req.MaxAge = time.Duration(rapid.IntRange(0, 7200).Draw(rt, "max_age")) * time.Second
	}
	if rapid.Bool().Draw(rt, "min_evidence_time set") {
		req.MinEvidenceTime = now.Add(-time.Duration(rapid.IntRange(0, 7200).Draw(rt, "min_evidence_age")) * time.Second)
	}
	return req
}
