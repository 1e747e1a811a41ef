package changes

import (
	"sort"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// ringEntries and ringBytes bound what a ring holds; it holds one entry of any size.
	ringEntries = 10_000
	ringBytes   = 64 << 20
)

// eventKey identifies an event as its id does, in fewer bytes.
type eventKey struct {
	key     eligibility.Key
	what    Type
	fetched int64
}

func keyOf(c *Change) eventKey { return eventKey{c.Key, c.Type, c.After.FetchTime.UnixNano()} }

// record is an entry of the ring: a change, or a gap.
type record struct {
	// change is nil for a gap: entries up to position were removed from the partition
	// before this process read them.
	change   *Change
	position Position
	bit      uint64 // of the partition
	// again reports that cursors may have returned the change before: it was read
	// again after it had left the ring, or stands in the feed twice.
	again bool
	// earlier is the number of the record with the same event, plus 1; 0 if none was
	// in the ring. Cursors that passed it skip this one.
	earlier uint64
	at      place // after the record
	token   string
	size    int
}

// ring holds the latest changes. Records are numbered from 0.
type ring struct {
	entries int // how many records it holds at most
	records []record
	first   uint64 // the number of records[0]
	size    int
	known   map[eventKey]uint64 // the number of the last record with an event
	// floor is a time in Unix ms: all later entries that were read are in the ring.
	floor int64
}

func (r *ring) end() uint64 { return r.first + uint64(len(r.records)) }

func (r *ring) get(number uint64) *record { return &r.records[number-r.first] }

// holds reports whether the same event at the same position is in the ring.
func (r *ring) holds(c *Change, at Position) bool {
	number, ok := r.known[keyOf(c)]
	return ok && r.get(number).position == at
}

// concerns reports whether a cursor has something to do with the records from seq on.
func (r *ring) concerns(seq uint64, c *Cursor) bool {
	if seq < r.first {
		return true // it has fallen behind
	}
	for i := seq - r.first; i < uint64(len(r.records)); i++ {
		if c.wants(&r.records[i]) {
			return true
		}
	}
	return false
}

// add appends a record, whose place and token are set, and removes the oldest.
func (r *ring) add(rec record) {
	rec.size = 256
	if rec.change != nil {
		rec.size += sizeOf(rec.change.Before) + sizeOf(rec.change.After)
		key := keyOf(rec.change)
		if earlier, ok := r.known[key]; ok {
			rec.earlier, rec.again = earlier+1, true
		}
		r.known[key] = r.end()
	}
	r.records = append(r.records, rec)
	r.size += rec.size
	for len(r.records) > r.entries || r.size > ringBytes && len(r.records) > 1 {
		r.removeFirst()
	}
}

func (r *ring) removeFirst() {
	rec := &r.records[0]
	if rec.change != nil {
		if key := keyOf(rec.change); r.known[key] == r.first {
			delete(r.known, key)
		}
	}
	r.floor = max(r.floor, rec.position.Millis)
	r.size -= rec.size
	*rec = record{} // the array keeps it until append replaces the array
	r.records = r.records[1:]
	r.first++
}

// after returns the number of a record before which all are of from, in Unix ms, or
// earlier. ok is false if some later ones have left the ring.
func (r *ring) after(from int64) (number uint64, ok bool) {
	if from < r.floor {
		return 0, false
	}
	// The latest entry so far never decreases, even if an entry is out of order.
	i := sort.Search(len(r.records), func(i int) bool { return r.records[i].at.last.Millis > from })
	return r.first + uint64(i), true //nolint:gosec // an index
}

// sizeOf estimates the memory of evidence.
func sizeOf(evidence *eligibility.Evidence) int {
	if evidence == nil {
		return 0
	}
	size := 256 + len(evidence.StatusText) + len(evidence.CorrelationID)
	for i := range evidence.Qualifications {
		q := &evidence.Qualifications[i]
		size += 128 + len(q.TypeText) + len(q.VettingStatusText) + len(q.VettingReason)
	}
	return size
}
