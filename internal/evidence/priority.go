package evidence

import "sync"

// Lane ranks fetches by what waits for them, for the budget of Partner Center. A
// higher one is served first.
type Lane uint8

// The lanes, lowest first.
const (
	// LaneSpare is for evidence that no decision waits for: the qualifications
	// of a commercial question.
	LaneSpare Lane = iota
	// LaneReview is for customers under review that nobody asked about just now.
	LaneReview
	// LaneRefresh is for early refreshes.
	LaneRefresh
	// LanePrefetch is for customers that a shop expects to ask about soon.
	LanePrefetch
	// LaneBatch is for callers that wait for many customers.
	LaneBatch
	// LaneCheckout is for callers that wait for one customer.
	LaneCheckout

	// Lanes is the number of lanes.
	Lanes = iota
)

// String returns the lane's name for logs and metrics.
func (l Lane) String() string {
	return [Lanes]string{"spare", "review", "refresh", "prefetch", "batch", "checkout"}[l]
}

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

// Lane returns the current lane.
func (p *Priority) Lane() Lane {
	lane, _ := p.Watch()
	return lane
}

// Watch returns the current lane and a channel that is closed when it next rises.
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
