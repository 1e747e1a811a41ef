package decisionlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// OneOfEach returns files without those that hold records a second time, or not yet:
// the plain form of a compressed file that is named, too, and what a compression is
// writing. These are returned as left out.
func OneOfEach(files []string) (kept, leftOut []string) {
	named := make(map[string]bool, len(files))
	for _, name := range files {
		named[filepath.Clean(name)] = true
	}
	for _, name := range files {
		base := filepath.Base(name)
		if named[filepath.Clean(name)+compressedEnd] || strings.HasPrefix(base, temporaryStart) && strings.HasSuffix(base, temporaryEnd) {
			leftOut = append(leftOut, name)
		} else {
			kept = append(kept, name)
		}
	}
	return kept, leftOut
}

// part is a part of a file that consists of whole lines.
type part struct {
	file  string
	first int        // number of the first line
	lines []byte     // may end without a line break if the file does
	last  bool       // the file ends here and is plain, so that it may still be written
	ends  *LineError // behind the lines; nil if there is none
}

// cutter cuts what it reads into parts.
type cutter struct {
	in     *input
	file   string
	number int    // of the next line
	rest   []byte // its beginning
	skips  bool   // the rest of a line that is too long is skipped
}

// next reads once and fills p with the lines that are complete. buf, which is longer
// than two lines may be, will hold them. It returns true at the end of the file.
func (c *cutter) next(buf []byte, p *part) (ended bool) {
	kept := copy(buf, c.rest)
	n, err := c.in.Read(buf[kept:])
	filled := buf[:kept+n]
	if c.skips {
		end := bytes.IndexByte(filled, '\n')
		if end < 0 {
			filled = nil
		} else {
			filled, c.skips = filled[end+1:], false
			c.number++
		}
	}
	end := bytes.LastIndexByte(filled, '\n') + 1
	if err != nil && errors.Is(err, io.EOF) {
		end = len(filled)
	}
	*p = part{file: c.file, first: c.number, lines: filled[:end], last: errors.Is(err, io.EOF) && !c.in.compressed}
	c.number += bytes.Count(p.lines, []byte{'\n'})
	c.rest = append(c.rest[:0], filled[end:]...)
	switch {
	case len(c.rest) >= MaxLine:
		p.ends = &LineError{c.file, c.number, errTooLong}
		c.rest, c.skips = c.rest[:0], true
	case err != nil && !errors.Is(err, io.EOF):
		p.ends = &LineError{c.file, c.number, fmt.Errorf("the rest of the file cannot be read: %w", err)}
	}
	return err != nil
}

// input is one file of a Scanner.
type input struct {
	io.Reader

	file       io.Closer // nil if it stays open
	compressed bool
}

// open opens a file, and finds out whether it is gzipped.
func (s *Scanner) open(name string) (*input, error) {
	in := &input{}
	source := s.Stdin
	if name != "-" {
		file, err := os.Open(name) //nolint:gosec // the user names the file
		if errors.Is(err, fs.ErrNotExist) {
			if compressed, failed := os.Open(name + compressedEnd); failed == nil { //nolint:gosec // compressed since it was named
				file, err = compressed, nil
			}
		}
		if err != nil {
			return nil, err
		}
		in.file, source = file, file
	}
	if err := in.read(&counted{source, s}, name); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// read makes in read from source, of a file with that name, and finds out whether it is
// gzipped.
func (in *input) read(source io.Reader, name string) error {
	buffered := bufio.NewReaderSize(source, 64<<10)
	in.Reader = buffered
	magic, _ := buffered.Peek(2) // an error is returned once more by Read
	if in.compressed = strings.HasSuffix(name, ".gz") || bytes.Equal(magic, []byte{0x1f, 0x8b}); !in.compressed {
		return nil
	}
	unzipped, err := gzip.NewReader(buffered)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	in.Reader = unzipped
	return nil
}

func (in *input) close() {
	if in.file != nil {
		_ = in.file.Close() // only read
	}
}

// counted counts what is read from a file.
type counted struct {
	io.Reader

	scanner *Scanner
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.scanner.read.Add(int64(n))
	return n, err
}
