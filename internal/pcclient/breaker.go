package pcclient

import (
	"sync"
	"time"
)

const (
	// breakAfter is how many questions in a row must fail by the far side's
	// infrastructure before the others are spared the wait.
	breakAfter = 10
	// firstBreak is how long the breaker opens; each time that a probe fails,
	// twice as long, up to maxBreak.
	firstBreak = time.Second
	maxBreak   = 30 * time.Second
)

// breaker keeps questions away from a Partner Center that does not work. Only
// failures of its infrastructure open it (ClassUnavailable): an answer, whatever
// it says, closes it. Once it has been open for its time it lets one probe
// through, whose outcome decides.
type breaker struct {
	now func() time.Time

	mu       sync.Mutex
	failures int       // in a row; guarded by mu
	openings int       // since an answer last came; guarded by mu
	until    time.Time // end of the opening; zero while closed; guarded by mu
	probing  bool      // guarded by mu
}

// admit reports whether a question may go, and whether it is the probe; if not,
// how long until the next one may.
func (b *breaker) admit() (wait time.Duration, probe, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return 0, false, true
	}
	if left := b.until.Sub(b.now()); left > 0 {
		return left, false, false
	}
	if b.probing {
		return firstBreak, false, false
	}
	b.probing = true
	return 0, true, true
}

// settle takes the outcome of a question that admit let through.
func (b *breaker) settle(fail *APIError, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	switch {
	case fail != nil && (fail.Op == OpToken || fail.Reason == ReasonCanceled || fail.Reason == ReasonPaused || fail.Reason == ReasonBudget):
		return // says nothing of Partner Center
	case fail == nil || fail.Class != ClassUnavailable:
		b.failures, b.openings, b.until = 0, 0, time.Time{}
		return
	}
	b.failures++
	if probe || b.until.IsZero() && b.failures >= breakAfter {
		b.until = b.now().Add(min(firstBreak<<min(b.openings, 10), maxBreak))
		b.openings++
	}
}

// isOpen reports whether questions are being kept away.
func (b *breaker) isOpen() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.until.IsZero()
}
