// Package reload keeps what was read from files current while they are replaced.
//
// Contents are compared, not times or names: a symlink that Kubernetes swaps, a file
// that is renamed over another and a file that is written in place are all noticed.
package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// Interval is how often files are read.
	Interval = 10 * time.Second
	// quiet is how long contents must stay the same before they are adopted. A file
	// that is being written may be valid and lack its second half.
	quiet = time.Second
	// maxRereads bounds how long files that keep changing are waited for.
	maxRereads = 10
	// repeatEvery is the number of failures of which one is logged while they repeat.
	repeatEvery = 60
	// maxBytes bounds a file.
	maxBytes = 4 << 20
)

// Config configures a [Value].
type Config[T any] struct {
	// Name is what the files hold, for errors and the log: "TLS certificate".
	Name  string
	Files []string
	// Parse converts the contents of Files, in their order. Its errors are logged and
	// must not quote the contents.
	Parse func(contents [][]byte) (T, error)
	// Logger is required.
	Logger *zap.Logger
	// Failed is called, if it is not nil, whenever files cannot be read or parsed. The
	// value in use stays. It is called again every Interval until they can.
	Failed func()
}

// Value is what was last read from files without a fault. It is safe for concurrent use.
type Value[T any] struct {
	cfg     Config[T]
	current atomic.Pointer[T]
	asked   chan struct{}

	// The fields below belong to Run.
	seen     [][]byte // contents that were parsed last
	failure  string   // of the last attempt; empty if it succeeded
	failures int      // in a row, for the same reason
}

// Open reads the files for the first time.
func Open[T any](cfg Config[T]) (*Value[T], error) {
	v := &Value[T]{cfg: cfg, asked: make(chan struct{}, 1)}
	contents, err := v.read()
	if err == nil {
		err = v.parse(contents)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cfg.Name, err)
	}
	return v, nil
}

// Get returns the value in use.
func (v *Value[T]) Get() T { return *v.current.Load() }

// Reload makes Run read the files at once, and adopt them without waiting until they
// stay the same.
func (v *Value[T]) Reload() {
	select {
	case v.asked <- struct{}{}:
	default: // it has been asked already, and has not begun
	}
}

// Run reads the files every [Interval] until ctx ends.
func (v *Value[T]) Run(ctx context.Context) error {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.asked:
			contents, err := v.read()
			v.failures = 0 // a failure on request is always logged
			v.adopt(contents, err)
		case <-ticker.C:
			v.adopt(v.readQuiet(ctx))
		}
	}
}

// adopt puts contents into use unless they cannot be parsed or are in use.
func (v *Value[T]) adopt(contents [][]byte, err error) {
	if err == nil {
		if v.failure == "" && equal(contents, v.seen) {
			return
		}
		err = v.parse(contents)
	}
	if err == nil {
		v.failure, v.failures = "", 0
		v.cfg.Logger.Info("files reloaded", zap.String("holding", v.cfg.Name), zap.Strings("files", v.cfg.Files))
		return
	}
	if v.cfg.Failed != nil {
		v.cfg.Failed()
	}
	if err.Error() != v.failure {
		v.failure, v.failures = err.Error(), 0
	}
	if v.failures%repeatEvery == 0 {
		v.cfg.Logger.Error("files not reloaded; continuing with what was read before",
			zap.String("holding", v.cfg.Name), zap.Strings("files", v.cfg.Files), zap.Error(err))
	}
	v.failures++
}

func (v *Value[T]) parse(contents [][]byte) error {
	value, err := v.cfg.Parse(contents)
	if err != nil {
		return err
	}
	v.seen = contents
	v.current.Store(&value)
	return nil
}

// readQuiet reads the files until they stay the same.
func (v *Value[T]) readQuiet(ctx context.Context) ([][]byte, error) {
	contents, err := v.read()
	for range maxRereads {
		if err == nil && equal(contents, v.seen) {
			break
		}
		select {
		case <-ctx.Done():
			return contents, err
		case <-v.asked:
			v.failures = 0
			return v.read()
		case <-time.After(quiet):
		}
		before, failedBefore := contents, err != nil
		contents, err = v.read()
		if failedBefore == (err != nil) && equal(contents, before) {
			break
		}
	}
	return contents, err
}

func (v *Value[T]) read() ([][]byte, error) {
	contents := make([][]byte, len(v.cfg.Files))
	for i, name := range v.cfg.Files {
		content, err := readFile(name)
		if err != nil {
			return nil, err
		}
		contents[i] = content
	}
	return contents, nil
}

// readFile reads a file whose size is within bounds. A pipe would block.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	file, err := os.Open(name) //nolint:gosec // the operator's configuration names it
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, maxBytes+1))
	err = errors.Join(err, file.Close())
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxBytes:
		return nil, fmt.Errorf("%s is larger than %d MiB", name, maxBytes>>20)
	}
	return content, nil
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
