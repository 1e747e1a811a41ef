package eligibility_test

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

var (
	decideValues = flag.Int("decide.values", defaultDecideValues, "questions that TestDecide generates")
	decideSeed   = flag.Uint64("decide.seed", 0, "seed of TestDecide; 0 chooses one")
)

// base is when the generated evidence is fetched, about.
var base = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clockEpoch is the origin of the wall reading of a time with both readings.
var clockEpoch = time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// clockReading returns a time with both readings, of which a clock that is set
// back moves only the first. The time package offers no way to choose both, so
// its layout is used: a flag, the seconds since 1885, the nanoseconds; then the
// monotonic reading.
func clockReading(wall time.Time, monotonic time.Duration) time.Time {
	words := (*[2]uint64)(unsafe.Pointer(&wall))                                      //nolint:gosec // see above
	words[0] = 1<<63 | uint64(wall.Unix()-clockEpoch)<<30 | uint64(wall.Nanosecond()) //nolint:gosec // not negative
	words[1] = uint64(monotonic) + 1                                                  //nolint:gosec // not negative
	return wall
}

// decideGenerator generates questions and what is held about them.
type decideGenerator struct{ *rand.Rand }

func (g decideGenerator) oneIn(n int) bool { return g.IntN(n) == 0 }

// around returns a duration of up to span either side of 0: often 0 or a
// nanosecond, at which the comparisons change.
func (g decideGenerator) around(span time.Duration) time.Duration {
	if g.oneIn(2) {
		return time.Duration(g.IntN(3) - 1)
	}
	return time.Duration(g.Int64N(int64(2*span))) - span
}

func (g decideGenerator) age() eligibility.Age {
	fresh := time.Duration(1+g.IntN(2000)) * time.Second
	return eligibility.Age{Fresh: fresh, Usable: fresh + time.Duration(g.IntN(3)*g.IntN(90_000))*time.Second}
}

func (g decideGenerator) ages() eligibility.Ages {
	if g.oneIn(2) {
		return eligibility.DefaultAges()
	}
	return eligibility.Ages{
		Allowed: g.age(), NoStatus: g.age(), Pending: g.age(), NotAllowed: g.age(),
		Qualifications: g.age(), QualificationsInReview: g.age(),
	}
}

func (g decideGenerator) qualification(segment eligibility.Segment) eligibility.Qualification {
	q := eligibility.Qualification{
		Type:          eligibility.QualificationType(g.IntN(int(eligibility.QualificationStateOwnedEntity) + 1)), //nolint:gosec // a small constant
		VettingStatus: eligibility.VettingStatus(g.IntN(int(eligibility.VettingUnrecognized) + 1)),               //nolint:gosec // a small constant
	}
	if needed, known := segmentTable[segment]; known && !g.oneIn(4) {
		q.Type = needed
	}
	if !g.oneIn(4) {
		q.VettingCreatedTime = base.AddDate(0, 0, -g.IntN(4))
	}
	return q
}

// held generates what is held about one facet at a time near asked. It reports
// a lifetime that contradicts the table.
func (g decideGenerator) held(t *testing.T, key eligibility.Key, q *question, asked time.Time, monotonic time.Duration) eligibility.Held { //nolint:thelper // t.Helper would cost more than the question
	held := eligibility.Held{
		Tier: eligibility.Tier(g.IntN(4)), Fresh: g.oneIn(2), Fetched: g.oneIn(4), //nolint:gosec // below 4
		Call: eligibility.Call{Attempts: g.IntN(3)},
	}
	if g.oneIn(3) {
		held.Err = &eligibility.Error{
			Kind:       eligibility.Kind(g.IntN(int(eligibility.KindCanceled) + 1)), //nolint:gosec // a small constant
			RetryAfter: time.Duration(g.IntN(3)) * 7 * time.Second,
		}
	}
	if g.oneIn(8) {
		return held
	}
	evidence := &eligibility.Evidence{Facet: key.Facet}
	switch {
	case g.oneIn(10):
		evidence.Absence = eligibility.AbsenceNotFound + eligibility.Absence(g.IntN(2)) //nolint:gosec // a small constant
	case key.Facet == eligibility.FacetQualifications:
		for range g.IntN(5) {
			evidence.Qualifications = append(evidence.Qualifications, g.qualification(q.segment))
		}
	case g.oneIn(50):
		evidence.Status = 200
	case g.oneIn(3):
		evidence.Status = eligibility.AccountStatusAllowed
	default:
		evidence.Status = eligibility.AccountStatus(g.IntN(int(eligibility.AccountStatusUnrecognized) + 1)) //nolint:gosec // a small constant
	}
	elapsed := time.Duration(g.Int64N(int64(4 * time.Hour)))
	evidence.FetchTime = asked.Round(0).Add(-elapsed).Truncate(time.Millisecond)
	held.Evidence, held.Lifetime = evidence, q.ages.LifetimeOf(key, evidence, q.policy, q.operation, asked)
	checkLifetime(t, q, evidence, held.Lifetime)
	if g.oneIn(2) {
		g.ownEvidence(t, key, q, &held, asked, monotonic, elapsed)
	}
	return held
}

