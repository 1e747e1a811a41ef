package decisionlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/jsontext"
)

// disorder is by how much the times of records may go back in a file: they are written
// in the order in which their answers end.
const disorder = time.Minute

// ErrNoFile is the error of Log.Recent if the log is written to standard output, a pipe
// or a device, which cannot be read again.
var ErrNoFile = errors.New("the decision log is written to no regular file")

// Query selects the newest records about a customer.
type Query struct {
	Customer eligibility.CustomerID
	// Partners are those whose records are selected; nil for all records. The empty name
	// selects records without a partner.
	Partners []string
	// From and Until are as in [Filter].
	From, Until time.Time
	// Limit is the most records that are selected.
	Limit int
	// Bytes bounds what is read, compressed files as they are without compression, and
	// Deadline when. Zero sets no bound.
	Bytes    int64
	Deadline time.Time
}

// End is why a search for recent records went no further back.
type End uint8

// The ends.
const (
	// EndOfFiles: all files were read, as far as they can hold what is selected.
	EndOfFiles End = iota
	// EndLimit: Query.Limit records were found.
	EndLimit
	// EndBytes and EndTime: Query.Bytes or Query.Deadline was reached.
	EndBytes
	EndTime
)

// Recent is the result of Log.Recent.
type Recent struct {
	// Records are the selected records, the newest first.
	Records []Record
	// Since is the time of the oldest record that was examined, beside those of
	// Faults; zero if there was none.
	Since time.Time
	End   End
	// Unreadable is how many lines that may be about the customer are no records, and
	// Hashed how many name their customer by a hash although the log has no key.
	Unreadable, Hashed int
	// Faults are files that could not be read, or not to their end.
	Faults []FileFault
}

// FileFault is a file that could not be read. Kind is one of those of Log.Health.
type FileFault struct{ Name, Kind string }

// Recent searches the files of the log, the current one and the rotated ones, for the
// newest records that query selects. A plain file is read from its end, and no further
// than needed. It runs on the caller's goroutine and needs some 4 MiB. It returns the
// cause of ctx if that ends, and an error if the directory cannot be read.
func (l *Log) Recent(ctx context.Context, query *Query) (Recent, error) {
	filter := &Filter{Customer: &query.Customer, From: query.From, Until: query.Until}
	if l.cfg.HashKey != nil {
		filter.HashKey = l.cfg.HashKey()
	}
	r := newReading(ctx, query, NewSearch(filter))
	if l.cfg.File == Stdout {
		return r.found, ErrNoFile
	}
	files, err := openFiles(l.cfg.File)
	if err != nil {
		return r.found, err
	}
	defer files.close()
	if files.current != nil {
		err = r.file(files.current)
	}
	for _, name := range files.rotated {
		if err != nil {
			break
		}
		err = r.open(filepath.Join(files.dir, name))
	}
	switch {
	case errors.Is(err, errEnough):
	case err != nil:
		return r.found, err
	}
	slices.SortStableFunc(r.found.Records, func(a, b Record) int { return b.Time.Compare(a.Time) })
	return r.found, nil
}

// IsFile reports whether the log is written to a regular file, which may not exist yet.
func (l *Log) IsFile() bool {
	if l.cfg.File == Stdout {
		return false
	}
	info, err := os.Stat(l.cfg.File)
	return err != nil || info.Mode().IsRegular()
}

// errEnough ends a search; Recent.End has the reason.
var errEnough = errors.New("the search has ended")

// logFiles are the files of a log. A file that is rotated while they are listed is
// among them once.
type logFiles struct {
	current *os.File // nil: there is none
	dir     string
	rotated []string // the newest first
}

// openFiles opens the file at path and lists its rotated files.
func openFiles(path string) (*logFiles, error) {
	if followed, err := filepath.EvalSymlinks(path); err == nil {
		path = followed
	}
	files := &logFiles{dir: filepath.Dir(path)}
	for range 10 {
		files.close()
		var err error
		if files.current, err = openRegular(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if files.rotated, err = rotatedFiles(path); err != nil {
			files.close()
			return nil, err
		}
		if files.isAt(path) {
			break
		}
	}
	return files, nil
}

// isAt reports whether the current file is still the one at path.
func (f *logFiles) isAt(path string) bool {
	now, err := os.Stat(path)
	if err != nil || f.current == nil {
		return err != nil && f.current == nil
	}
	opened, err := f.current.Stat()
	return err == nil && os.SameFile(opened, now)
}

func (f *logFiles) close() {
	if f.current != nil {
		_ = f.current.Close() // only read
		f.current = nil
	}
}

// openRegular opens a regular file for reading. It does not open a pipe, whose writer
// would lose what it writes.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrNoFile
	}
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //nolint:gosec // the operator names the file
}

