package decisionlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/DeRuina/timberjack"
)

// Stdout is the Config.File that stands for standard output.
const Stdout = "-"

// fileMode is that of the files that are created.
const fileMode = 0o600

// output is where lines go.
type output struct {
	// WriteCloser writes lines. If it fails, the last of them may be written in part.
	io.WriteCloser

	path  string // of a regular file, which exists once writing has begun; "" for others
	begun bool
	file  fs.FileInfo // the one at the path, as last seen; nil if there was none
}

// rotated reports whether another file is at the path than the last time.
func (o *output) rotated() bool {
	if o.path == "" {
		return false
	}
	before := o.file
	o.file, _ = os.Stat(o.path) // nil with an error
	return before != nil && o.file != nil && !os.SameFile(before, o.file)
}

// gone reports whether the file was renamed or removed.
func (o *output) gone() bool {
	if o.path == "" || !o.begun {
		return false
	}
	_, err := os.Lstat(o.path)
	return errors.Is(err, fs.ErrNotExist)
}

// open opens the file.
func (l *Log) open() (*output, error) {
	if l.cfg.File == Stdout {
		return l.openStdout()
	}
	info, err := os.Stat(l.cfg.File)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return l.openStream(l.cfg.File)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	path, err := resolve(l.cfg.File)
	if err != nil {
		return nil, err
	}
	if info != nil {
		if err := repair(path); err != nil {
			return nil, err
		}
	}
	return l.openRegular(path), nil
}

// resolve returns the path of a regular file without symbolic links, so that the file is
// rotated where it is. If there is no file, its directory must exist: the library would
// create that, on the wrong volume if one is gone.
func resolve(path string) (string, error) {
	if info, err := os.Lstat(path); err != nil {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		return filepath.Join(dir, filepath.Base(path)), err
	} else if info.Mode()&fs.ModeSymlink != 0 { // its target may be missing
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, fileMode) //nolint:gosec // the operator names the file
		if err != nil {
			return "", err
		}
		_ = f.Close() // nothing was written
	}
	return filepath.EvalSymlinks(path)
}

// openRegular opens a regular file, which it creates with the first line. The library
// only rotates: its compression would hold up closing, and it prints what fails.
func (l *Log) openRegular(path string) *output {
	out := &output{path: path, WriteCloser: &timberjack.Logger{
		Filename: path, MaxSize: int(l.cfg.MaxBytes >> 20), BackupTimeFormat: timestampLayout, FileMode: fileMode,
	}}
	out.rotated()
	return out
}

// openStdout opens standard output. A pipe is opened anew, so that a write to it can
// be interrupted.
func (l *Log) openStdout() (*output, error) {
	if info, err := os.Stdout.Stat(); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		if out, err := l.openStream("/dev/stdout"); err == nil {
			return out, nil
		}
	}
	return &output{WriteCloser: keptOpen{os.Stdout}}, nil
}

type keptOpen struct{ io.Writer }

// Close does nothing.
func (keptOpen) Close() error { return nil }

// openStream opens what is not a regular file: a pipe, whose reader may be missing or
// silent, or a device.
func (l *Log) openStream(path string) (*output, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|syscall.O_NONBLOCK, 0) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	l.stream.Store(f)
	return &output{WriteCloser: f}, nil
}

var errForeign = errors.New("its last line has no end, and it is no decision log: move the file away, or set decision_log.file to another path")

// repair cuts off a last line that has no end: the process was killed, or the disk was
// full, while it was written. A crash of the machine may have left zero bytes there. A
// line that is too long to be ours gets an end. If the file is none of ours, it is left
// alone, and repair returns an error.
func repair(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0) //nolint:gosec // the operator names the file
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // truncated, or read again
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	filled, err := withoutZeros(f, size)
	if err != nil || size == 0 {
		return err
	}
	tail := make([]byte, min(filled, 2*MaxLine)) // the last line and the one before
	start := filled - int64(len(tail))
	if _, err := f.ReadAt(tail, start); err != nil {
		return err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	unended := tail[end:]
	switch {
	case len(unended) == 0 && filled == size:
		return nil
	case len(unended) > MaxLine:
		head := make([]byte, len(lineStart))
		if _, err := f.ReadAt(head, 0); err != nil || string(head) != lineStart {
			return fmt.Errorf("%s: %w", path, errForeign)
		}
		if err := f.Truncate(filled); err != nil {
			return err
		}
		_, err := f.Write(newline)
		return err
	}
	ours := bytes.HasPrefix(unended, []byte(lineStart)) || bytes.HasPrefix([]byte(lineStart), unended)
	if end > 0 {
		before := bytes.LastIndexByte(tail[:end-1], '\n') + 1
		ours = ours && (before > 0 || start == 0) && bytes.HasPrefix(tail[before:end], []byte(lineStart))
	}
	if !ours {
		return fmt.Errorf("%s: %w", path, errForeign)
	}
	return f.Truncate(start + int64(end))
}

// withoutZeros returns the size of a file without the zero bytes at its end.
func withoutZeros(f *os.File, size int64) (int64, error) {
	block := make([]byte, 64<<10)
	for size > 0 {
		last := block[:min(size, int64(len(block)))]
		if _, err := f.ReadAt(last, size-int64(len(last))); err != nil {
			return 0, err
		}
		filled := len(bytes.TrimRight(last, "\x00"))
		size -= int64(len(last) - filled)
		if filled > 0 {
			break
		}
	}
	return size, nil
}