// ownEvidence makes the evidence one that this process fetched, whose clock may
// have been set since: it is older by as much as the clock was set back, beyond
// the tolerance.
func (g decideGenerator) ownEvidence(t *testing.T, key eligibility.Key, q *question, held *eligibility.Held, asked time.Time, monotonic, elapsed time.Duration) { //nolint:thelper // t.Helper would cost more than the question
	setBack := time.Duration(0)
	switch g.IntN(3) {
	case 0:
		setBack = eligibility.ClockTolerance + g.around(2*eligibility.ClockTolerance)
	case 1:
		setBack = g.around(2 * time.Hour)
	}
	elapsed += max(setBack, -elapsed)
	start := clockReading(asked.Round(0).Add(setBack-elapsed), monotonic-elapsed)
	evidence := *held.Evidence
	evidence.SetFetchTime(start)
	if !evidence.FetchTime.Equal(start.Round(0).Truncate(time.Millisecond)) {
		t.Fatalf("fetch time %v of a fetch at %v", evidence.FetchTime, start)
	}
	moment := clockReading(start.Round(0).Add(g.around(time.Second)), monotonic-elapsed+g.around(time.Second))
	since := !start.Round(0).Before(moment.Round(0)) && !start.Before(moment)
	if evidence.FetchedSince(moment) != since || held.Evidence.FetchedSince(moment) != !held.Evidence.FetchTime.Add(-time.Second).Before(moment.Round(0)) {
		t.Fatalf("fetched at %v, since %v: %t; another replica at %v: %t", start, moment, evidence.FetchedSince(moment),
			held.Evidence.FetchTime, held.Evidence.FetchedSince(moment))
	}
	// The same fetch, if another replica made it, has the same lifetime.
	copied := evidence
	life := q.ages.LifetimeOf(key, &copied, q.policy, q.operation, asked)
	copied = eligibility.Evidence{
		Facet: evidence.Facet, Absence: evidence.Absence, Status: evidence.Status, Qualifications: evidence.Qualifications, FetchTime: evidence.FetchTime,
	}
	others := q.ages.LifetimeOf(key, &copied, q.policy, q.operation, asked)
	older := time.Duration(0)
	if setBack > eligibility.ClockTolerance {
		older = setBack
	}
	if !life.FreshUntil.Equal(others.FreshUntil.Add(-older)) || !life.UsableUntil.Equal(others.UsableUntil.Add(-older)) {
		t.Fatalf("set back by %v: lifetime %+v, another replica's %+v", setBack, life, others)
	}
	held.Evidence, held.Lifetime = &evidence, life
}

// checkLifetime compares the lifetime with the configured age and its jitter.
func checkLifetime(t *testing.T, q *question, evidence *eligibility.Evidence, life eligibility.Lifetime) { //nolint:thelper // t.Helper would cost more than the question
	age := ageOracle(&q.ages, evidence, q.policy, q.operation)
	fresh, usable := life.FreshUntil.Sub(evidence.FetchTime), life.UsableUntil.Sub(evidence.FetchTime)
	if usable < age.Usable*9/10 || usable > age.Usable || fresh < min(age.Fresh*9/10, usable) || fresh > min(age.Fresh*11/10, usable) {
		t.Fatalf("%+v: fresh for %v, usable for %v, want %+v and 10 %% jitter", evidence, fresh, usable, age)
	}
	if keep := q.ages.KeepUntil(evidence); keep.Before(life.UsableUntil) || fresh > q.ages.LongestFresh() {
		t.Fatalf("%+v: usable until %v but kept until %v; fresh for %v, at most %v", evidence, life.UsableUntil, keep, fresh, q.ages.LongestFresh())
	}
}

