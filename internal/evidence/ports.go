package evidence

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Query is what a [Source] is asked.
type Query struct {
	eligibility.Key
	// Priority ranks the query among those that wait for the budget, and may
	// rise meanwhile; nil is LevelSpare.
	Priority *Priority
	// Started is called when the first request is about to be sent, after every
	// queue; nil is allowed. It must not block.
	Started func()
}

// Source asks Partner Center. Implementations are safe for concurrent use.
type Source interface {
	// Fetch asks for one facet of one customer, now, within ctx. The caller
	// sets the evidence's FetchTime. Every error is an *Error of kind
	// KindUnavailable, KindThrottled, KindCredentials or KindInvalidResponse.
	Fetch(ctx context.Context, query Query) (eligibility.Evidence, eligibility.Call, error)
}

// Found is what a store holds under a key.
type Found struct {
	// Evidence is nil where the store holds none.
	Evidence *eligibility.Evidence
	Tier     eligibility.Tier
	// MustRevalidate says that a newer fact may be known elsewhere: the evidence
	// answers only where neither the shared tier nor Partner Center can be asked.
	MustRevalidate bool
}

// Store keeps evidence. Newer evidence replaces older, never the reverse. A
// store never fails: what it cannot reach or read is absent. Implementations
// are safe for concurrent use.
type Store interface {
	// Peek looks into this process only, at the caller's time; it makes no I/O.
	Peek(key eligibility.Key, now time.Time) Found
	// Load looks into the shared tier, all keys in one round trip, and keeps
	// what it found in this process. The result is in the order of keys; it
	// holds the newest evidence of either tier.
	Load(ctx context.Context, keys []eligibility.Key) []Found
	// LoadWithin is Load for a caller who would otherwise be refused for lack of
	// evidence: it waits for the shared tier as long as ctx allows, and queries it
	// even while it is left alone after faults.
	LoadWithin(ctx context.Context, keys []eligibility.Key) []Found
	// Lead settles which replica fetches, so that the fleet asks once: it waits,
	// within ctx, while another does. Whoever leads ends it by Share or Release.
	Acquire(ctx context.Context, claim Claim) Acquisition
	// Keep holds evidence in this process; no I/O. It returns the newest
	// evidence that is here then; nil where newer is known to be elsewhere.
	Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence
	// Share writes evidence to the shared tier, within ctx, and tells the other
	// replicas. From keepUntil on, nothing older can be usable, and it may be
	// forgotten.
	Share(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time)
	// Yield ends a lead without evidence; replicas that wait share the failure.
	Release(ctx context.Context, key eligibility.Key, failure error)
}

// Claim is what a [Store] is asked before a fetch.
type Claim struct {
	eligibility.Key
	// NotBefore bounds the FetchTime of another replica's evidence that serves
	// here as well; zero if any does. If it is still to come, no fetch in flight
	// elsewhere can serve, and the claim waits for none.
	NotBefore time.Time
	// Priority is as in [Query]. A claim in LevelCheckout does not wait for long
	// behind another replica's fetch in a lower level.
	Priority *Priority
}

// Acquisition says who fetches. The zero value says that this replica does.
type Acquisition struct {
	// Evidence is what another replica has fetched; nil if none has.
	Evidence *eligibility.Evidence
	// Err is why another replica's fetch, waited for, brought none; an *Error
	// or nil.
	Err error
}
