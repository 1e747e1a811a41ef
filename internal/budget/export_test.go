package budget

import (
	"context"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Announce is what Run does from time to time.
func Announce(ctx context.Context, b *Budget) { b.announce(ctx) }

// Alone reports whether the shared budget was out of reach when last asked.
func Alone(b *Budget) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alone
}

// Waiting is how many calls wait in a lane.
func Waiting(b *Budget, lane evidence.Lane) int { return int(b.lanes[lane].waiting.Load()) }
