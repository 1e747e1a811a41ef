package budget

import (
	"math"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

func TestMain(m *testing.M) {
	// go-redis takes a second to notice that a client was closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// Whatever is asked, and whenever, no minute has more calls than the budget, booked
// ones counted when they are made.
func TestNoMinuteExceedsTheBudget(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]time.Duration{"budget": window, "guard": guardWindow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { noMinuteExceeds(t, window) })
		})
	}
}

func noMinuteExceeds(t *rapid.T, window time.Duration) {
	perMinute := rapid.IntRange(1, 120).Draw(t, "budget")
	s := State{window: window}
	var calls []float64
	now := float64(0)
	busy := rapid.Bool().Draw(t, "busy")
	for range rapid.IntRange(1, 400).Draw(t, "steps") {
		step := Step{Kind: KindTake, PerMinute: float64(perMinute), Lane: evidence.LaneCheckout}
		if !busy {
			step.Lane = evidence.Lane(rapid.IntRange(0, evidence.Lanes-1).Draw(t, "lane")) //nolint:gosec // small
		}
		if step.Lane == evidence.LaneCheckout && rapid.Bool().Draw(t, "books") {
			step.Book = maxBooking
		}
		if rapid.IntRange(0, 99).Draw(t, "429") == 99 {
			step = Step{Kind: KindPause, PerMinute: float64(perMinute), Pause: time.Duration(rapid.IntRange(0, 90).Draw(t, "asked")) * time.Second}
		}
		reply := s.Do(now, step)
		if reply.Granted {
			calls = append(calls, now+micros(reply.Wait))
		}
		switch {
		case !reply.Granted && busy: // comes back as soon as it helps
			now += micros(reply.Wait + reply.Paused)
		case !busy:
			now += float64(rapid.IntRange(0, 5_000_000).Draw(t, "pause between"))
		}
	}
	slices.Sort(calls)
	for i := perMinute; i < len(calls); i++ {
		if calls[i]-calls[i-perMinute] < 60_000_000 {
			t.Fatalf("budget %d: calls %d to %d within %.6f s", perMinute, i-perMinute, i, (calls[i]-calls[i-perMinute])/1e6)
		}
	}
}

// Whatever else is asked, no minute has more calls in LaneReview than its share, and
// none more of all lanes than the budget.
func TestNoMinuteExceedsTheShareOfReviews(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		perMinute, share := float64(rapid.IntRange(1, 600).Draw(t, "budget")), rapid.Float64Range(0.01, 1).Draw(t, "share")
		s := NewState()
		var calls, all []float64
		now := float64(0)
		reviews := rapid.IntRange(1, 10).Draw(t, "reviews in ten")
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			step := Step{Kind: KindTake, PerMinute: perMinute, ReviewShare: share, Lane: evidence.LaneReview}
			if rapid.IntRange(1, 10).Draw(t, "lane") > reviews {
				step.Lane = evidence.LaneCheckout
			}
			if rapid.IntRange(0, 199).Draw(t, "429") == 199 {
				step = Step{Kind: KindPause, PerMinute: perMinute, ReviewShare: share, Pause: time.Duration(rapid.IntRange(0, 90).Draw(t, "asked")) * time.Second}
			}
			reply := s.Do(now, step)
			if reply.Granted {
				all = append(all, now)
				if step.Lane == evidence.LaneReview {
					calls = append(calls, now)
				}
			}
			if rapid.Bool().Draw(t, "waits") {
				now += micros(reply.Wait + reply.Paused)
			}
		}
		within := func(what string, calls []float64, most int) {
			for i := most; i < len(calls); i++ {
				if calls[i]-calls[i-most] < 60_000_000 {
					t.Fatalf("budget %v, share %v: %d calls of %s within %.6f s, want at most %d", perMinute, share, most+1, what, (calls[i]-calls[i-most])/1e6, most)
				}
			}
		}
		within("reviews", calls, max(int(math.Ceil(perMinute*share)), 1))
		within("all lanes", all, int(perMinute))
	})
}

// Reviews of a fleet that has nothing else to do use their share, within two points of
// the budget in force; with callers who use the rest as well.
func TestReviewsUseTheirShare(t *testing.T) {
	t.Parallel()
	for _, perMinute := range []float64{30, 60, 300, 400, 4000} {
		for _, factor := range []float64{whole, 500_000} {
			for _, checkouts := range []bool{false, true} {
				s := NewState()
				s.Do(0, Step{PerMinute: perMinute})
				reviews, others, next := 0, 0, 0.0
				const minutes = 10
				for now := float64(0); now < minutes*60_000_000; now += 5_000 {
					s.factor = factor // a wait makes it grow
					if s.Do(now, Step{Kind: KindTake, PerMinute: perMinute, ReviewShare: 0.2, Lane: evidence.LaneReview}).Granted {
						reviews++
					}
					if checkouts && now >= next && s.Do(now, Step{Kind: KindTake, PerMinute: perMinute, ReviewShare: 0.2, Lane: evidence.LaneCheckout}).Granted {
						others++
						next += 60_000_000 / (perMinute * factor / whole * 0.6)
					}
				}
				inForce := perMinute * factor / whole * minutes
				if part := float64(reviews) / inForce * 100; part < 18 || part > 22 {
					t.Errorf("budget %v, factor %v, callers %v: reviews use %.1f %% (%d), others %d", perMinute, factor, checkouts, part, reviews, others)
				}
			}
		}
	}
}

