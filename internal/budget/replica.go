package budget

import (
	"context"
	"time"
)

const (
	// announceEvery is how often a replica announces itself.
	announceEvery = 5 * time.Second
	// storeEvery is how often a pause is written again that could not be stored.
	storeEvery = 250 * time.Millisecond
)

// Replica is how a process announces itself to those that share its budget.
type Replica struct {
	Host    string `json:"host"`
	Version string `json:"version"`
	// PerMinute is its configured budget.
	PerMinute int `json:"budget_per_minute"`
	// Policy is its policy and its ages as text: equal texts mean equal policies.
	Policy string `json:"policy"`
}

// Fleet is the replicas that announced themselves within the last minute.
type Fleet struct {
	Size int
	// Place is that of this replica among them, from 0 on: each has its own.
	Place int
	// Replicas are all of them, by place.
	Replicas []Replica
}

// Run announces this replica until ctx ends, follows the shared state while no call
// is made, and stores a pause that could not be stored at once.
func (b *Budget) Run(ctx context.Context) {
	if b.shared == nil {
		return
	}
	announce, store := time.NewTicker(announceEvery), time.NewTicker(storeEvery)
	defer announce.Stop()
	defer store.Stop()
	b.announce(ctx)
	for {
		select {
		case <-announce.C:
			b.announce(ctx)
		case <-store.C:
			b.store(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// announce announces this replica and counts all of them. If Shared is out of
// reach, the last count stays.
func (b *Budget) announce(ctx context.Context) {
	if fleet, err := b.shared.Announce(ctx, b.replica); err == nil {
		b.mu.Lock()
		b.fleet, b.announced = fleet, b.now()
		b.mu.Unlock()
	}
	b.do(ctx, Step{Kind: KindLook})
}
