// Package decisionlog records why each question was answered as it was: one line of
// JSON for each answer, with all that is needed to derive it again.
//
// [Record] is one line. [Log] writes them to a file without delaying callers,
// unless the configuration asks for that.
package decisionlog

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// Schema names the form of a line. It is the value of its first member.
const Schema = "eligibilityd.decision.v1"

// Outcome is the answer to one question in one word. The zero value is an error.
type Outcome uint8

// The outcomes.
const (
	OutcomeError Outcome = iota
	OutcomeAllowed
	OutcomeBlocked
)

// String returns the word that stands for the outcome in a line.
func (o Outcome) String() string {
	switch o {
	case OutcomeAllowed:
		return "allowed"
	case OutcomeBlocked:
		return "blocked"
	default:
		return "error"
	}
}

// Record is the answer to one question and what it was derived from.
type Record struct {
	// Time is the moment of the answer: the one that Decide was given, if it was
	// reached.
	Time time.Time
	// DecisionID is the request ID, for an item of a batch with "/" and its place.
	DecisionID string
	// Caller, Person (a user of the console), Partner and TraceID are empty if
	// there is none or it is not known.
	Caller, Person, Partner string
	// Via is grpc or rest.
	Via       string
	RequestID string
	TraceID   string
	Question  Question
	// Basis is what Decide was given; its Time is zero if Decide was not reached.
	// Of the calls to Partner Center it holds nothing, of a failure only the kind.
	Basis eligibility.Basis
	// Policy is the partner's; nil if the partner is not known.
	Policy *Policy

	Outcome Outcome
	// Reasons are those of a decision, Kind is why there is none.
	Reasons []eligibility.ReasonCode
	Kind    eligibility.Kind
	// Stale reports that some evidence used was past its fresh age.
	Stale bool
	// Sampled is the share of such records that is written: 1 unless the answer is
	// a plain allowed one.
	Sampled float64
	// Version is that of the program that answered.
	Version string
	// Dropped is how many records were lost since the one before this.
	Dropped int64
}

// Question is the question of a record.
type Question struct {
	Customer Customer
	// Invalid reports that the question was refused as malformed. The fields below
	// are not known then.
	Invalid   bool
	Segment   eligibility.Segment
	Operation eligibility.Operation
	// MaxAge counts only if MaxAgeSet.
	MaxAge    time.Duration
	MaxAgeSet bool
	// MinEvidenceTime is zero if the caller set none.
	MinEvidenceTime time.Time
}

// Customer names a customer in a record, by ID or by a keyed hash of the ID. The zero
// value names none. It is comparable.
type Customer struct {
	id   [sha256.Size]byte // an ID takes the first 16
	form customerForm
}

type customerForm uint8

const (
	customerUnknown customerForm = iota
	customerPlain
	customerHashed
)

// PlainCustomer names a customer by ID.
func PlainCustomer(id eligibility.CustomerID) Customer {
	c := Customer{form: customerPlain}
	copy(c.id[:], id[:])
	return c
}

// HashedCustomer names a customer by the HMAC-SHA-256 of the canonical form of the ID,
// under key.
func HashedCustomer(key []byte, id eligibility.CustomerID) Customer { return newHasher(key).hash(id) }

// hasher hashes customers one after the other.
type hasher struct {
	key  []byte
	mac  hash.Hash
	text [36]byte
	sum  [sha256.Size]byte
}

func newHasher(key []byte) *hasher { return &hasher{key: key, mac: hmac.New(sha256.New, key)} }

func (h *hasher) hash(id eligibility.CustomerID) Customer {
	h.mac.Reset()
	h.mac.Write(id.Append(h.text[:0]))
	h.mac.Sum(h.sum[:0])
	return Customer{form: customerHashed, id: h.sum}
}

// ID returns the customer's ID; ok is false if the record has none or a hash of it.
func (c Customer) ID() (id eligibility.CustomerID, ok bool) {
	if c.form != customerPlain {
		return id, false
	}
	return eligibility.CustomerID(c.id[:len(id)]), true
}

// hashPrefix precedes the hexadecimal digits of a hash.
const hashPrefix = "hmac-sha256:"

// String returns the customer as a line names it: the ID in its canonical form, or
// "hmac-sha256:" and hexadecimal digits; empty if there is none.
func (c Customer) String() string { return string(c.append(nil)) }

func (c Customer) append(b []byte) []byte {
	switch c.form {
	case customerPlain:
		return eligibility.CustomerID(c.id[:16]).Append(b)
	case customerHashed:
		return hex.AppendEncode(append(b, hashPrefix...), c.id[:])
	default:
		return b
	}
}
