package logging

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// queueBytes bounds the records that wait to be written. The write in
	// progress may hold as many more.
	queueBytes = 1 << 20
	// syncTimeout bounds Sync: if the reader has stopped reading, it must not
	// delay the exit.
	syncTimeout = 400 * time.Millisecond
)

// Queue is a writer that never blocks: it queues each record, and a goroutine
// that runs while the queue is not empty writes them in order. If a record does
// not fit or cannot be written, it is dropped and counted. It is safe for
// concurrent use and need not be closed.
type Queue struct {
	out  io.Writer
	note func(dropped int64) []byte // nil writes no note

	mu      sync.Mutex    // guards the fields below
	pending []byte        // whole records, in order
	records int64         // in pending, notes aside
	noted   int64         // dropped records that the notes in pending count
	dropped int64         // not in a note yet
	total   int64         // all that were ever dropped
	idle    chan struct{} // closed when the goroutine ends; nil while none runs
}

// NewQueue returns a Queue that writes to out. It starts nothing.
func NewQueue(out io.Writer) *Queue { return &Queue{out: out} }

// Write queues p, which is one whole record. It always returns len(p), nil,
// even if the record is dropped.
func (q *Queue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.fits(p) {
		q.drop(1)
		return len(p), nil
	}
	q.pending = append(q.pending, p...)
	q.records++
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.drain(q.idle)
	}
	return len(p), nil
}

// fits reports whether p fits. If so, it queues the note of dropped records
// first. The caller holds the lock.
func (q *Queue) fits(p []byte) bool {
	if q.dropped == 0 {
		return len(q.pending)+len(p) <= queueBytes
	}
	var note []byte
	if q.note != nil {
		note = q.note(q.dropped)
	}
	if len(q.pending)+len(note)+len(p) > queueBytes {
		return false
	}
	q.pending = append(q.pending, note...)
	q.noted, q.dropped = q.noted+q.dropped, 0
	return true
}

// drop counts lost records. The caller holds the lock.
func (q *Queue) drop(n int64) {
	q.dropped += n
	q.total += n
}

// drain writes until nothing is pending or a write fails.
func (q *Queue) drain(idle chan struct{}) {
	defer close(idle)
	var spare []byte
	for {
		q.mu.Lock()
		if len(q.pending) == 0 && !(q.dropped > 0 && q.note != nil && q.fits(nil)) {
			q.idle = nil
			q.mu.Unlock()
			return
		}
		block, records, noted := q.pending, q.records, q.noted
		q.pending, q.records, q.noted = spare[:0], 0, 0
		q.mu.Unlock()

		_, err := q.out.Write(block)
		spare = block
		if err == nil {
			continue
		}
		q.mu.Lock()
		q.drop(records)
		q.dropped += noted
		q.idle = nil // the next record tries again
		q.mu.Unlock()
		return
	}
}

// Sync waits until all queued records are written, for at most 400 ms.
func (q *Queue) Sync() error {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return nil
	}
	timeout := time.NewTimer(syncTimeout)
	defer timeout.Stop()
	select {
	case <-idle:
		return nil
	case <-timeout.C:
		return errors.New("log: nothing reads it; the records that wait are lost")
	}
}

// Dropped returns the number of dropped records.
func (q *Queue) Dropped() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// Register registers the metric of the queue.
func (q *Queue) Register(registerer prometheus.Registerer) error {
	if err := registerer.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "eligibility_log_records_dropped_total",
		Help: "Log records dropped because nothing read the log in time, or it could not be written.",
	}, func() float64 { return float64(q.Dropped()) })); err != nil {
		return fmt.Errorf("log: register metrics: %w", err)
	}
	return nil
}
