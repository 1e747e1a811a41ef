package decisionlog

import (
	"bytes"
	"io"
	"os"
	"runtime"
)

// stepBytes is how much of a file is read at a time. After each step, other goroutines
// get the processor.
const stepBytes = 256 << 10

// backwards reads a plain file from its end.
func (r *reading) backwards(f *os.File) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if r.buf == nil {
		r.buf = make([]byte, stepBytes+MaxLine)
	}
	// tail is the end of the line that begins before at; skips reports that it is left
	// out, as the line is too long. last: the last line of the file was not seen yet.
	var tail []byte
	skips, last := false, true
	for at := size; at > 0; {
		n := int(min(at, stepBytes))
		if err := r.proceed(n); err != nil {
			return err
		}
		at -= int64(n)
		step := r.buf[:n]
		if _, err := f.ReadAt(step, at); err != nil {
			return err // it was truncated
		}
		runtime.Gosched()
		if skips {
			step = step[:bytes.LastIndexByte(step, '\n')+1]
			skips = len(step) == 0
		}
		first := 0 // where the first whole line begins
		if at > 0 {
			first = bytes.IndexByte(step, '\n') + 1
		}
		lines := append(step, tail...) //nolint:gocritic // in the same buffer, which has room
		if at > 0 && first == 0 {
			first = len(lines) // none does
		}
		if err := r.linesBackwards(lines[first:], &last); err != nil {
			return err
		}
		tail = append(tail[:0], lines[:first]...)
		if len(tail) > MaxLine {
			r.found.Unreadable++
			tail, skips, last = tail[:0], true, false
		}
	}
	return nil
}

// linesBackwards examines whole lines, the last one first.
func (r *reading) linesBackwards(lines []byte, last *bool) error {
	for len(lines) > 0 {
		begins := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
		line := lines[begins:]
		lines = lines[:begins]
		unended := *last && line[len(line)-1] != '\n'
		*last = false
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if at, known := lineTime(line); known {
			if !r.query.From.IsZero() && at.Before(r.query.From.Add(-disorder)) {
				return errEnough
			}
			r.found.Since = at
		}
		record, selected := r.match(line, unended)
		if !selected {
			continue
		}
		r.found.Records = append(r.found.Records, record)
		if len(r.found.Records) >= r.query.Limit {
			return r.end(EndLimit)
		}
	}
	return nil
}
