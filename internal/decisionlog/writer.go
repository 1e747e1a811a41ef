package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// Run writes records until Close is called, and then those that are left. Call it once.
// Rotated files are compressed by a goroutine, which Close ends.
func (l *Log) Run() {
	go l.keepRotated()
	defer close(l.ended)
	w := writer{log: l}
	defer l.end()
	defer w.close()
	for stopping := false; !stopping; {
		select {
		case <-l.stop:
			stopping = true
		case <-l.reopen:
			w.close()
		case <-l.wake:
			l.collect()
		}
		for c := l.take(); c != nil; c = l.take() {
			written := w.write(c)
			l.lose(c)
			l.release(c)
			if !written {
				return
			}
		}
		l.conditions.queue.OK()
	}
}

// Close makes Run end once all records are written, and waits for that until ctx ends.
// It returns an error if records are lost. Those of later calls of Write are, and are
// counted. A compression is abandoned; the next process does it.
func (l *Log) Close(ctx context.Context) error {
	close(l.stop)
	select {
	case <-l.ended:
		select {
		case <-l.tidied:
		case <-ctx.Done():
		}
		return nil
	case <-ctx.Done():
	}
	close(l.abandon)
	if f := l.stream.Load(); f != nil {
		_ = f.SetWriteDeadline(time.Now()) // Run ends if that works, and with the process otherwise
	}
	return fmt.Errorf("decision log: %w: %d records are lost beside those being written", ctx.Err(), l.end())
}

// lose counts the records of a chunk that were not written.
func (l *Log) lose(c *chunk) {
	if left := bytes.Count(c.lines, newline); left > 0 {
		l.metrics.dropped.Add(float64(left))
	}
}

var newline = []byte("\n") //nolint:gochecknoglobals // bytes.Count wants one

// collect waits until a chunk is full, for linger at most.
func (l *Log) collect() {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.full:
	case <-l.stop:
	}
}

// writer writes to one output after the other. It belongs to Run.
type writer struct {
	log *Log
	out *output // nil if none is open
	// tidied is the last path whose rotated files were found by this process.
	tidied string
}

var errAbandoned = errors.New("the process ends")

// write writes the lines of a chunk, and removes them from it. If that fails, it tries
// again until it succeeds, or returns false once Run is to end at once.
func (w *writer) write(c *chunk) bool {
	l := w.log
	for {
		err := w.attempt(c)
		if err == nil {
			l.conditions.writing.OK()
			return true
		}
		l.conditions.writing.Failed(errorKind(err))
		l.metrics.failures.Inc()
		l.logger.Error("decision log cannot be written; trying again every second", zap.Error(err))
		w.close()
		again := time.NewTimer(retryAfter)
		select {
		case <-again.C:
		case <-l.reopen:
		case <-l.abandon:
			again.Stop()
			return false
		}
		again.Stop()
	}
}

// attempt writes the lines of a chunk once, and removes those that were written whole.
func (w *writer) attempt(c *chunk) error {
	if w.out != nil && w.out.gone() {
		w.close()
	}
	if w.out == nil {
		var err error
		if w.out, err = w.log.open(); err != nil {
			return err
		}
	}
	select {
	case <-w.log.abandon:
		return errAbandoned
	default:
	}
	n, err := w.out.Write(c.lines)
	w.out.begun = w.out.begun || n > 0
	if w.out.rotated() || w.out.path != w.tidied && err == nil {
		w.tidied = w.out.path
		select {
		case w.log.rotated <- w.out.path:
		default: // it will be looked at
		}
	}
	whole := c.lines[:bytes.LastIndexByte(c.lines[:n], '\n')+1]
	w.log.metrics.written.Add(float64(bytes.Count(whole, newline)))
	c.lines = c.lines[:copy(c.lines, c.lines[len(whole):])]
	return err
}

func (w *writer) close() {
	if w.out == nil {
		return
	}
	if err := w.out.Close(); err != nil {
		w.log.metrics.failures.Inc()
		w.log.logger.Error("decision log cannot be closed", zap.Error(err))
	}
	w.out = nil
	w.log.stream.Store(nil)
}
