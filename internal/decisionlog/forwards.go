package decisionlog

import (
	"bytes"
	"errors"
	"runtime"
	"time"
)

// maxKeptLine is the longest line that is kept unparsed.
const maxKeptLine = 16 << 10

// newest keeps the newest of the records that it is given, in the order of the file.
type newest struct {
	kept []candidate // a ring once it is full
	room int
	seen int
}

// candidate is a record, or the line of one.
type candidate struct {
	record Record
	line   []byte // empty: record is parsed
}

// slot returns the place of the next record.
func (n *newest) slot() *candidate {
	at := n.seen % n.room
	n.seen++
	if at == len(n.kept) {
		n.kept = append(n.kept, candidate{})
	}
	return &n.kept[at]
}

// forwards reads a compressed file, of which only the newest records that are selected
// are kept. One that is not read to its end is as if it was not read, but for damage.
func (r *reading) forwards(in *input, name string) error {
	found := newest{room: r.query.Limit - len(r.found.Records)}
	unreadable, hashed := r.found.Unreadable, r.found.Hashed
	var damage error
	var begins time.Time
	lines := cutter{in: in, file: name, number: 1}
	if r.blocks == nil {
		r.blocks = make([]byte, blockBytes)
	}
	for ended := false; !ended; {
		var b part
		ended = lines.next(r.blocks, &b)
		runtime.Gosched()
		if err := r.proceed(len(b.lines)); err != nil {
			r.found.Unreadable, r.found.Hashed = unreadable, hashed
			return err
		}
		for line := range bytes.Lines(b.lines) {
			if line = bytes.TrimSpace(line); len(line) == 0 {
				continue
			}
			at, known := lineTime(line)
			if known && begins.IsZero() {
				begins = at
			}
			r.keep(&found, line, at, known)
		}
		switch {
		case b.ends == nil:
		case errors.Is(b.ends, errTooLong):
			r.found.Unreadable++
		default:
			damage = b.ends
		}
	}
	if !begins.IsZero() {
		r.found.Since = begins
	}
	r.take(&found)
	switch {
	case damage != nil:
		return damage
	case found.seen >= found.room:
		return r.end(EndLimit)
	case !begins.IsZero() && !r.query.From.IsZero() && begins.Before(r.query.From.Add(-disorder)):
		return errEnough
	}
	return nil
}

// keep keeps the record of a line if it is selected. Parsing takes much longer than
// reading, so that it waits until all newer lines are known.
func (r *reading) keep(found *newest, line []byte, at time.Time, known bool) {
	if known && len(line) <= maxKeptLine && r.search.inTime(at) && containsAny(line, r.questions) && (r.partners == nil || containsAny(line, r.partners)) {
		slot := found.slot()
		slot.line = append(slot.line[:0], line...)
		return
	}
	if record, selected := r.match(line, false); selected {
		*found.slot() = candidate{record: record}
	}
}

// take adds the records that were kept, the newest first.
func (r *reading) take(found *newest) {
	for i := range found.kept {
		of := &found.kept[(found.seen-1-i)%len(found.kept)]
		selected := true
		if len(of.line) > 0 {
			of.record, selected = r.match(of.line, false)
		}
		if selected {
			r.found.Records = append(r.found.Records, of.record)
		}
	}
}