// question is one generated question with what is held about it.
type question struct {
	policy         eligibility.Policy
	ages           eligibility.Ages
	segment        eligibility.Segment
	operation      eligibility.Operation
	account        eligibility.Held
	qualifications eligibility.Held
	now            time.Time
}

func (g decideGenerator) question(t *testing.T) *question { //nolint:thelper // t.Helper would cost more than the question
	q := &question{
		policy:    eligibility.Policy{NotReadyAllowed: g.oneIn(2), AllowReducing: g.oneIn(2), BlockUndecidable: g.oneIn(2)},
		segment:   eligibility.Segment(g.IntN(int(eligibility.SegmentNonprofit) + 1)),        //nolint:gosec // one of a few
		operation: eligibility.Operation(g.IntN(int(eligibility.OperationCancellation) + 2)), //nolint:gosec // one of a few, and one that is unknown
		ages:      g.ages(),
	}
	if g.oneIn(50) {
		q.segment = 9
	}
	monotonic := 100 * time.Hour
	asked := clockReading(base.Add(time.Duration(g.Int64N(int64(time.Hour)))), monotonic)
	key := eligibility.Key{CustomerID: eligibility.CustomerID{byte(g.Uint32()), 8: byte(g.Uint32())}} //nolint:gosec // any byte
	q.account = g.held(t, key, q, asked, monotonic)
	key.Facet = eligibility.FacetQualifications
	q.qualifications = g.held(t, key, q, asked, monotonic)
	q.now = asked
	if ends := []time.Time{
		q.account.Lifetime.FreshUntil, q.account.Lifetime.UsableUntil,
		q.qualifications.Lifetime.FreshUntil, q.qualifications.Lifetime.UsableUntil,
	}; !g.oneIn(3) {
		if end := ends[g.IntN(len(ends))]; !end.IsZero() {
			q.now = end.Add(g.around(time.Minute))
		}
	}
	return q
}

// check compares Decide's answer with the oracle's.
func (q *question) check(t *testing.T) eligibility.Decision { //nolint:thelper // t.Helper would cost more than the question
	now := q.now.UnixNano()
	account, qualifications := newFacetOracle(q.account, now), newFacetOracle(q.qualifications, now)
	want := decideOracle(q.policy, q.segment, q.operation, &account, &qualifications, now)
	answer, err := eligibility.Decide(q.policy, q.segment, q.operation, q.account, q.qualifications, q.now)
	got := verdict{
		decision: answer.Decision, evidence: nanos(answer.EvidenceTime), expire: nanos(answer.ExpireTime),
		recheck: nanos(answer.RecheckTime), tier: answer.Tier, stale: answer.Stale,
	}
	copy(got.reasons[:], answer.Reasons)
	if err != nil {
		got.failure = err.(*eligibility.Error).Kind //nolint:errorlint // as documented
	}
	if got != want || len(answer.Reasons) > len(got.reasons) {
		t.Fatalf("%+v\ngot  %+v\nwant %+v", q, got, want)
	}
	for _, evidence := range []*eligibility.Evidence{q.account.Evidence, q.qualifications.Evidence} {
		if evidence != nil && q.policy.Blocks(q.segment, q.operation, evidence) != blocksOracle(q.policy, q.segment, q.operation, evidence) {
			t.Fatalf("%+v: %+v blocks: %t", q, evidence, q.policy.Blocks(q.segment, q.operation, evidence))
		}
	}
	needs := asksForQualification(q.policy, q.segment, q.operation) && q.account.Evidence != nil && !blocksOracle(q.policy, q.segment, q.operation, q.account.Evidence)
	if q.policy.NeedsQualifications(q.segment, q.operation, q.account.Evidence) != needs {
		t.Fatalf("%+v: qualifications needed: %t", q, !needs)
	}
	if err != nil {
		return answer.Decision
	}
	if account.usable != (answer.Account != nil) || (qualifications.usable && !qualifications.absent) != (answer.Qualifications != nil) {
		t.Fatalf("%+v\nanswers on %+v and %+v", q, answer.Account, answer.Qualifications)
	}
	return answer.Decision
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// TestDecide compares Decide, the ages and the tolerance for clocks with an
// independent statement of the contract, over generated questions.
func TestDecide(t *testing.T) { //nolint:tparallel // the workers are parallel; their group waits for them
	t.Parallel()
	seed := *decideSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	const chunk = 10_000 // a seed of its own for each, so that any number of workers generates the same
	var next, allowed, blocked atomic.Int64
	t.Run("workers", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("worker", func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1) - 1; n*chunk < int64(*decideValues); n = next.Add(1) - 1 {
					g := decideGenerator{rand.New(rand.NewPCG(seed, uint64(n)))} //nolint:gosec // no secret, and not negative
					for range chunk {
						switch g.question(t).check(t) {
						case eligibility.DecisionAllowed:
							allowed.Add(1)
						case eligibility.DecisionBlocked:
							blocked.Add(1)
						case eligibility.DecisionNone:
						}
					}
				}
			})
		}
	})
	t.Logf("%d questions from seed %d: %d allowed, %d blocked", *decideValues, seed, allowed.Load(), blocked.Load())
	if few := int64(*decideValues / 50); allowed.Load() < few || blocked.Load() < few {
		t.Error("the generator hardly reaches one of the decisions")
	}
}

