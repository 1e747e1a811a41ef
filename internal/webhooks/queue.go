package webhooks

import (
	"cmp"
	"container/heap"
	"container/list"
	"slices"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// item is a change that is to be sent.
type item struct {
	id       string
	customer eligibility.CustomerID
	body     []byte
	seq      int64     // among those of the customer
	written  time.Time // when the change was written
	attempts int
	since    time.Time // when the first attempt failed
	next     time.Time // when it may be sent
	buried   time.Time // when it became a dead letter
	parked   bool      // a record of it is stored

	place *list.Element // in the window; nil if it does not keep the position
}

// queue holds the items of one customer, in order. The first is being sent if busy.
type queue struct {
	items []*item
	busy  bool
	place int // in due; -1 if not there
}

// queues are the items of all customers, and the queues with something to send by
// when it is due.
type queues struct {
	customers map[eligibility.CustomerID]*queue
	items     map[string]*item // by id
	due       dueHeap
}

func newQueues() *queues {
	return &queues{customers: make(map[eligibility.CustomerID]*queue), items: make(map[string]*item)}
}

// add adds an item in the order of its customer's, behind one that is being sent. It
// reports false if there is one with its id.
func (q *queues) add(i *item) bool {
	if q.items[i.id] != nil {
		return false
	}
	q.items[i.id] = i
	of := q.customers[i.customer]
	if of == nil {
		of = &queue{place: -1}
		q.customers[i.customer] = of
	}
	from := 0
	if of.busy {
		from = 1
	}
	at, _ := slices.BinarySearchFunc(of.items[from:], i.seq, func(other *item, seq int64) int { return cmp.Compare(other.seq, seq) })
	of.items = slices.Insert(of.items, from+at, i)
	q.schedule(of)
	return true
}

// isBehind reports whether an earlier item of the customer has to be sent first, and
// waits for a further attempt.
func (q *queues) isBehind(i *item) bool {
	of := q.customers[i.customer]
	return of != nil && of.items[0] != i && of.items[0].attempts > 0
}

// take returns the next item that is due, and marks its customer busy; nil if there
// is none.
func (q *queues) take(now time.Time) *item {
	if len(q.due) == 0 || q.due[0].items[0].next.After(now) {
		return nil
	}
	of := q.due[0]
	of.busy = true
	q.schedule(of)
	return of.items[0]
}

// free marks the customer of i as no longer busy.
func (q *queues) free(i *item) {
	of := q.customers[i.customer]
	of.busy = false
	q.schedule(of)
}

// remove removes an item.
func (q *queues) remove(i *item) {
	delete(q.items, i.id)
	of := q.customers[i.customer]
	of.items = slices.DeleteFunc(of.items, func(other *item) bool { return other == i })
	q.schedule(of)
	if len(of.items) == 0 {
		delete(q.customers, i.customer)
	}
}

// hasten makes everything due at now.
func (q *queues) hasten(now time.Time) {
	for _, i := range q.items {
		if i.next.After(now) {
			i.next = now
		}
	}
	heap.Init(&q.due)
}

// oldest returns when the oldest item was written; zero if there is none.
func (q *queues) oldest() time.Time {
	var oldest time.Time
	for _, i := range q.items {
		if oldest.IsZero() || i.written.Before(oldest) {
			oldest = i.written
		}
	}
	return oldest
}

// waiting returns the items that are not being sent.
func (q *queues) waiting() []*item {
	var all []*item
	for _, of := range q.customers {
		from := 0
		if of.busy {
			from = 1
		}
		all = append(all, of.items[from:]...)
	}
	return all
}

// schedule corrects the place of a queue in due.
func (q *queues) schedule(of *queue) {
	waits := !of.busy && len(of.items) > 0
	switch {
	case waits && of.place < 0:
		heap.Push(&q.due, of)
	case waits:
		heap.Fix(&q.due, of.place)
	case of.place >= 0:
		heap.Remove(&q.due, of.place)
	}
}

// dueHeap is a heap of queues by when their first item is due.
type dueHeap []*queue //nolint:recvcheck // container/heap asks for both

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(a, b int) bool {
	x, y := h[a].items[0], h[b].items[0]
	return cmp.Or(x.next.Compare(y.next), cmp.Compare(x.seq, y.seq)) < 0
}

func (h dueHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].place, h[b].place = a, b
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	of := x.(*queue) //nolint:forcetypeassert // the heap holds nothing else
	of.place = len(*h)
	*h = append(*h, of)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	of := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	of.place = -1
	return of
}

// window holds a place for each change that was read and keeps the position: it is
// neither sent nor recorded elsewhere. The token of a place is the position once it
// and all before it are done.
type window struct {
	open     list.List // of string
	position string
}

// read adds a place for a change that is to be sent.
func (w *window) read(token string) *list.Element { return w.open.PushBack(token) }

// skip records that nothing is to be sent up to a token.
func (w *window) skip(token string) {
	if last := w.open.Back(); last != nil {
		last.Value = token
	} else {
		w.position = token
	}
}

// done removes a place.
func (w *window) done(place *list.Element) {
	before, token := place.Prev(), w.open.Remove(place).(string) //nolint:forcetypeassert // the list holds nothing else
	if before != nil {
		before.Value = token
	} else {
		w.position = token
	}
}