// A busy fleet uses nine tenths of its budget, and a fleet that was idle all of it.
func TestTheBudgetIsUsed(t *testing.T) {
	t.Parallel()
	for perMinute, least := range map[int]int{1: 1, 5: 5, 10: 10, 40: 39, 300: 295, 400: 393, 100_000: 98_000} {
		s := State{window: window}
		calls := 0
		step := Step{Kind: KindTake, PerMinute: float64(perMinute), Lane: evidence.LaneCheckout}
		for now := float64(0); now < 60_000_000; {
			if reply := s.Do(now, step); reply.Granted {
				calls++
			} else {
				now += micros(reply.Wait)
			}
		}
		if calls < least || calls > perMinute {
			t.Errorf("budget %d: %d calls in the first minute, want %d or more", perMinute, calls, least)
		}
	}
}

// A wait that is stated is exact: then the call is admitted, and no earlier.
func TestARefusalStatesTheExactWait(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := State{window: window}
		perMinute := rapid.Float64Range(0.5, 2000).Draw(t, "budget")
		lane := evidence.Lane(rapid.IntRange(0, evidence.Lanes-1).Draw(t, "lane")) //nolint:gosec // small
		step := Step{Kind: KindTake, PerMinute: perMinute, Lane: lane}
		now := float64(rapid.IntRange(0, 1<<40).Draw(t, "now"))
		reply := s.Do(now, step)
		for range 3000 {
			if !reply.Granted {
				break
			}
			reply = s.Do(now, step)
		}
		if reply.Wait >= MaxPause {
			return // never, with this burst
		}
		if early := s.Do(now+micros(reply.Wait)-1, step); early.Granted || early.Wait != time.Microsecond {
			t.Fatalf("%+v, and a microsecond before its end %+v", reply, early)
		}
		if late := s.Do(now+micros(reply.Wait), step); !late.Granted {
			t.Fatalf("%+v, and at its end %+v", reply, late)
		}
	})
}

// Only the spare lane may have no room at all.
func TestNoLaneButSpareStarves(t *testing.T) {
	t.Parallel()
	for perMinute := 1; perMinute < 500; perMinute++ {
		for factor := float64(minFactor); factor <= whole; factor += minFactor {
			l := limitsOf(float64(perMinute), factor, window)
			for lane := evidence.LaneReview; lane <= evidence.LaneCheckout; lane++ {
				if l.reserve(lane)+l.interval > l.depth {
					t.Fatalf("budget %d, factor %v: %v never", perMinute, factor, lane)
				}
			}
		}
	}
}

// Factors are never outside of a tenth and one, a pause is never shortened, and
// nothing is admitted in it, or saved up for its end.
func TestPausesAndFactors(t *testing.T) {
	t.Parallel()
	s := State{window: window}
	second := micros(time.Second)
	take := Step{Kind: KindTake, PerMinute: 300, Lane: evidence.LaneCheckout}
	pause := func(d time.Duration) Step { return Step{Kind: KindPause, PerMinute: 300, Pause: d} }
	if got := s.Do(0, pause(30*time.Second)); got.Factor != 700_000 || got.Paused != 30*time.Second {
		t.Fatalf("first 429: %+v", got)
	}
	for _, asked := range []time.Duration{time.Second, 40 * time.Second, 20 * time.Second} {
		if got := s.Do(10*second, pause(asked)); got.Factor != 700_000 {
			t.Errorf("cut again within one pause: %+v", got)
		}
	}
	if got := s.Do(49*second, take); got.Granted || got.Paused != time.Second {
		t.Errorf("in the pause, which the second 429 prolonged: %+v", got)
	}
	got := s.Do(50*second, take)
	if got.Granted || got.Paused != 0 || got.Wait != duration(limitsOf(300, 700_000, window).interval) {
		t.Errorf("at the end of the pause: %+v, want one interval more", got)
	}
	for i := range 20 {
		s.Do((100+float64(i)*100)*second, pause(time.Second))
	}
	if got := s.Do(5000*second, take); got.Factor != minFactor {
		t.Errorf("after twenty 429s: %+v, want a tenth", got)
	}
	if got := s.Do(6000*second, pause(time.Hour)); got.Paused != MaxPause {
		t.Errorf("an hour's pause: %+v", got)
	}
}

