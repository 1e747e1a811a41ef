// Package breaker provides the circuit breaker that stands before Redis,
// Partner Center and the login host.
//
// A closed breaker admits every operation. After Config.Failures failures in a
// row it opens and rejects operations without trying them. When the open
// interval ends it becomes half-open and admits one operation as a probe: if
// the probe succeeds the breaker closes, if it fails the breaker opens again
// for twice as long, up to Config.Max.
package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// State is the state of a [Breaker].
type State uint8

// The states.
const (
	Closed State = iota
	Open
	HalfOpen
)

// Config holds the limits of a Breaker.
type Config struct {
	// Failures is how many failures in a row open the breaker. Zero means 1.
	Failures int
	// First is the first open interval. Required.
	First time.Duration
	// Max bounds the open interval, which doubles whenever a probe fails. Zero
	// means First: the interval does not grow.
	Max time.Duration
	// ProbeTimeout is the longest time that an operation can take. A probe that
	// has reported nothing by then is given up, and another is admitted.
	// Required.
	ProbeTimeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Breaker is a circuit breaker. It is safe for concurrent use. While it is
// closed, an operation costs two atomic loads.
type Breaker struct {
	cfg   Config
	start time.Time // origin of the times below; keeps the monotonic clock

	closed atomic.Bool
	inRow  atomic.Int32 // failures in a row

	mu       sync.Mutex
	openings int           // since the last success; guarded by mu
	since    time.Duration // when the wait began, after start; guarded by mu
	wait     time.Duration // open interval, or the time limit of the probe; guarded by mu
	probe    uint64        // ID of the probe in flight; 0 if there is none; guarded by mu
	lastID   uint64        // ID of the latest probe; guarded by mu
}

// New returns a closed Breaker.
func New(cfg Config) *Breaker {
	cfg.Failures = max(cfg.Failures, 1)
	cfg.Max = max(cfg.Max, cfg.First)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := &Breaker{cfg: cfg, start: cfg.Now()}
	b.closed.Store(true)
	return b
}

// Permit is the admission of one operation. Call exactly one of Succeed, Fail
// and Cancel when the operation ends. The zero Permit reports to no breaker.
type Permit struct {
	breaker *Breaker
	probe   uint64        // 0 if the operation is not a probe
	since   time.Duration // when the probe was admitted
}

// Allow admits an operation. If ok is false, the operation must not be tried,
// and retryAfter is how long to wait before the next try.
func (b *Breaker) Allow() (permit Permit, retryAfter time.Duration, ok bool) {
	if b.closed.Load() {
		return Permit{breaker: b}, 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return Permit{breaker: b}, 0, true
	}
	now := b.elapsed()
	if left := b.rejects(now); left > 0 {
		return Permit{}, left, false
	}
	b.lastID++
	b.probe, b.since, b.wait = b.lastID, now, b.cfg.ProbeTimeout
	return Permit{breaker: b, probe: b.probe, since: now}, 0, true
}

// Rejects returns for how long Allow rejects operations; 0 if it admits the next one.
func (b *Breaker) Rejects() time.Duration {
	if b.closed.Load() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0
	}
	return b.rejects(b.elapsed())
}

// Force admits an operation whatever the state, for a caller to whom an error
// costs more than a vain try. Its success closes the breaker.
func (b *Breaker) Force() Permit { return Permit{breaker: b} }

// State returns the state. It is HalfOpen while a probe is in flight or due.
func (b *Breaker) State() State {
	if b.closed.Load() {
		return Closed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed.Load():
		return Closed
	case b.probe != 0, b.left(b.elapsed()) == 0:
		return HalfOpen
	default:
		return Open
	}
}

// Probe reports whether the operation is a probe.
func (p Permit) Probe() bool { return p.probe != 0 }

// Succeed reports that the far side works, and closes the breaker.
func (p Permit) Succeed() {
	b := p.breaker
	if b == nil {
		return
	}
	if b.inRow.Load() != 0 {
		b.inRow.Store(0)
	}
	if b.closed.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.openings, b.probe = 0, 0
	b.inRow.Store(0)
	b.closed.Store(true)
}

// Fail reports that the far side does not work.
func (p Permit) Fail() {
	b := p.breaker
	if b == nil {
		return
	}
	inRow := b.inRow.Add(1)
	if p.probe == 0 && int(inRow) < b.cfg.Failures {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case p.probe == 0 && b.closed.Load():
		b.since = b.elapsed()
	case p.probe != 0 && p.probe == b.probe:
		b.since = p.since // probes that time out are no further apart
	default:
		return // was admitted before the breaker opened, or given up
	}
	b.wait = min(b.cfg.First<<min(b.openings, 16), b.cfg.Max)
	b.openings++
	b.probe = 0
	b.closed.Store(false)
}

// Cancel reports that the operation ended without showing whether the far side
// works. If it was the probe, the next operation becomes the probe.
func (p Permit) Cancel() {
	if p.probe == 0 {
		return
	}
	b := p.breaker
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.probe == b.probe {
		b.probe, b.wait = 0, 0
	}
}

func (b *Breaker) elapsed() time.Duration { return b.cfg.Now().Sub(b.start) }

// rejects returns for how long operations are rejected from now on, while the breaker
// is not closed. b.mu is held.
func (b *Breaker) rejects(now time.Duration) time.Duration {
	left := b.left(now)
	if b.probe != 0 {
		left = min(left, b.cfg.First)
	}
	return left
}

// left returns what is left of the current wait. It is 0 if the clock was set
// back since the wait began. b.mu is held.
func (b *Breaker) left(now time.Duration) time.Duration {
	left := b.since + b.wait - now
	if left < 0 || left > b.wait {
		return 0
	}
	return left
}
