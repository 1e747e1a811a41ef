package api

import (
	"cmp"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// What tests of other packages need of this one.
const (
	MarkTooLarge = markTooLarge
	MaxBeside    = maxBeside
)

// PlainLimit returns the limit of the records of plain successes.
func (ch *Chain) PlainLimit() *logging.Limiter { return ch.limits.plain }

// FailureLimit returns the limit of the records of a reason.
func (ch *Chain) FailureLimit(reason string) *logging.Limiter { return ch.limits.failures[reason] }

// SetInFlight makes the chain count so many RPCs as in progress.
func (ch *Chain) SetInFlight(n int64) { ch.inFlight.Store(n) }

// SetBeside makes the chain count so many streams of health and reflection as open.
func (ch *Chain) SetBeside(n int) {
	ch.beside.mu.Lock()
	defer ch.beside.mu.Unlock()
	ch.beside.count = n
}

// CountFailure counts a question that ended with an error, of a caller that is
// impatient or not.
func (ch *Chain) CountFailure(err *eligibility.Error, impatient bool) {
	ch.metrics.failed(err, 1, impatient)
}

// WatchTimes are the times of streams of changes.
type WatchTimes struct{ Age, Progress, Blocked, Abandon, Cut time.Duration }

// SetWatchTimes sets those that are not zero, before the first stream.
func (ch *Chain) SetWatchTimes(times WatchTimes) {
	t := &ch.answers.watchTimes
	t.age = cmp.Or(times.Age, t.age)
	t.progress = cmp.Or(times.Progress, t.progress)
	t.blocked = cmp.Or(times.Blocked, t.blocked)
	t.abandon = cmp.Or(times.Abandon, t.abandon)
	t.cut = cmp.Or(times.Cut, t.cut)
}
