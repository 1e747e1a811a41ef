package budget

import (
	"cmp"
	"math"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

const (
	// MaxPause bounds a pause, and the wait that a refusal states.
	MaxPause = 10 * time.Minute
	// window is the time in which no more calls than the budget are admitted: a
	// minute, and a second because calls do not take equal times on their way.
	window = 61 * time.Second
	// guardWindow is that of the guard of a process, which must not delay what
	// the budget of the fleet admits.
	guardWindow = 60 * time.Second
	// burstShare is the part of the budget that can be spent at once, and
	// reviewBurstShare that of the part for reviews: a smaller one, so that they use
	// nearly all of theirs.
	burstShare       = 10
	reviewBurstShare = 50
	// minPerMinute and maxPerMinute bound what the arithmetic distinguishes.
	minPerMinute = 0.01
	maxPerMinute = 1_000_000
	// minReviews is how many calls a minute reviews have at least: more than none,
	// however small the budget is.
	minReviews = 0.1
	// fetchCalls are the calls that a fetch may need, replays included.
	fetchCalls = 3
	// debt is the longest time for which a budget can be overdrawn, by places that
	// were booked and calls that were charged. At least one call fits in.
	debt = 10 * time.Second
	// skew is by how much two clocks that both read the time may differ. One that is
	// further back was set back.
	skew = 5 * time.Second

	// whole is a factor of 1; factors are in millionths.
	whole     = 1_000_000
	minFactor = whole / 10
	// growthStep is the time in which the factor grows by a millionth, so that it
	// grows by 2 % of the configured budget a minute.
	growthStep = 3 * time.Millisecond
	// growthGap is the longest time between two refusals that counts as growth.
	growthGap = 5 * time.Second
)

// share is the part of the burst that each lane leaves to the lanes above it.
var share = [evidence.Lanes]float64{ //nolint:gochecknoglobals // only read
	evidence.LaneSpare:    0.75,
	evidence.LaneReview:   0.75,
	evidence.LaneRefresh:  0.5,
	evidence.LanePrefetch: 0.5,
	evidence.LaneBatch:    0.25,
	evidence.LaneCheckout: 0,
}

// Kind is what a step does.
type Kind uint8

// The kinds of step.
const (
	// KindLook changes nothing.
	KindLook Kind = iota
	// KindTake takes one call, or books its place if Book allows the wait.
	KindTake
	// KindCharge takes Calls calls that were already made.
	KindCharge
	// KindPause starts or extends a pause.
	KindPause
)

// Step is one step of the state machine of a budget.
type Step struct {
	Kind Kind
	// PerMinute is the configured budget, or the part of it that is meant.
	PerMinute float64
	Lane      evidence.Lane // for KindTake
	Book      time.Duration // for KindTake: the longest wait for which a place is booked
	Calls     int           // for KindCharge, in Lane
	Pause     time.Duration // for KindPause: from now on
	// ReviewShare is the part of PerMinute that LaneReview may have; 0 is all.
	ReviewShare float64
	// Seed is what the caller knows of a budget whose state was lost.
	Seed Seed
}

// Seed replaces a state that is absent. The zero Seed is of a caller who has not
// seen any: the budget then starts with a full burst.
type Seed struct {
	// Lost reports that there was a state: the budget then starts without a burst.
	Lost   bool
	Factor int           // in millionths; 0 is all
	Pause  time.Duration // what is left of the pause
}

// Reply is the result of a step.
type Reply struct {
	// Granted reports whether the call was admitted, to be made after Wait. If
	// not, Wait is how long until it could be.
	Granted bool
	Wait    time.Duration
	// Paused is what is left of the pause.
	Paused time.Duration
	// Debt is the time until the whole burst is there, and ReviewDebt that until the
	// burst of LaneReview's part is.
	Debt, ReviewDebt time.Duration
	// Factor is the adapted part of the configured budget, in millionths.
	Factor int
	// Fresh reports that the state was absent.
	Fresh bool
}

// State is the state of one budget: its arrival time (GCRA) and that of LaneReview's
// part, the adapted part of the configured budget, and the pause. The script of package cache runs the same
// steps on a hash in Redis, with the same arithmetic: whole microseconds and
// millionths, which a float64 holds exactly. Times count from the origin of
// whatever clock the caller uses.
type State struct {
	arrival float64 // when the whole burst is there again
	review  float64 // when that of LaneReview's part is
	factor  float64 // in millionths; 0: there is no state yet
	grown   float64 // up to when the factor has grown
	pause   float64 // end of the pause
	last    float64 // the last reading of the clock
	window  time.Duration
}

// NewState returns the state of a budget that was not used yet.
func NewState() *State { return &State{window: window} }

// limits are the interval between calls and the depth of the bucket, both in
// microseconds: the depth is the burst times the interval.
type limits struct{ interval, depth float64 }

// limitsOf returns the limits of a budget.
func limitsOf(perMinute, factor float64, window time.Duration) limits {
	rate := float64(min(max(perMinute, minPerMinute), maxPerMinute)*factor) / whole
	return limitsAt(rate, burstShare, window)
}

// reviewLimits returns those of LaneReview's part. They are as if the budget had no
// more.
func reviewLimits(step Step, factor float64, window time.Duration) limits {
	rate := float64(min(max(step.ReviewPerMinute(), minPerMinute), maxPerMinute)*factor) / whole
	return limitsAt(max(rate, minReviews), reviewBurstShare, window)
}

// ReviewPerMinute is how many of the configured calls a minute LaneReview may have.
func (s Step) ReviewPerMinute() float64 { return s.PerMinute * cmp.Or(s.ReviewShare, 1) }

// limitsAt returns the limits of calls at rate a minute. The burst and what is
// refilled within window make up that, so that no window has more calls.
func limitsAt(rate, burstShare float64, window time.Duration) limits {
	burst := max(1, rate/burstShare)
	interval := math.Ceil(micros(window) / (rate - burst + 1))
	return limits{interval: interval, depth: math.Floor(burst * interval)}
}

// Reserve returns what lane leaves to the lanes above it: a part of the burst, but
// at least so many calls. Every lane but the spare one has room for one call in any
// case, or a small budget would starve it; calls is -1 then. The spare lane leaves
// a whole fetch of an account.
func Reserve(lane evidence.Lane) (part float64, calls int) {
	if lane == evidence.LaneSpare {
		return share[lane], fetchCalls
	}
	return share[lane], -1
}

// reserve is the part of the depth that lane leaves to the lanes above it.
func (l limits) reserve(lane evidence.Lane) float64 {
	part, calls := Reserve(lane)
	if calls >= 0 {
		return max(math.Floor(l.depth*part), float64(calls)*l.interval)
	}
	return min(math.Floor(l.depth*part), l.depth-l.interval)
}

func (l limits) longestDebt() float64 { return l.depth + max(micros(debt), l.interval) }

func micros(d time.Duration) float64 { return float64(d.Microseconds()) }

func duration(micros float64) time.Duration { return time.Duration(micros) * time.Microsecond }

// toFactor bounds a factor that came from elsewhere.
func toFactor(millionths int) float64 { return float64(min(max(millionths, minFactor), whole)) }

// Do makes one step at now, in microseconds. The clock may have been set back, or be
// another one.
func (s *State) Do(now float64, step Step) Reply { return s.at(s.clock(now), step) }

// clock returns the time of a step. A clock that is a little behind the last reading
// may be another replica's: the time stands until it has caught up. If it is further
// behind, all times move with it, so that what was over stays over, and a pause keeps
// its rest.
func (s *State) clock(now float64) float64 {
	back := s.last - now
	switch {
	case back > micros(skew):
		s.arrival, s.grown, s.pause = max(s.arrival-back, 0), max(s.grown-back, 0), max(s.pause-back, 0)
		s.review = max(s.review-back, 0)
	case back > 0:
		return s.last
	}
	s.last = now
	return now
}

// at makes one step at a time that is no reading of the clock.
func (s *State) at(now float64, step Step) Reply {
	fresh := s.repair(now, step)
	l, reviews := limitsOf(step.PerMinute, s.factor, s.window), reviewLimits(step, s.factor, s.window)
	s.arrival = min(s.arrival, max(now, s.pause)+l.longestDebt())
	s.review = min(s.review, max(now, s.pause)+reviews.longestDebt())
	reply := Reply{Fresh: fresh}
	switch step.Kind {
	case KindLook:
	case KindTake:
		if s.pause > now {
			break
		}
		var wait float64
		reply.Granted, wait = s.take(now, l, reviews, step)
		reply.Wait = duration(wait)
	case KindCharge:
		s.arrival = min(max(s.arrival, now)+l.interval*float64(step.Calls), max(now, s.pause)+l.longestDebt())
		if step.Lane == evidence.LaneReview {
			s.review = min(max(s.review, now)+reviews.interval*float64(step.Calls), max(now, s.pause)+reviews.longestDebt())
		}
	case KindPause:
		s.throttle(now, step)
	}
	reply.Paused = duration(max(s.pause-now, 0))
	reply.Debt = duration(max(s.arrival-now, 0))
	reply.ReviewDebt = duration(max(s.review-now, 0))
	reply.Factor = int(s.factor)
	return reply
}

// repair replaces what is absent or cannot be true. It reports whether the state was absent.
func (s *State) repair(now float64, step Step) (fresh bool) {
	if s.factor == 0 {
		fresh = true
		s.factor = whole
		if step.Seed.Factor > 0 {
			s.factor = toFactor(step.Seed.Factor)
		}
		s.arrival, s.review, s.grown, s.pause = now, now, now, now+micros(step.Seed.Pause)
		if step.Seed.Lost {
			s.arrival += limitsOf(step.PerMinute, s.factor, s.window).depth
			s.review = now + reviewLimits(step, s.factor, s.window).depth
		}
	}
	if s.grown > now {
		s.grown = now
	}
	s.pause = min(s.pause, now+micros(MaxPause))
	return fresh
}

// take takes one call, or books its place if the step allows the wait. A call
// that has to wait for the budget, not for the part of reviews, shows that more calls
// are needed than the factor allows.
func (s *State) take(now float64, l, reviews limits, step Step) (granted bool, wait float64) {
	reserve := l.reserve(step.Lane)
	if reserve+l.interval > l.depth {
		return false, micros(MaxPause) // never, with this burst
	}
	start := max(s.arrival, now)
	wait = max(0, start+l.interval+reserve-l.depth-now)
	if wait > 0 && step.Lane > evidence.LaneSpare {
		s.grow(now)
	}
	review := max(s.review, now) + reviews.interval
	if step.Lane == evidence.LaneReview {
		wait = max(wait, review-reviews.depth-now)
	}
	if wait > micros(step.Book) {
		return false, wait
	}
	s.arrival = start + l.interval
	if step.Lane == evidence.LaneReview {
		s.review = review
	}
	return true, wait
}

func (s *State) grow(now float64) {
	passed := now - s.grown
	steps := math.Floor(min(passed, micros(growthGap)) / micros(growthStep))
	if steps == 0 || s.factor == whole {
		return
	}
	s.factor = min(s.factor+steps, whole)
	if passed > micros(growthGap) {
		s.grown = now
	} else {
		s.grown += steps * micros(growthStep)
	}
}

// throttle starts a pause, or extends one that is running, which it never
// shortens. If it starts one, the rate was too high. Nothing is saved up for the end
// of the pause: a burst would meet the end of the limit's window, and all of it
// another 429.
func (s *State) throttle(now float64, step Step) {
	if s.pause <= now {
		s.factor = max(math.Floor(s.factor*7/10), minFactor)
	}
	s.pause = max(s.pause, now+min(micros(step.Pause), micros(MaxPause)))
	s.grown = s.pause
	s.arrival = max(s.arrival, s.pause+limitsOf(step.PerMinute, s.factor, s.window).depth)
	s.review = max(s.review, s.pause+reviewLimits(step, s.factor, s.window).depth)
}
