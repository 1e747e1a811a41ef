package webhooks

import (
	"math/rand/v2"
	"time"
)

// retryDelay returns the delay after so many failures in a row: it doubles from
// firstRetry to lastRetry, less up to a fifth.
func retryDelay(failures int) time.Duration {
	delay := lastRetry
	if shift := max(failures-1, 0); shift < 10 {
		delay = min(firstRetry<<shift, lastRetry)
	}
	return delay - rand.N(delay/5) //nolint:gosec // no secret
}

// failures are those of the webhook as a whole.
type failures struct {
	inARow int       // failures since the last success
	since  time.Time // when the first of them was
	rounds int       // how often the webhook has backed off since then
	until  time.Time // until when it does
}

// failing reports whether the webhook as a whole fails.
func (h *failures) failing() bool { return h.inARow >= failuresInARow }

// limit returns how many requests may be under way at now.
func (h *failures) limit(now time.Time) int {
	switch {
	case now.Before(h.until):
		return 0
	case h.failing():
		return 1
	default:
		return concurrency
	}
}

// failed records a failure, and a wish of the receiver to wait.
func (h *failures) failed(now time.Time, retryAfter time.Duration) {
	if h.inARow == 0 {
		h.since = now
	}
	h.inARow++
	if h.failing() && !now.Before(h.until) {
		h.rounds++
		h.until = now.Add(retryDelay(h.rounds))
	}
	if asked := now.Add(retryAfter); retryAfter > 0 && asked.After(h.until) {
		h.until = asked
	}
}

// delivered records a success. It reports whether the webhook failed as a whole
// until then.
func (h *failures) delivered() (recovered bool) {
	recovered = h.failing()
	*h = failures{}
	return recovered
}
