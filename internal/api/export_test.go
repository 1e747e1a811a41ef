package api

import (
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

// What tests of other packages need of this one.
const (
	MarkTooLarge   = markTooLarge
	MaxOpenStreams = maxOpenStreams
)

// PlainLimit returns the limit of the records of plain successes.
func (c *Chain) PlainLimit() *logging.Limiter { return c.limits.plain }

// FailureLimit returns the limit of the records of a reason.
func (c *Chain) FailureLimit(reason string) *logging.Limiter { return c.limits.failures[reason] }

// SetInFlight makes the chain count so many RPCs as in progress.
func (c *Chain) SetInFlight(n int64) { c.inFlight.Store(n) }

// SetStreams makes the chain count so many streams as open.
func (c *Chain) SetStreams(n int64) { c.streams.Store(n) }

// CountFailure counts a question that ended with an error.
func (c *Chain) CountFailure(err *eligibility.Error) { c.metrics.failed(err, 1) }