// The factor grows by 2 % of the budget a minute while calls have to wait, and only
// then.
func TestGrowth(t *testing.T) {
	t.Parallel()
	const perMinute = 300
	grown := func(lane evidence.Lane, every time.Duration) int {
		s := State{window: window}
		s.Do(0, Step{Kind: KindPause, PerMinute: perMinute, Pause: time.Second})
		before := int(s.factor)
		start := micros(time.Second)
		for now := start; now <= start+micros(10*time.Minute); now += micros(every) {
			for range 60 { // more than the budget has
				s.Do(now, Step{Kind: KindTake, PerMinute: perMinute, Lane: lane})
			}
		}
		return int(s.factor) - before
	}
	if got := grown(evidence.LaneCheckout, 50*time.Millisecond); got < 195_000 || got > 200_000 {
		t.Errorf("busy: grown by %d in ten minutes, want 20 %%", got)
	}
	if got := grown(evidence.LaneSpare, 50*time.Millisecond); got != 0 {
		t.Errorf("nothing but spare calls were refused: grown by %d", got)
	}
	if got := grown(evidence.LaneReview, time.Minute); got > 17_000 {
		t.Errorf("refused once a minute: grown by %d", got)
	}
}

// What cannot be true holds for no longer than what can.
func TestRepairs(t *testing.T) {
	t.Parallel()
	const now = 1e15
	for name, s := range map[string]State{
		"clock set back":    {arrival: now + 1e12, factor: whole, grown: now + 1e12, pause: 0},
		"pause far ahead":   {arrival: 0, factor: whole, grown: now, pause: now + 1e12},
		"both":              {arrival: now + 1e13, factor: minFactor, grown: 0, pause: now + 1e13},
		"all in the future": {arrival: 8e15, factor: 300_000, grown: 8e15, pause: 8e15},
	} {
		s.window = window
		got := s.Do(now, Step{Kind: KindTake, PerMinute: 300, Lane: evidence.LaneCheckout})
		if got.Paused > MaxPause || got.Wait > time.Minute || got.Debt > MaxPause+20*time.Second*10 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A clock that is set back, by an administrator or because another server took over,
// starts no pause again and prolongs none.
func TestAClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	const now = 1e15
	second := micros(time.Second)
	for name, c := range map[string]struct {
		jump, slack time.Duration
	}{
		"back by 1 s": {-time.Second, time.Second}, "back by 4 s": {-4 * time.Second, 4 * time.Second}, "back by 6 s": {-6 * time.Second, 0},
		"back by 1 h": {-time.Hour, 0}, "back by a year": {-365 * 24 * time.Hour, 0}, "ahead by 1 ms": {time.Millisecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			jump := micros(c.jump)
			look := func(s State, at float64) Reply { return s.Do(at, Step{PerMinute: 300}) }
			s := *NewState()
			s.Do(now, Step{Kind: KindPause, PerMinute: 300, Pause: 30 * time.Second})
			s.Do(now+10*second, Step{PerMinute: 300})
			set := s
			running := set.Do(now+10*second+jump, Step{PerMinute: 300})
			if rest := 20 * time.Second; running.Paused > rest || running.Paused < rest-time.Millisecond {
				t.Errorf("%v are left of the pause, want %v", running.Paused, rest)
			}
			if got := look(set, now+10*second+jump+21*second+micros(c.slack)); got.Paused != 0 {
				t.Errorf("after its end, %v are left", got.Paused)
			}
			s.Do(now+60*second, Step{PerMinute: 300})
			ended := look(s, now+60*second+jump)
			if ended.Paused != 0 {
				t.Errorf("the pause that has ended: %v", ended.Paused)
			}
			if same := look(s, now+60*second); ended.Debt > same.Debt || ended.Debt < same.Debt-time.Millisecond {
				t.Errorf("a debt of %v became %v", same.Debt, ended.Debt)
			}
		})
	}
	ahead := *NewState()
	ahead.Do(now, Step{Kind: KindPause, PerMinute: 300, Pause: 30 * time.Second})
	ahead.Do(now+micros(time.Hour), Step{PerMinute: 300})
	if got := ahead.Do(now+second, Step{PerMinute: 300}); got.Paused != 0 {
		t.Errorf("ahead by 1 h and back: a pause of %v", got.Paused)
	}
}

// Replicas whose clocks differ by seconds have one budget together.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	s := NewState()
	calls := 0
	step := Step{Kind: KindTake, PerMinute: 60, Lane: evidence.LaneCheckout}
	for at := float64(0); at <= 600_000_000; at += 10_000 {
		for _, ahead := range []float64{3_000_000, 0} {
			if s.Do(at+ahead, step).Granted {
				calls++
			}
		}
	}
	if calls < 540 || calls > 606 {
		t.Errorf("%d calls in ten minutes of 60", calls)
	}
}
