package pcclient

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/budget"
)

const (
	// maxAttempts bounds the requests that failures may cost one fetch.
	maxAttempts = 3
	// firstBackoff bounds the wait before the first replay; each further one
	// may be twice as long.
	firstBackoff = 250 * time.Millisecond

	// A Retry-After is kept within these bounds; absent or unreadable it
	// stands for defaultRetryAfter, the length of a throttling window.
	minRetryAfter     = time.Second
	maxRetryAfter     = budget.MaxPause
	defaultRetryAfter = time.Minute
)

// backoff returns how long to wait after so many attempts: full jitter, so
// that the callers of one outage do not come back together.
func backoff(attempts int) time.Duration {
	return rand.N(firstBackoff << (attempts - 1)) //nolint:gosec // spreads load, keeps no secret
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, delay time.Duration) bool {
	if delay <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryAfter reads a Retry-After header, which is a number of seconds or a
// date.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := strings.Trim(header.Get("Retry-After"), " \t")
	if date, err := http.ParseTime(text); err == nil {
		return min(max(date.Sub(now), minRetryAfter), maxRetryAfter)
	}
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return defaultRetryAfter
	}
	// More digits than this are more than the upper bound, and might not
	// fit a number at all.
	text = strings.TrimLeft(text, "0")
	if len(text) > len("600") {
		return maxRetryAfter
	}
	seconds := 0
	for _, digit := range text {
		seconds = 10*seconds + int(digit-'0')
	}
	return min(max(time.Duration(seconds)*time.Second, minRetryAfter), maxRetryAfter)
}
