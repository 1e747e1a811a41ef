package changes

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// LogConfig tunes a [Log]. Its zero value is the documented default.
type LogConfig struct {
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Log is the end of a feed, as this process has read it. It is safe for concurrent
// use.
type Log struct {
	feed Feed
}

// NewLog returns the Log of a feed, for which Run must be called.
func NewLog(feed Feed, cfg LogConfig) (*Log, error) {
	return &Log{feed: feed}, nil
}

// Run reads the feed until ctx ends. Call it once.
func (l *Log) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Start is where a [Cursor] begins. The zero value is: with what is written from
// now on.
type Start struct {
	// Token is the token of an earlier Cursor; it takes precedence over Time.
	Token string
	// Time is the time of the first change; zero means from now on. If older changes
	// are no longer kept, the Cursor begins with the oldest.
	Time time.Time
	// Customers are those whose changes are read; empty means all.
	Customers []eligibility.CustomerID
}

// Event is what a [Cursor] returns: a change of one of its customers, or, while the
// cursor catches up, the mere advance of its token past changes of others.
type Event struct {
	// Change is nil if only the token has advanced.
	Change *Change
	// Position is where the change stands.
	Position Position
	// Redelivered reports that an earlier Cursor, from whose token this one began, may
	// have returned the change.
	Redelivered bool
	// Token is where to go on after the event.
	Token string
}

// Cursor is one reader's place in the feed. One goroutine calls Next; others may call
// Progress at the same time. A Cursor that is no longer used needs no closing.
type Cursor struct{}

// Follow returns a Cursor that begins at start. Errors are *eligibility.Error:
// KindInvalidArgument if the token is malformed or of another feed,
// KindResumeTokenExpired, KindFeedUnavailable, and of the context.
func (l *Log) Follow(ctx context.Context, start Start) (*Cursor, error) {
	return &Cursor{}, nil
}

// Next returns the next events, at least one and at most a few hundred, and waits for
// the first until ctx ends. It then returns the error of ctx, and the cursor can be
// used again. Other errors are those of Follow, after which the cursor is of no more
// use. Events of customers whom the cursor does not follow return nothing from Next:
// Progress has the token that they advance.
func (c *Cursor) Next(ctx context.Context) ([]Event, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Progress is how far a [Cursor] has come.
type Progress struct {
	// Token is where to go on.
	Token string
	// Through is the time up to which all changes were returned.
	Through time.Time
	// Oldest is the time of the oldest change that is kept; zero if none is.
	Oldest time.Time
}

// Progress returns how far the cursor has come, by what this process has read.
func (c *Cursor) Progress() Progress { return Progress{} }
