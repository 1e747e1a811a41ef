package evidence

import "sync"

// Lane ranks fetches by who waits for them. A higher one is more urgent.
type Lane uint8

// The lanes, lowest first.
const (
	// LaneSpare is for evidence that no decision waits for: the qualifications
	// of a commercial question.
	LaneSpare Lane = iota
	// LaneBackground is for batches and early refreshes.
	LaneBackground
	// LaneCheckout is for callers who wait for one customer.
	LaneCheckout
)

// Priority is the lane of one fetch. It rises when a more urgent caller joins
// the fetch and never falls. A nil Priority stays in LaneSpare. It is safe for
// concurrent use.
type Priority struct {
	mu     sync.Mutex
	lane   Lane          // guarded by mu
	raised chan struct{} // closed and replaced by Raise; guarded by mu
}

// NewPriority returns a Priority in lane.
func NewPriority(lane Lane) *Priority {
	return &Priority{lane: lane, raised: make(chan struct{})}
}

// Lane returns the lane now.
func (p *Priority) Lane() Lane {
	lane, _ := p.Watch()
	return lane
}

// Watch returns the lane now and a channel that is closed when it next rises.
func (p *Priority) Watch() (Lane, <-chan struct{}) {
	if p == nil {
		return LaneSpare, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lane, p.raised
}

// Raise moves the fetch up to lane, unless it is there or above.
func (p *Priority) Raise(lane Lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lane <= p.lane {
		return
	}
	p.lane = lane
	close(p.raised)
	p.raised = make(chan struct{})
}
