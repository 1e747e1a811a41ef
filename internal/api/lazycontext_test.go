package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A lazyContext behaves as one that context.WithDeadline made, whether its end
// is waited for early, late or never.
func TestALazyContextEndsAsAnyOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, row := range map[string]struct {
			deadline time.Duration // 0 is none
			happens  func(c *lazyContext, endParent context.CancelFunc)
			want     error
		}{
			"nothing":                        {time.Minute, func(*lazyContext, context.CancelFunc) {}, nil},
			"the deadline":                   {time.Second, func(*lazyContext, context.CancelFunc) { time.Sleep(time.Second) }, context.DeadlineExceeded},
			"a past deadline":                {-time.Second, func(*lazyContext, context.CancelFunc) {}, context.DeadlineExceeded},
			"its RPC's end":                  {time.Minute, func(c *lazyContext, _ context.CancelFunc) { c.end() }, context.Canceled},
			"no deadline, and its RPC's end": {0, func(c *lazyContext, _ context.CancelFunc) { c.end() }, context.Canceled},
			"its parent's end":               {time.Minute, func(_ *lazyContext, endParent context.CancelFunc) { endParent() }, context.Canceled},
		} {
			for _, waited := range []bool{false, true} {
				parent, endParent := context.WithCancel(t.Context())
				c := &lazyContext{Context: parent}
				if row.deadline != 0 {
					c.deadline = time.Now().Add(row.deadline)
				}
				var below context.Context
				endBelow := func() {}
				if waited {
					below, endBelow = context.WithTimeout(c, time.Hour)
				}
				row.happens(c, endParent)
				synctest.Wait()
				if err := c.Err(); !errors.Is(err, row.want) {
					t.Errorf("%s, waited for %v: error %v, want %v", name, waited, err, row.want)
				}
				select {
				case <-c.Done():
					if row.want == nil {
						t.Errorf("%s, waited for %v: it is done", name, waited)
					}
				default:
					if row.want != nil {
						t.Errorf("%s, waited for %v: it is not done", name, waited)
					}
				}
				if err := c.Err(); !errors.Is(err, row.want) {
					t.Errorf("%s, waited for %v: error %v after Done, want %v", name, waited, err, row.want)
				}
				if below != nil && !errors.Is(below.Err(), row.want) {
					t.Errorf("%s: error %v below, want %v", name, below.Err(), row.want)
				}
				endBelow()
				c.end()
				endParent()
			}
		}
	})
}

type testKey struct{}

func TestALazyContextHasTheValuesOfItsParent(t *testing.T) {
	t.Parallel()
	parent, cancel := context.WithTimeout(context.WithValue(t.Context(), testKey{}, "value"), time.Minute)
	defer cancel()
	theirs, _ := parent.Deadline()
	for own, want := range map[time.Time]time.Time{
		{}:                            theirs,
		theirs.Add(time.Second):       theirs,
		theirs.Add(-10 * time.Second): theirs.Add(-10 * time.Second),
	} {
		c := &lazyContext{Context: parent, deadline: own}
		if got, ok := c.Deadline(); !ok || !got.Equal(want) {
			t.Errorf("deadline %v, want %v", got, want)
		}
		if c.Value(testKey{}) != "value" || c.Done() == nil || c.Value(testKey{}) != "value" {
			t.Error("the parent's value is lost")
		}
		c.end()
	}
}

// A context below waits for it without a goroutine of its own, as below one of
// the context package.
func TestNoGoroutineWaitsBelowALazyContext(t *testing.T) {
	t.Parallel()
	c := &lazyContext{Context: t.Context(), deadline: time.Now().Add(time.Minute)}
	below, cancel := context.WithCancel(c)
	defer cancel()
	cause := errors.New("cause")
	// The context package finds its own kind above, or it would not see the cause.
	parent, endParent := context.WithCancelCause(context.Background())
	above := &lazyContext{Context: parent}
	under, cancelUnder := context.WithCancel(above)
	defer cancelUnder()
	endParent(cause)
	if got := context.Cause(under); !errors.Is(got, cause) {
		t.Errorf("cause %v: it was handed on by a goroutine", got)
	}
	c.end()
	if below.Err() == nil {
		t.Error("what is below goes on")
	}
}
