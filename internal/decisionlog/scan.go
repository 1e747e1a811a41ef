package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// blockBytes is how much of a file a worker gets at a time. A line that may be a
	// record takes no more than half of it.
	blockBytes = 2 * MaxLine
	// maxWorkers bounds the goroutines that examine blocks.
	maxWorkers = 8
)

// LineError reports a line of a decision log that cannot be read, or the rest of the
// file from there on.
type LineError struct {
	File string
	Line int // the first is 1; 0 if the file was not opened
	Err  error
}

// Error returns the place and the cause.
func (f *LineError) Error() string {
	if f.Line == 0 {
		return f.Err.Error() // an error of os names the file
	}
	return fmt.Sprintf("%s:%d: %v", f.File, f.Line, f.Err)
}

// Unwrap returns the cause.
func (f *LineError) Unwrap() error { return f.Err }

// ErrUnfinished is the error of a [LineError] if the last line of the file has no end and
// is no record: it is being written.
var ErrUnfinished = errors.New("the last line is not complete")

// Scanner reads the lines of decision logs: plain or gzipped files, which it tells
// apart by their contents.
type Scanner struct {
	// Files are read in this order; "-" is Stdin.
	Files []string
	Stdin io.Reader

	read atomic.Int64
}

// Read returns how many bytes of the files were read until now. It is safe for
// concurrent use.
func (s *Scanner) Read() int64 { return s.read.Load() }

// Scan calls each for each line of the scanner's files that is not blank, on several
// goroutines. The line has no line break and is valid only during the call. What each
// collects in its first argument is passed to done, in the order of the files, a
// block of lines at a time, with the faults in that block: an error of each is the
// fault of its line. done is called on the goroutine of Scan.
//
// Scan returns the error of done or, when ctx ends, its cause. It then may leave a
// goroutine that reads Stdin.
func Scan[T any](ctx context.Context, s *Scanner, each func(collected *T, line []byte) error, done func(collected *T, faults []LineError) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	buffers := 2*workers + 1
	sc := &scan[T]{
		scanner: s, ctx: ctx,
		free: make(chan []byte, buffers), work: make(chan *block[T], buffers), ordered: make(chan *block[T], buffers),
	}
	for range buffers {
		sc.free <- nil
	}
	go sc.readFiles()
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for b := range sc.work {
				b.examine(each)
				close(b.examined)
			}
		})
	}
	err := sc.collect(done)
	if err == nil {
		working.Wait()
	}
	return err
}

// scan is one run of Scan. One goroutine reads blocks, the workers examine them, and
// the caller's goroutine collects them in the order in which they were read.
type scan[T any] struct {
	scanner *Scanner
	ctx     context.Context //nolint:containedctx // of one call

	// free holds the buffers, nil before the first use. There are no more blocks than
	// buffers, so that nothing blocks on the other channels.
	free    chan []byte
	work    chan *block[T]
	ordered chan *block[T]
}

// block is a part of a file, and what each has collected of it.
type block[T any] struct {
	part

	buf       []byte // holds the lines
	collected T
	faults    []LineError
	examined  chan struct{} // closed when collected and faults are complete
}

func (sc *scan[T]) collect(done func(*T, []LineError) error) error {
	for {
		var b *block[T]
		select {
		case next, more := <-sc.ordered:
			if !more {
				return context.Cause(sc.ctx) // after which the reader stops early
			}
			b = next
		case <-sc.ctx.Done():
			return context.Cause(sc.ctx)
		}
		<-b.examined
		if err := done(&b.collected, b.faults); err != nil {
			return err
		}
		sc.free <- b.buf
	}
}

// examine calls each for every line.
func (b *block[T]) examine(each func(*T, []byte) error) {
	number := b.first
	for line := range bytes.Lines(b.lines) {
		record := bytes.TrimSpace(line)
		var err error
		switch {
		case len(line) > MaxLine:
			err = errTooLong
		case len(record) > 0:
			err = each(&b.collected, record)
		}
		if err != nil && !errors.Is(err, errTooLong) && b.last && line[len(line)-1] != '\n' {
			err = ErrUnfinished
		}
		if err != nil {
			b.faults = append(b.faults, LineError{b.file, number, err})
		}
		number++
	}
	if b.ends != nil {
		b.faults = append(b.faults, *b.ends)
	}
}

// readFiles reads all files.
func (sc *scan[T]) readFiles() {
	defer close(sc.ordered)
	defer close(sc.work)
	for _, name := range sc.scanner.Files {
		if !sc.readFile(name) {
			return
		}
	}
}

// readFile reads one file. It returns false if the scan has ended.
func (sc *scan[T]) readFile(name string) bool {
	in, err := sc.scanner.open(name)
	if err != nil {
		buf, ok := sc.buffer()
		if ok {
			sc.send(&block[T]{part: part{ends: &LineError{File: name, Err: err}}, buf: buf})
		}
		return ok
	}
	defer in.close()
	lines := cutter{in: in, file: name, number: 1}
	for {
		buf, ok := sc.buffer()
		if !ok {
			return false
		}
		b := &block[T]{buf: buf}
		ended := lines.next(buf, &b.part)
		sc.send(b)
		if ended {
			return true
		}
	}
}

// buffer waits for a buffer. It returns false if the scan has ended.
func (sc *scan[T]) buffer() ([]byte, bool) {
	select {
	case buf := <-sc.free:
		if buf == nil {
			buf = make([]byte, blockBytes)
		}
		return buf, sc.ctx.Err() == nil
	case <-sc.ctx.Done():
		return nil, false
	}
}

func (sc *scan[T]) send(b *block[T]) {
	b.examined = make(chan struct{})
	sc.ordered <- b
	sc.work <- b
}
