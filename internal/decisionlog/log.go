package decisionlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/logging"
)

const (
	// maxQueued bounds the records that wait to be written, or are being written. One
	// of more than largeRecord bytes counts as several.
	maxQueued   = 10_000
	largeRecord = 8 << 10
	// chunkBytes is how many bytes of whole lines are written at a time.
	chunkBytes = 64 << 10
	// maxSpare bounds the chunks that are kept for use again.
	maxSpare = 8
	// linger is how long records are collected before they are written, unless a chunk
	// is full before.
	linger = 10 * time.Millisecond
	// retryAfter is the pause after a failed write, and reportEvery how often one is
	// logged.
	retryAfter  = time.Second
	reportEvery = time.Minute
)

// Config configures a [Log].
type Config struct {
	// File is where records are written: a path, or "-" for standard output. Only a
	// regular file is rotated.
	File string
	// MaxBytes is when a file is rotated, in whole MiB; MaxFiles, 1 or more, is how many
	// rotated ones are kept, in gzip.
	MaxBytes int64
	MaxFiles int
	// AllowedSample is the share, 0 to 1, of plain allowed answers that is written.
	AllowedSample float64
	// Block makes decisions wait until their record is queued. Records of errors, and
	// all records without Block, are dropped if the queue is full.
	Block bool
	// HashKey returns the key under which customers are hashed, which must not be
	// changed; nil writes their IDs. Another key is another slice.
	HashKey func() []byte
	// Version is that of the program.
	Version string
	// Logger reports failed writes; nil means nobody.
	Logger *zap.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Log writes records. It never delays a caller unless Config.Block is set. It is safe
// for concurrent use.
type Log struct {
	cfg        Config
	logger     *zap.Logger // limited
	metrics    *metrics
	conditions conditions
	hashers    sync.Pool // of *hasher, with the key in use or an earlier one
	buffers    sync.Pool // of *[]byte: lines before they are queued
	room       *semaphore.Weighted

	mu      sync.Mutex // guards the fields below
	queued  []*chunk
	spare   []*chunk
	dropped int64 // since the last record that was queued
	closed  bool  // nothing is written any more

	wake    chan struct{}           // gets a value when the queue is no longer empty
	full    chan struct{}           // gets a value when the first chunk is full
	reopen  chan struct{}           // gets a value when the file is to be opened again
	stop    chan struct{}           // closed by Close
	abandon chan struct{}           // closed when Close no longer waits
	ended   chan struct{}           // closed when Run ends
	rotated chan string             // gets the path of the file when it was rotated
	tidied  chan struct{}           // closed when rotated files are no longer tidied
	stream  atomic.Pointer[os.File] // the output, if a write to it can be interrupted
}

// chunk is whole lines that are written together.
type chunk struct {
	lines   []byte
	records int
	weight  int64 // of room
}

// New returns a Log, which opens its file when it has something to write. Call Run.
func New(cfg Config) (*Log, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	l := &Log{
		cfg: cfg, logger: logging.Limit(cfg.Logger, logging.NewLimiter(1, reportEvery)), room: semaphore.NewWeighted(maxQueued),
		buffers:    sync.Pool{New: func() any { return new([]byte) }},
		conditions: conditions{writing: health.New(nil), queue: health.New(nil)},
		wake:       make(chan struct{}, 1), full: make(chan struct{}, 1), reopen: make(chan struct{}, 1),
		stop: make(chan struct{}), abandon: make(chan struct{}), ended: make(chan struct{}),
		rotated: make(chan string, 1), tidied: make(chan struct{}),
	}
	var err error
	l.metrics, err = newMetrics(cfg.Registerer)
	return l, err
}

// KeyNotReloaded counts a changed hash key that cannot be loaded.
func (l *Log) KeyNotReloaded() { l.metrics.keyFailures.Inc() }

// Reopen makes Run open the file again, which somebody may have renamed.
func (l *Log) Reopen() { signal(l.reopen) }

// Write queues a record, or drops and counts it if the queue is full. If Config.Block is
// set, the record of a decision, which is no error, waits for room instead until ctx
// ends: Write then counts it as dropped and returns the error of ctx. It returns no error
// otherwise, unless the log is closed. It sets Sampled and Version, and hashes the
// customer if there is a key. It keeps nothing of r.
func (l *Log) Write(ctx context.Context, r *Record) error {
	r.Sampled, r.Version = 1, l.cfg.Version
	if r.isPlain() && l.cfg.AllowedSample < 1 {
		r.Sampled = l.cfg.AllowedSample
		if rand.Float64() >= r.Sampled { //nolint:gosec // a sample
			l.metrics.leftOut.Inc()
			return nil
		}
	}
	l.hash(&r.Question.Customer)
	buffer, _ := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buffer)
	*buffer = r.appendOpen((*buffer)[:0])
	weight := 1 + int64(len(*buffer)/largeRecord)
	waits := l.cfg.Block && r.Outcome != OutcomeError
	if !l.room.TryAcquire(weight) {
		if !waits {
			l.drop(1)
			l.conditions.queue.Degraded(kindDropping)
			return nil
		}
		l.conditions.queue.Degraded(kindWaiting)
		if err := l.room.Acquire(ctx, weight); err != nil {
			l.drop(1)
			return err
		}
	}
	if l.queue(*buffer, weight) {
		return nil
	}
	l.room.Release(weight)
	l.drop(1)
	if waits {
		return errClosed
	}
	return nil
}

