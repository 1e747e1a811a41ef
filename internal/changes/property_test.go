package changes_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// step is one step of a random history.
type step struct {
	what       string
	n, of, and int
}

func drawSteps(t *rapid.T, failovers bool) []step {
	kinds := []string{"write", "write", "write", "write", "sleep", "sleep", "read", "read", "read", "resume", "resume", "restart", "down", "up", "slow", "pages"}
	if failovers {
		kinds = append(kinds, "fail over")
	} else {
		kinds = append(kinds, "trim")
	}
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			rapid.SampledFrom(kinds).Draw(t, "what"),
			rapid.IntRange(0, 1000).Draw(t, "n"), rapid.IntRange(0, 1000).Draw(t, "of"), rapid.IntRange(0, 1000).Draw(t, "and"),
		}
	}), 20, 150).Draw(t, "steps")
}

// history is a feed with two replicas and some consumers.
type history struct {
	t         *testing.T
	feed      *fakeFeed
	logs      [2]*changes.Log
	stops     [2]func()
	written   []*changes.Change
	consumers []*consumer
	trimmed   bool
	log       []string // what happened, for the message of a failure
}

func (h *history) note(format string, args ...any) {
	h.log = append(h.log, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

func (h *history) restart(i int) {
	if h.stops[i] != nil {
		h.stops[i]()
	}
	l, err := changes.NewLog(h.feed, changes.LogConfig{})
	if err != nil {
		h.t.Fatal(err)
	}
	changes.HoldEntries(l, 20)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = l.Run(ctx)
	}()
	h.logs[i], h.stops[i] = l, func() {
		cancel()
		<-ended
	}
}

// connect connects a consumer, if it can, to a replica with one of its tokens.
func (h *history) connect(c *consumer, replica, token int) error {
	ctx, cancel := context.WithTimeout(h.t.Context(), 3*time.Second)
	defer cancel()
	n := len(c.had)
	if n > 0 {
		n -= token % n
	}
	err := c.connect(ctx, h.logs[replica%2], n, len(h.written))
	h.note("consumer %d begins at replica %d after %d events: %v", slices.Index(h.consumers, c), replica%2, n, err)
	if err == nil && n == 0 {
		c.began = time.Time{}
		if last := len(h.written) - 1; last >= 0 {
			c.began = h.written[last].After.FetchTime
		}
	}
	return h.mayFail(c, err)
}

// read lets a consumer read for a while.
func (h *history) read(c *consumer, within time.Duration) error {
	n := len(c.had)
	err := c.read(h.t.Context(), within)
	for _, e := range c.had[n:] {
		if e.Change != nil {
			h.note("consumer %d receives %s, at %v, redelivered %t", slices.Index(h.consumers, c), e.Change.ID(), e.Position, e.Redelivered)
		}
	}
	h.note("consumer %d ends reading: %v", slices.Index(h.consumers, c), err)
	return h.mayFail(c, err)
}

// mayFail returns err if it is none that a consumer must expect now.
func (h *history) mayFail(c *consumer, err error) error {
	switch {
	case errors.Is(err, errPromise):
		return err
	case err == nil, errors.Is(err, context.DeadlineExceeded), kindOf(err) == eligibility.KindFeedUnavailable:
	case kindOf(err) == eligibility.KindResumeTokenExpired && h.trimmed:
		c.cursor, c.had = nil, nil // it begins anew
	default:
		return err
	}
	return nil
}

func (h *history) do(s step) error {
	h.note("%s %d %d %d", s.what, s.n, s.of, s.and)
	c := h.consumers[s.n%len(h.consumers)]
	partition := s.n % len(h.feed.parts)
	switch s.what {
	case "write":
		for range 1 + s.and%4 {
			change := h.feed.write(id(byte(s.n%4), byte(s.of%3))) //nolint:gosec // below 4
			h.written = append(h.written, change)
			h.note("written: %s", change.ID())
		}
		if s.of%2 == 0 {
			h.feed.announce()
		}
	case "sleep":
		time.Sleep([]time.Duration{time.Millisecond, 150 * time.Millisecond, 2 * time.Second, 25 * time.Second}[s.n%4])
	case "read":
		if c.cursor != nil {
			return h.read(c, time.Duration(s.of)*3*time.Millisecond)
		}
	case "resume":
		return h.connect(c, s.of, s.and)
	case "restart":
		h.restart(s.n % 2)
	case "trim":
		h.feed.trim(partition, 5+s.of%20)
		h.trimmed = true
	case "down", "up":
		h.feed.set(partition, func(p *fakePart) { p.down = s.what == "down" })
	case "slow":
		h.feed.mu.Lock()
		h.feed.delay = time.Duration(s.n%4) * 2 * time.Second
		h.feed.mu.Unlock()
	case "pages":
		h.feed.set(partition, func(p *fakePart) { p.limit = s.of % 5 })
	case "fail over":
		lost := h.feed.lose(partition, s.of%3)
		h.feed.set(partition, func(p *fakePart) { p.skew = time.Duration(s.and%9-4) * time.Second })
		h.feed.mu.Lock()
		for _, e := range lost {
			h.feed.add(e.Change)
			h.note("written again: %s", e.Change.ID())
		}
		h.feed.mu.Unlock()
	}
	return nil
}

// finish repairs everything and lets all consumers read to the end.
func (h *history) finish() error {
	for i := range h.feed.parts {
		h.feed.set(i, func(p *fakePart) { p.down, p.limit = false, 0 })
	}
	h.feed.mu.Lock()
	h.feed.delay = 0
	h.feed.mu.Unlock()
	time.Sleep(20 * time.Second)
	for i, c := range h.consumers {
		for attempts := 0; ; attempts++ {
			if c.cursor == nil {
				if err := h.connect(c, i, 0); err != nil {
					return err
				}
			}
			if c.cursor != nil {
				if err := h.read(c, 20*time.Second); err != nil {
					return err
				}
			}
			if c.cursor != nil {
				break
			}
			if attempts > 3 {
				return fmt.Errorf("%w: consumer %d cannot read", errPromise, i)
			}
		}
		if err := c.complete(h.written); err != nil {
			return fmt.Errorf("consumer %d: %w", i, err)
		}
	}
	return nil
}

// run runs a history from its beginning to its end.
func (h *history) run(steps []step, failovers bool) error {
	defer func() { h.stops[0](); h.stops[1]() }()
	h.restart(0)
	h.restart(1)
	for i := range 4 {
		c := &consumer{moves: failovers}
		if i > 1 {
			c.start.Customers = []eligibility.CustomerID{id(byte(i), 1), id(0, 1)}
		}
		h.consumers = append(h.consumers, c)
		if err := h.connect(c, i, 0); err != nil {
			return err
		}
	}
	for _, s := range steps {
		if err := h.do(s); err != nil {
			return err
		}
	}
	return h.finish()
}

// Whatever happens, each consumer gets each change at least once, in order for each
// customer, marked if it had it before its token, or an error that sends it back.
func TestEveryConsumerGetsEveryChange(t *testing.T) {
	for _, failovers := range []bool{false, true} {
		t.Run(fmt.Sprintf("failovers=%t", failovers), func(t *testing.T) {
			rapid.Check(t, func(drawn *rapid.T) {
				steps := drawSteps(drawn, failovers)
				var h *history
				var err error
				// Inside the bubble nothing can be drawn, nor t failed: rapid tries again.
				synctest.Test(t, func(t *testing.T) {
					h = &history{t: t, feed: newFeed(3)}
					err = h.run(steps, failovers)
				})
				if err != nil {
					// The goroutines of a replica may run in another order the next time: the
					// failure prints its whole history.
					drawn.Fatalf("%v\n%s", err, strings.Join(h.log, "\n"))
				}
			})
		})
	}
}
