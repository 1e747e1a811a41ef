package evidence

import "sync"

// Level ranks fetches by the callers that wait for them. A higher one is served
// first.
type Level uint8

// The levels, lowest first.
const (
	// LevelSpare is for evidence that no decision waits for: the qualifications
	// of a commercial question.
	LevelSpare Level = iota
	// LevelBackground is for batches and early refreshes.
	LevelBackground
	// LevelCheckout is for callers that wait for one customer.
	LevelCheckout
)

// Priority is the level of one fetch. It rises when a more urgent caller joins
// the fetch and never falls. A nil Priority stays at LevelSpare. It is safe for
// concurrent use.
type Priority struct {
	mu     sync.Mutex
	level  Level         // guarded by mu
	raised chan struct{} // closed and replaced by Raise; guarded by mu
}

// NewPriority returns a Priority at level.
func NewPriority(level Level) *Priority {
	return &Priority{level: level, raised: make(chan struct{})}
}

// Level returns the current level.
func (p *Priority) Level() Level {
	level, _ := p.Watch()
	return level
}

// Watch returns the current level and a channel that is closed when it next rises.
func (p *Priority) Watch() (Level, <-chan struct{}) {
	if p == nil {
		return LevelSpare, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.level, p.raised
}

// Raise moves the fetch up to level, unless it is there or above.
func (p *Priority) Raise(level Level) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if level <= p.level {
		return
	}
	p.level = level
	close(p.raised)
	p.raised = make(chan struct{})
}