var errClosed = errors.New("the decision log is closed")

// isPlain reports whether a record may be left out: the answer allows, by fresh
// evidence, and its caller did not demand newer.
func (r *Record) isPlain() bool {
	return r.Outcome == OutcomeAllowed && !r.Stale && !r.Question.MaxAgeSet && r.Question.MinEvidenceTime.IsZero()
}

// Name returns the customer as records name it. If there is no Log, it is the ID.
func (l *Log) Name(id eligibility.CustomerID) Customer {
	customer := PlainCustomer(id)
	if l != nil {
		l.hash(&customer)
	}
	return customer
}

func (l *Log) hash(customer *Customer) {
	id, plain := customer.ID()
	if l.cfg.HashKey == nil || !plain {
		return
	}
	key := l.cfg.HashKey()
	h, ok := l.hashers.Get().(*hasher)
	if !ok || &h.key[0] != &key[0] {
		h = newHasher(key)
	}
	*customer = h.hash(id)
	l.hashers.Put(h)
}

// queue appends an open line, for which there is room. It returns false if the log is
// closed.
func (l *Log) queue(line []byte, weight int64) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	wasEmpty := len(l.queued) == 0
	var into *chunk
	if !wasEmpty {
		into = l.queued[len(l.queued)-1]
	}
	// The end of a line has 40 bytes at most.
	if into == nil || into.records > 0 && len(into.lines)+len(line)+40 > chunkBytes {
		into = l.newChunk()
		l.queued = append(l.queued, into)
	}
	into.lines = appendEnd(append(into.lines, line...), l.dropped)
	into.records++
	into.weight += weight
	l.dropped = 0
	isFull := len(l.queued) > 1
	l.mu.Unlock()
	l.metrics.queued.Inc()
	if wasEmpty {
		signal(l.wake)
	}
	if isFull {
		signal(l.full)
	}
	return true
}

func (l *Log) newChunk() *chunk {
	if last := len(l.spare) - 1; last >= 0 {
		c := l.spare[last]
		l.spare = l.spare[:last]
		return c
	}
	return &chunk{lines: make([]byte, 0, chunkBytes)}
}

// drop counts lost records.
func (l *Log) drop(n int64) {
	l.metrics.dropped.Add(float64(n))
	l.mu.Lock()
	l.dropped += n
	l.mu.Unlock()
}

// take returns the first chunk, nil if there is none.
func (l *Log) take() *chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queued) == 0 {
		return nil
	}
	first := l.queued[0]
	l.queued[0] = nil
	l.queued = l.queued[1:]
	return first
}

// end lets no more records in, and counts those that wait as lost. It returns their
// number.
func (l *Log) end() (lost int) {
	l.mu.Lock()
	left := l.queued
	l.queued, l.closed = nil, true
	l.mu.Unlock()
	for _, c := range left {
		lost += c.records
		l.lose(c)
		l.release(c)
	}
	return lost
}

// release makes the room of a chunk free.
func (l *Log) release(c *chunk) {
	l.metrics.queued.Sub(float64(c.records))
	l.room.Release(c.weight)
	c.lines, c.records, c.weight = c.lines[:0], 0, 0
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.spare) < maxSpare && cap(c.lines) <= 2*chunkBytes {
		l.spare = append(l.spare, c)
	}
}

// signal gives c a value, unless it has one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
