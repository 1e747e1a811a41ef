package cache

import (
	"errors"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// FeedConfig bounds the feed of changes in Redis. The feed in the process, which
// there is without Redis, has fixed bounds. Its zero value is the documented default.
type FeedConfig struct {
	// Retention is how long a change is kept; 0 means 168 h.
	Retention time.Duration
	// MaxEvents is about how many changes are kept, divided among the partitions; 0
	// means 200,000.
	MaxEvents int
}

// ReviewsConfig configures the list of customers under review in Redis. Its zero
// value is none.
type ReviewsConfig struct {
	// Enabled keeps the list.
	Enabled bool
	// GiveUpAfter is after what time under review a customer is no longer listed; 0
	// means 720 h.
	GiveUpAfter time.Duration
	// MaxTracked is about how many entries the list has, divided among the
	// partitions; 0 means 50,000.
	MaxTracked int
}

// setFeedDefaults completes the configuration of the feed and of reviews.
func (c *Config) setFeedDefaults() error {
	if c.Feed.Retention == 0 {
		c.Feed.Retention = 168 * time.Hour
	}
	if c.Feed.MaxEvents == 0 {
		c.Feed.MaxEvents = 200_000
	}
	if c.Reviews.GiveUpAfter == 0 {
		c.Reviews.GiveUpAfter = 720 * time.Hour
	}
	if c.Reviews.MaxTracked == 0 {
		c.Reviews.MaxTracked = 50_000
	}
	if c.Feed.Retention < 0 || c.Feed.MaxEvents < 0 || c.Reviews.GiveUpAfter < 0 || c.Reviews.MaxTracked < 0 {
		return errors.New("cache: the bounds of the feed and of reviews must not be negative")
	}
	return nil
}

// Feed returns the feed of the changes of this store's evidence: that which all
// replicas with this Redis and namespace share or, without Redis, that of the
// process.
func (s *Store) Feed() changes.Feed { return s.feed } //nolint:ireturn // one of two types

const (
	// maxFacts is from how many bytes on, approximately, facts are abridged in an
	// event: more than any real customer has.
	maxFacts = 8 << 10
	// maxFactsText is the longest text in abridged facts.
	maxFactsText = 256
)

// newChange returns the change from before, which is nil if nothing was known, to
// after; nil if both state the same. A change has no more than a bounded size: facts
// of more than maxFacts are abridged to those that decide.
func newChange(key eligibility.Key, before, after *eligibility.Evidence) *changes.Change {
	if before != nil {
		if before.SameFacts(after) {
			return nil
		}
		before = bounded(before)
	}
	return &changes.Change{Key: key, Before: before, After: bounded(after)}
}

func bounded(evidence *eligibility.Evidence) *eligibility.Evidence {
	if bytesOf(evidence) <= maxFacts {
		return evidence
	}
	return evidence.Abridge(maxFactsText)
}

// signal is a channel for "something may have been written", of which any number at
// once counts as one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) send() {
	select {
	case s <- struct{}{}:
	default:
	}
}
