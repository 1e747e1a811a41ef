// Package health keeps the state of what the service depends on, for operators to
// read. Nothing in the service decides by it.
package health

import (
	"sync/atomic"
	"time"
)

// State is how a component fares.
type State uint8

// The states, from the least to the most worth a look.
const (
	// Unknown: it was not used yet, or another replica uses it.
	Unknown State = iota
	// OK: it worked when it was last used.
	OK
	// Degraded: it failed when it was last used, and may work the next time.
	Degraded
	// Failing: it does not work, or somebody must act.
	Failing
)

// String returns the state's name for operators.
func (s State) String() string {
	switch s {
	case OK:
		return "ok"
	case Degraded:
		return "degraded"
	case Failing:
		return "failing"
	default:
		return "unknown"
	}
}

// Condition is what is known of a component at one moment.
type Condition struct {
	State State
	// Since is when State became what it is.
	Since time.Time
	// Kind is the kind of the last error, one of a fixed set of words, and Time is when
	// it was. They stay when the component works again; zero if there was none.
	Kind string
	Time time.Time
}

// Worst returns the worst state of some conditions, since when, and the latest error.
// They fail since the first of them does, and work since the last of them does.
func Worst(first Condition, others ...Condition) Condition {
	worst := first
	for _, c := range others {
		sets := c.Since.Before(worst.Since)
		if c.State == OK {
			sets = c.Since.After(worst.Since)
		}
		if c.State > worst.State || c.State == worst.State && sets {
			worst.State, worst.Since = c.State, c.Since
		}
		if c.Time.After(worst.Time) {
			worst.Kind, worst.Time = c.Kind, c.Time
		}
	}
	return worst
}

// sameError is how long after an error another one of its kind changes nothing.
const sameError = time.Second

// Component is the condition of one component. It is safe for concurrent use and has
// no lock: as long as nothing changes, a report costs an atomic load, and one of an
// error the time of day.
type Component struct {
	now     func() time.Time
	current atomic.Pointer[Condition]
}

// New returns a Component that is Unknown since now. A nil now means time.Now.
func New(now func() time.Time) *Component {
	if now == nil {
		now = time.Now
	}
	c := &Component{now: now}
	c.current.Store(&Condition{Since: now()})
	return c
}

// OK reports that the component works.
func (c *Component) OK() { c.set(OK, "") }

// Degraded reports an error of that kind, after which the component may work.
func (c *Component) Degraded(kind string) { c.set(Degraded, kind) }

// Failed reports an error of that kind that shows that the component does not work.
func (c *Component) Failed(kind string) { c.set(Failing, kind) }

// Forget reports that nothing is known of the component any more.
func (c *Component) Forget() { c.set(Unknown, "") }

// Read returns the condition.
func (c *Component) Read() Condition { return *c.current.Load() }

func (c *Component) set(state State, kind string) {
	for {
		old := c.current.Load()
		if old.State == state && kind == "" {
			return
		}
		now := c.now()
		if age := now.Sub(old.Time); old.State == state && old.Kind == kind && age >= 0 && age < sameError {
			return
		}
		next := *old
		if old.State != state {
			next.State, next.Since = state, now
		}
		if kind != "" {
			next.Kind, next.Time = kind, now
		}
		if c.current.CompareAndSwap(old, &next) {
			return
		}
	}
}

// Source is a component under its name.
type Source struct {
	// Name says which kind of component it is. Partner, Webhook and Issuer distinguish
	// those of one kind; empty if they do not apply.
	Name, Partner, Webhook, Issuer string
	// Read returns its condition. It must not block.
	Read func() Condition
}
