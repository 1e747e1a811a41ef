package api

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lazyContext is a context that ends with its RPC, or before it at a deadline.
// It costs nothing until somebody waits for that end or hangs another context
// below it, which an answer from memory never does. It is safe for concurrent
// use, but for deadline, which is set before it is handed on.
type lazyContext struct {
	context.Context //nolint:containedctx // its parent

	deadline time.Time // zero if only the parent may have one

	mu     sync.Mutex // held to resolve and to end
	waited atomic.Pointer[cancelable]
	ended  atomic.Bool
}

// cancelable is what a lazyContext becomes once somebody waits for it.
type cancelable struct {
	context.Context //nolint:containedctx // it stands for the one that holds it
	cancel          context.CancelFunc
}

// Deadline returns its own deadline, or its parent's if that is earlier.
func (c *lazyContext) Deadline() (time.Time, bool) {
	theirs, ok := c.Context.Deadline()
	if c.deadline.IsZero() || ok && theirs.Before(c.deadline) {
		return theirs, ok
	}
	return c.deadline, true
}

// Done returns the channel that its end closes.
func (c *lazyContext) Done() <-chan struct{} { return c.resolve().Done() }

// Err returns why it has ended, or nil.
func (c *lazyContext) Err() error {
	if waited := c.waited.Load(); waited != nil {
		return waited.Err()
	}
	switch err := c.Context.Err(); {
	case err != nil:
		return err
	case c.ended.Load():
		return context.Canceled
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Value returns the parent's value, and lets the context package find what
// Done has made.
func (c *lazyContext) Value(key any) any {
	if waited := c.waited.Load(); waited != nil {
		return waited.Value(key)
	}
	return c.Context.Value(key)
}

func (c *lazyContext) resolve() *cancelable {
	if waited := c.waited.Load(); waited != nil {
		return waited
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if waited := c.waited.Load(); waited != nil {
		return waited
	}
	waited := new(cancelable)
	if c.deadline.IsZero() {
		waited.Context, waited.cancel = context.WithCancel(c.Context)
	} else {
		waited.Context, waited.cancel = context.WithDeadline(c.Context, c.deadline)
	}
	if c.ended.Load() {
		waited.cancel()
	}
	c.waited.Store(waited)
	return waited
}

// end ends it, unless it has ended.
func (c *lazyContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended.Store(true)
	if waited := c.waited.Load(); waited != nil {
		waited.cancel()
	}
}
