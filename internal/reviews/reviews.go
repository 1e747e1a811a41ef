// Package reviews checks customers under review without a caller, so that the end of
// a review becomes known although nobody asks.
//
// The replicas share a list of reviews, which package cache keeps beside the evidence:
// a customer is on it as long as the stored evidence is a block that may pass by
// itself. A [Loop] in each replica takes the reviews that are due and fetches them.
package reviews

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// TakenFor is how long a review that was taken is not due again, unless its evidence
// is stored or it is rescheduled: a replica that dies delays its reviews by that.
const TakenFor = 30 * time.Second

// State is what one partition of the list holds.
type State struct {
	// Tracked is how many reviews there are, and Due how many of them are due.
	Tracked, Due int
	// Late is for how long the first of them has been due; 0 if none is.
	Late time.Duration
}

// Taken is a review that a replica has taken.
type Taken struct {
	eligibility.Key
	// Due is when it was due, by the clock of the list.
	Due time.Time
	// Since is since when the customer is under review, by the clock of the list, as
	// the list has it, and Pending how long that is.
	Since   time.Time
	Pending time.Duration
	// Until is when it is due again if nothing happens.
	Until time.Time
}

// Review is a review on the list.
type Review struct {
	eligibility.Key
	// StatusText is the word that Partner Center sent; "" if the evidence is not known.
	StatusText string
	// Since is since when the customer is under review, and Next when it is checked
	// next.
	Since, Next time.Time
	// Last is when it was last checked; zero if the evidence is not known.
	Last time.Time
}

// List is the list of reviews that the replicas share. Its methods fail within a
// short time. Implementations are safe for concurrent use.
type List interface {
	// Look returns the state of each partition; nil for those that are out of reach.
	// With repair, it also looks for reviews whose due time was lost. It fails if all
	// are out of reach.
	Look(ctx context.Context, repair bool) ([]*State, error)
	// Take takes up to most[i] of the reviews that are due in partition i, those that
	// have been due for longest, and returns all of them in the order of Due. Those of
	// partitions that are out of reach are left out.
	Take(ctx context.Context, most []int) []Taken
	// Reschedule makes a review that was taken due at another time, unless its
	// evidence was stored, or it was taken again, since.
	Reschedule(ctx context.Context, taken Taken, due time.Time) error
	// Abandon removes a review and adds its end, with the evidence of now, to the feed
	// of changes. It does nothing, and returns false, if the review has ended or was
	// abandoned before.
	Abandon(ctx context.Context, taken Taken, evidence *eligibility.Evidence) (bool, error)
	// Page returns up to size reviews that follow after, and where the next page
	// begins; nil if there are no more.
	Page(ctx context.Context, after Place, size int) ([]Review, *Place, error)
	// Of returns the reviews of a customer, the account's first.
	Of(ctx context.Context, id eligibility.CustomerID) ([]Review, error)
}