// Every list of up to four entries of one qualification, with each status and
// each of no date and three dates, in every order.
func TestDecideOverEveryHistoryOfAQualification(t *testing.T) {
	t.Parallel()
	var entries []eligibility.Qualification
	for vetting := eligibility.VettingUnspecified; vetting <= eligibility.VettingUnrecognized; vetting++ {
		entry := eligibility.Qualification{Type: eligibility.QualificationEducation, VettingStatus: vetting}
		entries = append(entries, entry)
		for day := range 3 {
			entry.VettingCreatedTime = base.AddDate(0, 0, day)
			entries = append(entries, entry)
		}
	}
	life := eligibility.Lifetime{FreshUntil: base.Add(time.Minute), UsableUntil: base.Add(time.Minute)}
	account := eligibility.Held{Evidence: &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, FetchTime: base}, Lifetime: life}
	var try func(held []eligibility.Qualification)
	try = func(held []eligibility.Qualification) {
		qualifications := eligibility.Held{
			Evidence: &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: held, FetchTime: base}, Lifetime: life,
		}
		answer, err := eligibility.Decide(eligibility.Policy{}, eligibility.SegmentEducation, eligibility.OperationPurchase, account, qualifications, base)
		if err != nil {
			t.Fatal(err)
		}
		want := segmentOracle(eligibility.SegmentEducation, held)
		if got := answer.Reasons[1].Code; got != want {
			t.Fatalf("%+v: %s, want %s", held, got, want)
		}
		if allowed := answer.Decision == eligibility.DecisionAllowed; allowed != (want == eligibility.ReasonQualificationApproved) {
			t.Fatalf("%+v: decision %d for %s", held, answer.Decision, want)
		}
		if len(held) < 4 {
			for _, entry := range entries {
				try(append(slices.Clone(held), entry))
			}
		}
	}
	try(nil)
}

// The jitter reaches both ends of its span.
func TestJitterSpreadsTheAges(t *testing.T) {
	t.Parallel()
	ages := eligibility.DefaultAges()
	evidence := &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, FetchTime: base}
	shortest, longest := time.Hour, time.Duration(0)
	for i := range 10_000 {
		key := eligibility.Key{CustomerID: eligibility.CustomerID{byte(i), byte(i / 256)}}
		fresh := ages.LifetimeOf(key, evidence, eligibility.Policy{}, eligibility.OperationPurchase, base).FreshUntil.Sub(base)
		shortest, longest = min(shortest, fresh), max(longest, fresh)
	}
	if shortest != 9*time.Minute || longest != 11*time.Minute {
		t.Errorf("fresh for %v to %v, want 9 to 11 minutes", shortest, longest)
	}
}
