package eligibility

import (
	"context"
	"time"
)

// Call describes what a fetch did upstream, for logs. The zero value means
// that no call was made.
type Call struct {
	// Attempts counts HTTP requests, replays included.
	Attempts int
	// Status is the last HTTP status, 0 where no response came.
	Status int
	// CorrelationID and RequestID are the last MS-CorrelationId and MS-RequestId.
	CorrelationID string
	RequestID     string
}

// Query is what a [Source] is asked.
type Query struct {
	Key
	// Urgent is closed once a caller waits who asked about this one customer.
	// Until then the query is background work, a batch's or a renewal's, and
	// lets urgent ones go first. Nil is never urgent.
	Urgent <-chan struct{}
}

// Source asks Partner Center. Implementations are safe for concurrent use.
type Source interface {
	// Fetch asks for one facet of one customer, now, within ctx. The caller
	// sets the evidence's FetchTime. Every error is an *Error of kind
	// KindUnavailable, KindThrottled, KindCredentials or KindInvalidResponse.
	Fetch(ctx context.Context, query Query) (Evidence, Call, error)
}

// Tier is a place that evidence came from; a larger one is slower.
type Tier uint8

// The tiers. TierNone stands where no evidence was used.
const (
	TierNone Tier = iota
	TierLocal
	TierRedis
	TierPartnerCenter
)

// Found is what a store holds under a key.
type Found struct {
	// Evidence is nil where the store holds none.
	Evidence *Evidence
	Tier     Tier
	// Untrusted says that a newer fact may be known elsewhere: the evidence
	// answers only where neither the shared tier nor Partner Center can be asked.
	Untrusted bool
}

// Store keeps evidence. Newer evidence replaces older, never the reverse. A
// store never fails: what it cannot reach or read is absent. Implementations
// are safe for concurrent use.
type Store interface {
	// Peek looks into this process only; it makes no I/O.
	Peek(key Key) Found
	// Load looks into the shared tier, all keys in one round trip, and keeps
	// what it found in this process. The result is in the order of keys; it
	// holds the newest evidence of either tier.
	Load(ctx context.Context, keys []Key) []Found
	// Keep holds evidence in this process until it is no longer usable; no I/O.
	Keep(key Key, evidence *Evidence, usableUntil time.Time)
	// Share writes evidence to the shared tier, within ctx.
	Share(ctx context.Context, key Key, evidence *Evidence, usableUntil time.Time)
}
