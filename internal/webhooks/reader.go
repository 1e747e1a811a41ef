package webhooks

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// readAhead is how many changes the reader hands over at once.
	readAhead = 64
	// feedRetry is when the feed is read again after a failure.
	feedRetry = time.Second
)

// read is one change that was read, and the position behind it.
type read struct {
	item        *item // nil if nothing is to be sent
	token       string
	redelivered bool
}

// reader reads the feed from a position on, for a hold. One goroutine runs it.
type reader struct {
	s        *Sender
	position string
	oldest   bool            // begin with the oldest change that is kept, not at position
	events   []changes.Event // that were read and not handed over
	cursor   Cursor
}

// run hands over changes, some each time they are wanted, until ctx ends.
func (r *reader) run(ctx context.Context, wanted <-chan struct{}, out chan<- []read) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-wanted:
		}
		reads := r.next(ctx)
		select {
		case <-ctx.Done():
			return
		case out <- reads:
		}
	}
}

// next returns at least one read unless ctx has ended.
func (r *reader) next(ctx context.Context) []read {
	for len(r.events) == 0 {
		if r.cursor == nil {
			if token, ok := r.follow(ctx); ok {
				return []read{{token: token}}
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if r.cursor == nil {
			wait(ctx, feedRetry)
			continue
		}
		waiting, cancel := context.WithTimeout(ctx, idleProgress)
		events, err := r.cursor.Next(waiting)
		isIdle := waiting.Err() != nil
		cancel()
		switch {
		case err == nil:
			r.events = events
		case ctx.Err() != nil:
			return nil
		case isIdle:
			r.position = r.cursor.Progress().Token
			return []read{{token: r.position}}
		default:
			r.cursor = nil
			r.expired(err)
			wait(ctx, feedRetry)
		}
	}
	n := min(readAhead, len(r.events))
	reads := make([]read, n)
	r.s.patience = time.Now().Add(comparePatience)
	for i, event := range r.events[:n] {
		reads[i] = read{item: r.item(ctx, event), token: event.Token, redelivered: event.Redelivered}
		r.position = event.Token
	}
	if r.events = r.events[n:]; len(r.events) == 0 {
		r.events = nil
	}
	return reads
}

// follow opens the cursor. It returns the position of a webhook that begins anew.
func (r *reader) follow(ctx context.Context) (token string, begun bool) {
	start := changes.Start{Token: r.position}
	if r.oldest {
		start = changes.Start{Time: time.UnixMilli(1)}
	}
	cursor, err := r.s.cfg.Follow(ctx, start)
	if err != nil {
		if r.expired(err) {
			return r.follow(ctx)
		}
		return "", false
	}
	r.cursor = cursor
	begun = r.position == ""
	r.oldest, r.position = false, cursor.Progress().Token
	return r.position, begun
}

// expired reports whether changes after the position are no longer kept, or the
// position is of another feed, and makes the reader begin with the oldest.
func (r *reader) expired(err error) bool {
	var known *eligibility.Error
	if r.oldest || !errors.As(err, &known) || known.Kind != eligibility.KindResumeTokenExpired && known.Kind != eligibility.KindInvalidArgument {
		return false
	}
	r.s.cfg.Metrics.gaps.WithLabelValues(r.s.cfg.Name).Inc()
	r.s.logger.Warn("changes after the position of the webhook are no longer kept; continuing with the oldest", zap.Stringer("kind", known.Kind))
	r.oldest, r.position = true, ""
	return true
}

// item returns the item of an event, nil if nothing is to be sent.
func (r *reader) item(ctx context.Context, event changes.Event) *item {
	if event.Change == nil {
		return nil
	}
	id, body, err := r.s.messageSafely(ctx, event.Change)
	if err != nil {
		r.s.cfg.Metrics.deliveries.WithLabelValues(r.s.cfg.Name, "unsendable").Inc()
		r.s.logger.Error("change cannot be sent", zap.Error(err))
		return nil
	}
	if id == "" {
		return nil
	}
	return &item{id: id, customer: event.Change.Key.CustomerID, body: body, written: time.UnixMilli(event.Position.Millis)}
}