// reading is one run of Recent.
type reading struct {
	ctx    context.Context //nolint:containedctx // of one call
	query  *Query
	search *Search
	found  Recent
	bytes  int64

	buf, blocks []byte // nil before the first use

	// A line that the service has written is selected if it has one of questions and one
	// of partners, if these are not nil, as no text in JSON has such quotes.
	questions, partners [][]byte
}

func newReading(ctx context.Context, query *Query, search *Search) *reading {
	r := &reading{ctx: ctx, query: query, search: search}
	for _, customer := range search.customers {
		r.questions = append(r.questions, []byte(`,"question":{"customer_id":"`+customer.String()+`"`))
	}
	for _, partner := range query.Partners {
		r.partners = append(r.partners, jsontext.AppendString([]byte(`,"partner":`), partner))
	}
	if query.Partners != nil && r.partners == nil {
		r.partners = [][]byte{}
	}
	return r
}

// open reads a rotated file, which may have been compressed since it was listed.
func (r *reading) open(path string) error {
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = openRegular(path + compressedEnd)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // it was too old to be kept
	case err != nil:
		r.fault(path, err)
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	return r.file(f)
}

// file reads a file, unless it begins after the time in question, and notes whether it
// could be read.
func (r *reading) file(f *os.File) error {
	err := r.read(f)
	if err == nil || errors.Is(err, errEnough) || r.ctx.Err() != nil {
		return err
	}
	r.fault(f.Name(), err)
	return nil
}

func (r *reading) read(f *os.File) error {
	var in input
	if err := in.read(f, f.Name()); err != nil {
		return err
	}
	if !r.query.Until.IsZero() {
		begins, known, err := firstTime(in)
		if err != nil || known && begins.After(r.query.Until.Add(disorder)) {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := in.read(f, f.Name()); err != nil {
			return err
		}
	}
	if in.compressed {
		return r.forwards(&in, f.Name())
	}
	return r.backwards(f)
}

func (r *reading) fault(path string, err error) {
	r.found.Faults = append(r.found.Faults, FileFault{Name: filepath.Base(path), Kind: errorKind(err)})
}

// proceed counts what is to be read, or returns why no more is.
func (r *reading) proceed(n int) error {
	switch {
	case r.ctx.Err() != nil:
		return context.Cause(r.ctx)
	case !r.query.Deadline.IsZero() && !time.Now().Before(r.query.Deadline):
		return r.end(EndTime)
	case r.query.Bytes > 0 && r.bytes+int64(n) > r.query.Bytes:
		return r.end(EndBytes)
	}
	r.bytes += int64(n)
	return nil
}

func (r *reading) end(end End) error {
	r.found.End = end
	return errEnough
}

// match parses a line that may be selected.
func (r *reading) match(line []byte, unended bool) (record Record, selected bool) {
	if !r.search.mayMatch(line) && bytes.HasPrefix(line, []byte(lineStart)) && line[len(line)-1] == '}' {
		return Record{}, false
	}
	record, selected, err := r.search.Select(line)
	switch {
	case errors.Is(err, ErrHashed):
		r.found.Hashed++
	case err != nil && !unended:
		r.found.Unreadable++
	}
	if selected && r.query.Partners != nil && !slices.Contains(r.query.Partners, record.Partner) {
		return Record{}, false
	}
	return record, selected
}

// lineTime returns the time of a line that the service has written.
func lineTime(line []byte) (at time.Time, known bool) {
	if !bytes.HasPrefix(line, []byte(lineStart)) {
		return at, false
	}
	text, _, _ := bytes.Cut(line[len(lineStart):min(len(line), len(lineStart)+64)], []byte{'"'})
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return at.UTC(), err == nil
}

// firstTime returns the time of the first line.
func firstTime(in io.Reader) (at time.Time, known bool, err error) {
	head := make([]byte, len(lineStart)+64)
	n, err := io.ReadFull(in, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return at, false, err
	}
	at, known = lineTime(head[:n])
	return at, known, nil
}
