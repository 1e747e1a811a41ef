package webhooks

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// ErrNotHeld is the error of a Commit whose holder has lost the lease.
var ErrNotHeld = errors.New("the lease of the webhook is not held")

// Record is a letter in a Store, which does not read Value.
type Record struct {
	ID string
	// Order is the order of dead letters: that in which the oldest are dropped.
	Order int64
	Value []byte
}

// Commit is what a holder writes at once.
type Commit struct {
	// State replaces the state; see State.
	State []byte
	// Park adds records to those that wait for a further attempt, or replaces them.
	Park []Record
	// Bury moves records to the dead letters, of which at most MaxDead are kept.
	Bury []Record
	// Remove removes records by their ids.
	Remove []string
}

// Status is what a Store knows about a webhook.
type Status struct {
	// Held reports that the lease is the caller's.
	Held bool
	// Holder is who holds the lease, as passed to Acquire; empty if nobody does.
	Holder string
	// State is what was committed last; nil if nothing was, or it is unreadable.
	State []byte
	// Generation counts the replays by operators.
	Generation int64
	// Parked and Dead are how many records there are, Dropped how many dead letters
	// made room for newer ones.
	Parked, Dead, Dropped int64
	// Oldest is when the oldest change that is not delivered was written; zero if
	// there is none.
	Oldest time.Time
}

// Condition returns how the webhook with a URL stands: delivering, backing_off until a
// time, disabled, or no_sender.
func (s *Status) Condition(url string, now time.Time) (word string, until time.Time) {
	state := ParseState(s.State)
	switch until := time.UnixMilli(state.PausedUntil); {
	case state.DisabledFor(url, s.Generation):
		return "disabled", time.Time{}
	case s.Holder == "":
		return "no_sender", time.Time{}
	case until.After(now):
		return "backing_off", until
	default:
		return "delivering", time.Time{}
	}
}

// Lag returns the age of the oldest change that is not delivered; 0 if there is none.
func (s *Status) Lag(now time.Time) time.Duration {
	if s.Oldest.IsZero() {
		return 0
	}
	return max(now.Sub(s.Oldest), 0)
}

// Sender names the machine whose process sends; empty if none does.
func (s *Status) Sender() string {
	_, host, _ := strings.Cut(s.Holder, " ")
	return host
}

// Store keeps the state of webhooks for all processes that share it. It is safe for
// concurrent use.
type Store interface {
	// Acquire takes the lease for a holder, or renews it, and records the oldest
	// undelivered change, unless another holds it.
	Acquire(ctx context.Context, name, holder string, life time.Duration, oldest time.Time) (Status, error)
	// Release ends the lease if holder has it.
	Release(ctx context.Context, name, holder string) error
	// Commit writes all of a commit or, if holder has lost the lease, nothing and
	// returns ErrNotHeld.
	Commit(ctx context.Context, name, holder string, commit Commit) error
	// Parked returns the records that wait for a further attempt. The Value of one
	// that is damaged or forged is nil.
	Parked(ctx context.Context, name string) ([]Record, error)
	// Inspect returns the status and changes nothing.
	Inspect(ctx context.Context, name string) (Status, error)
}

// State is the state of a webhook beside its letters.
type State struct {
	// Position is the resume token up to which all changes are delivered, filtered
	// out, or in a record.
	Position string `json:"position,omitempty"`
	// Disabled is the URL, hashed, that answered 410, and DisabledIn the generation
	// in which it did: a replay or another URL enables the webhook.
	Disabled   string `json:"disabled,omitempty"`
	DisabledIn int64  `json:"disabledIn,omitempty"`
	// FailingSince, Failures and PausedUntil describe how the webhook as a whole
	// backs off; zero if it does not. Times are Unix ms.
	FailingSince int64 `json:"failingSince,omitempty"`
	Failures     int   `json:"failures,omitempty"`
	PausedUntil  int64 `json:"pausedUntil,omitempty"`
}

// ParseState reads a Status.State; one that is unreadable is the zero State.
func ParseState(text []byte) State {
	var state State
	if json.Unmarshal(text, &state) != nil {
		return State{}
	}
	return state
}

// DisabledFor reports whether the webhook is disabled for a URL.
func (s State) DisabledFor(url string, generation int64) bool {
	return s.Disabled != "" && s.Disabled == hashURL(url) && s.DisabledIn == generation
}

// Letter is a change that waits for a further attempt, or a dead letter. Times are
// Unix ms.
type Letter struct {
	ID         string `json:"id"`
	CustomerID string `json:"customer"`
	// Seq is the letter's place among those of its customer.
	Seq int64 `json:"seq"`
	// Written is when the change was written, Since when its first attempt failed,
	// Next when the next attempt is due, and Buried when it became a dead letter.
	Written  int64 `json:"written"`
	Since    int64 `json:"since,omitempty"`
	Next     int64 `json:"next,omitempty"`
	Buried   int64 `json:"buried,omitempty"`
	Attempts int   `json:"attempts"`
	// Body is what is sent.
	Body json.RawMessage `json:"body"`
}

// ParseLetter reads a Record.Value.
func ParseLetter(value []byte) (Letter, error) {
	var letter Letter
	err := json.Unmarshal(value, &letter)
	return letter, err
}

func (i *item) letter() Letter {
	return Letter{
		ID: i.id, CustomerID: i.customer.String(), Seq: i.seq,
		Written: millis(i.written), Since: millis(i.since), Next: millis(i.next), Buried: millis(i.buried), Attempts: i.attempts,
		Body: i.body,
	}
}

// record encodes an item for the store.
func (i *item) record() Record {
	value, err := json.Marshal(i.letter())
	if err != nil { // the body is JSON that this package made
		return Record{}
	}
	return Record{ID: i.id, Order: millis(i.buried), Value: value}
}

// itemOf decodes a record. A letter that was replayed starts anew.
func itemOf(record Record) (*item, bool) {
	letter, err := ParseLetter(record.Value)
	if err != nil || letter.ID != record.ID || len(letter.Body) == 0 {
		return nil, false
	}
	customer, err := eligibility.ParseCustomerID(letter.CustomerID)
	if err != nil {
		return nil, false
	}
	i := &item{
		id: letter.ID, customer: customer, body: letter.Body, seq: letter.Seq, written: fromMillis(letter.Written),
		since: fromMillis(letter.Since), next: fromMillis(letter.Next), attempts: max(letter.Attempts, 0), parked: true,
	}
	if letter.Buried != 0 {
		i.since, i.next, i.attempts = time.Time{}, time.Time{}, 0
	}
	return i, true
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
