package main

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Order is an order as it comes in, and how far it has come.
type Order struct {
	ID         string `json:"id"` // its idempotency key
	CustomerID string `json:"customer_id,omitempty"`
	Segment    string `json:"segment,omitempty"` // of the offer; empty means commercial

	State     state     `json:"state,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"` // of the change that made it due: no older evidence counts
	Watch     int       `json:"watch,omitempty"`     // the stream that reports about its customer, while it is parked
}

type state string

const (
	due      state = "due"      // has to be checked
	parked   state = "parked"   // waits for a change of its customer
	placed   state = "placed"   // with the order system
	refused  state = "refused"  // blocked, and waiting does not help
	rejected state = "rejected" // not an order, or of a customer who does not exist
)

// customer is a customer as a stream reports about it: for one segment.
type customer struct{ id, segment string }

func (o *Order) customer() customer { return customer{o.CustomerID, o.Segment} }

// record is a line of the journal: an order, or where a stream goes on.
type record struct {
	Order *Order `json:"order,omitempty"`
	Watch int    `json:"watch,omitempty"`
	Token string `json:"token,omitempty"`
}

// book holds all orders. A change is on the disk before the method that makes it
// returns; an error of the disk is final. It is safe for concurrent use.
type book struct {
	mu       sync.Mutex
	journal  *file[record]
	open     map[string]Order       // by id; due and parked ones
	finished map[string]state       // the others: they keep an order out that comes again
	tokens   map[int]string         // by stream
	last     int                    // number of a stream
	changed  map[customer]time.Time // the newest evidence that has made orders due
}

func openBook(path string) (b *book, err error) {
	b = &book{
		open: make(map[string]Order), finished: make(map[string]state),
		tokens: make(map[int]string), changed: make(map[customer]time.Time),
	}
	if b.journal, err = openFile(path, b.apply); err != nil {
		return nil, err
	}
	err = b.compact()
	return b, err
}

func (b *book) apply(r record) {
	switch o := r.Order; {
	case o == nil:
		b.tokens[r.Watch], b.last = r.Token, max(b.last, r.Watch)
	case o.State == due || o.State == parked:
		b.open[o.ID], b.last = *o, max(b.last, o.Watch)
	default:
		delete(b.open, o.ID)
		b.finished[o.ID] = o.State
	}
}

// write makes records last, then applies them.
func (b *book) write(records ...record) error {
	if len(records) == 0 {
		return nil
	}
	if err := b.journal.append(records...); err != nil {
		return err
	}
	for _, r := range records {
		b.apply(r)
	}
	if b.journal.lines > 1000+4*(len(b.open)+len(b.finished)) {
		return b.compact()
	}
	return nil
}

// compact replaces the journal by what is still of use.
func (b *book) compact() error {
	var all []record
	for id, state := range b.finished {
		all = append(all, record{Order: &Order{ID: id, State: state}})
	}
	tokens := make(map[int]string)
	for _, o := range b.open {
		all = append(all, record{Order: &o})
		if token := b.tokens[o.Watch]; token != "" && tokens[o.Watch] == "" {
			tokens[o.Watch] = token
			all = append(all, record{Watch: o.Watch, Token: token})
		}
	}
	b.tokens = tokens
	return b.journal.replace(all)
}

// accept adds an order, unless there is one with its id, whose state it then returns.
func (b *book) accept(o Order) (known state, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if before, open := b.open[o.ID]; open {
		return before.State, nil
	} else if known := b.finished[o.ID]; known != "" {
		return known, nil
	}
	return "", b.write(record{Order: &o})
}

// put replaces an order.
func (b *book) put(o Order) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(record{Order: &o})
}

// park makes a due order wait for a change of its customer after evidence, the time of
// the evidence that blocks it. If such a change has come since the check, the order
// stays due. park returns the order as it then is.
func (b *book) park(o Order, evidence time.Time) (Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if changed := b.changed[o.customer()]; changed.After(evidence) {
		o.NotBefore = changed
		return o, nil
	}
	o.State, o.Watch = parked, 0
	for _, other := range b.open {
		if other.State == parked && other.customer() == o.customer() {
			o.Watch = other.Watch
		}
	}
	err := b.write(record{Order: &o})
	return o, err
}

// release makes the parked orders of a customer due, after a change with evidence of
// that time, and returns them.
func (b *book) release(c customer, evidence time.Time) ([]Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if evidence.After(b.changed[c]) {
		b.changed[c] = evidence
	}
	var released []Order
	var records []record
	for _, o := range b.open {
		if o.State == parked && o.customer() == c {
			o.State, o.NotBefore, o.Watch = due, evidence, 0
			released, records = append(released, o), append(records, record{Order: &o})
		}
	}
	return released, b.write(records...)
}

// advance stores where a stream goes on; an empty token means anew.
func (b *book) advance(watch int, token string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write(record{Watch: watch, Token: token})
}

// orders returns the open orders.
func (b *book) orders() []Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.open))
}

// maxIDs is how many customers one stream may have.
const maxIDs = 1000

// watch is a stream: its number, its customers, and where it goes on.
type watch struct {
	number  int
	segment string
	ids     []string
	token   string
}

// watches returns the streams that the parked orders need. Orders whose customers are in
// none get one first: a new one, which begins with the current answers, since the token
// of another one is for the customers of that. So that there are few streams, the
// customers of others join the new one if there is room.
func (b *book) watches() (map[int]watch, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := make(map[customer]int)
	for _, o := range b.open {
		if c := o.customer(); o.State == parked {
			in[c] = max(in[c], o.Watch)
		}
	}
	streams, missing := make(map[int]watch), make(map[string][]string)
	for c, number := range in {
		if number == 0 {
			missing[c.segment] = append(missing[c.segment], c.id)
			continue
		}
		streams[number] = watch{number, c.segment, append(streams[number].ids, c.id), b.tokens[number]}
	}
	for segment, ids := range missing {
		for number, w := range streams {
			if w.segment == segment && len(w.ids)+len(ids) <= maxIDs {
				ids = append(ids, w.ids...)
				delete(streams, number)
			}
		}
		for some := range slices.Chunk(ids, maxIDs) {
			b.last++
			streams[b.last] = watch{number: b.last, segment: segment, ids: some}
			for _, id := range some {
				in[customer{id, segment}] = b.last
			}
		}
	}
	var records []record
	for _, o := range b.open {
		if number := in[o.customer()]; o.State == parked && o.Watch != number {
			o.Watch = number
			records = append(records, record{Order: &o})
		}
	}
	return streams, b.write(records...)
}
