package evidence

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Query is one question to a [Source].
type Query struct {
	eligibility.Key
	// Priority ranks the query among those that wait for the budget, and may
	// rise during the wait; nil is LaneSpare.
	Priority *Priority
	// Started is called when the first request is about to be sent, after every
	// queue; nil is allowed. It must not block.
	Started func()
}

// Source fetches from Partner Center. Implementations are safe for concurrent use.
type Source interface {
	// Fetch requests one facet of one customer, now, within ctx. The caller
	// sets the evidence's FetchTime. Every error is an *Error of kind
	// KindUnavailable, KindThrottled, KindCredentials or KindInvalidResponse.
	Fetch(ctx context.Context, query Query) (eligibility.Evidence, eligibility.Call, error)
	// Room returns how many calls in lane the budget would admit, from now on and
	// within the life of a fetch, if nothing else asked for one.
	Room(ctx context.Context, lane Lane) int
	// Obstacles returns what keeps it from calling Partner Center now, the first that
	// a fetch meets first. It calls neither host and takes no permit.
	Obstacles(ctx context.Context) []Obstacle
}

// Found is what a store holds under a key.
type Found struct {
	// Evidence is nil if the store holds none.
	Evidence *eligibility.Evidence
	Tier     eligibility.Tier
	// MustRevalidate reports that another replica may have newer evidence: this
	// answers only if neither the shared tier nor Partner Center can be asked.
	MustRevalidate bool
	// Unread reports that the shared tier could not be read, so that it may hold
	// evidence, or newer evidence.
	Unread bool
}

// PeekAtOnce is how many customers a batch looks up before it decides about the first of
// them: a processor waits for what a look-up reads in memory, and for several at a time
// if nothing else stands between them.
const PeekAtOnce = 32

// Past is an entry of a customer's history: facts that Partner Center returned and that
// differed from those that were known before. It must not be changed.
type Past struct {
	// Evidence has the facts and the time of the first fetch that returned them. It is
	// abridged if it is as large as no real customer's, see [eligibility.Evidence.Abridge].
	Evidence *eligibility.Evidence
	// PreviousTime is when the facts before these were fetched last, those of the entry
	// before. It is zero if nothing was known before, or no longer, or if the entry
	// before is lost.
	PreviousTime time.Time
	// ConfirmedTime is when the same facts were fetched last, as far as is known, before
	// any others. It is zero if they were not fetched again.
	ConfirmedTime time.Time
}

// Store keeps evidence. Newer evidence replaces older, never the reverse. But for
// History, a store never fails: what it cannot reach or read is absent.
// Implementations are safe for concurrent use.
type Store interface {
	// Peek looks into this process only, at the caller's time; it makes no I/O.
	Peek(key eligibility.Key, now time.Time) Found
	// PeekBoth is Peek for both facets of a customer, in one look.
	PeekBoth(id eligibility.CustomerID, now time.Time) (account, qualifications Found)
	// PeekAll is PeekBoth for several customers, up to PeekAtOnce: founds[i] is what is
	// found of ids[i], by facet.
	PeekAll(ids []eligibility.CustomerID, now time.Time, founds *[PeekAtOnce][2]Found)
	// Load looks into the shared tier, all keys in one round trip, and keeps
	// what it found in this process. The result is in the order of keys; it
	// holds the newest evidence of either tier.
	Load(ctx context.Context, keys []eligibility.Key) []Found
	// LoadWithin is Load for a caller who would otherwise be refused for lack of
	// evidence: it waits for the shared tier as long as ctx allows, and queries it
	// even if the circuit breaker is open.
	LoadWithin(ctx context.Context, keys []eligibility.Key) []Found
	// Acquire requests the lease of a key, so that one replica fetches for all: it
	// waits, within ctx, while another replica holds it. The holder ends the lease
	// with Share or Release.
	Acquire(ctx context.Context, claim Claim) Acquisition
	// Put stores evidence in this process; no I/O. It returns the newest
	// evidence that is here then; nil if newer is known to be elsewhere.
	Put(key eligibility.Key, evidence *eligibility.Evidence) *eligibility.Evidence
	// Share writes evidence to the shared tier, within ctx, and publishes it to
	// the other replicas. From keepUntil on, nothing older can be usable, and the
	// evidence may expire.
	Share(ctx context.Context, key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time)
	// Release ends a lease without evidence; replicas that wait share the failure.
	Release(ctx context.Context, key eligibility.Key, failure error)
	// History returns the last changes in what Partner Center returned about a
	// customer, of either facet up to 50, newest first. It fails if the shared tier
	// cannot be read within ctx. The error may have the text of another system: it is
	// not for logs or callers.
	History(ctx context.Context, id eligibility.CustomerID) ([]Past, error)
}

// Claim is a request for the lease of a key, made before a fetch.
type Claim struct {
	eligibility.Key
	// NotBefore bounds the FetchTime of another replica's evidence that serves
	// here as well; zero if any does. If it is still to come, no fetch in flight
	// elsewhere can serve, and the claim waits for none.
	NotBefore time.Time
	// Priority is as in [Query]. A claim in LaneCheckout does not wait for long
	// behind another replica's fetch in a lower level.
	Priority *Priority
}

// Acquisition is the result of Acquire. The zero value means that this replica
// holds the lease and fetches.
type Acquisition struct {
	// Evidence is what another replica has fetched; nil if none has.
	Evidence *eligibility.Evidence
	// Err is why another replica's fetch, waited for, brought none; an *Error
	// or nil.
	Err error
}

// NewCustomersKey is the key of a context's *allowance.NewCustomers, by which
// [Service.Check] bounds the new customers of its caller; without it, they are not
// bounded.
type NewCustomersKey struct{}
