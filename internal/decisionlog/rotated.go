package decisionlog

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"go.uber.org/zap"
)

// The names of rotated files: the name of the file with timestampLayout and the reason of
// the rotation before its extension, and what is added to it when it is compressed.
const (
	timestampLayout = "2006-01-02T15-04-05.000"
	compressedEnd   = ".gz"
	temporaryStart  = "."
	temporaryEnd    = ".gz.tmp"
)

// keepRotated tidies the rotated files after each rotation, until Close is called. What
// fails is tried again after the next one.
func (l *Log) keepRotated() {
	defer close(l.tidied)
	for {
		select {
		case <-l.stop:
			return
		case path := <-l.rotated:
			if err := l.tidy(path); err != nil && !errors.Is(err, errAbandoned) {
				l.metrics.failures.Inc()
				l.logger.Error("rotated files of the decision log cannot be compressed or removed; trying again after the next rotation", zap.Error(err))
			}
		}
	}
}

// tidy removes what a killed process left of a compression, and all but the newest
// Config.MaxFiles rotated files. It compresses the others, one at a time.
func (l *Log) tidy(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // writing fails, too
		}
		return err
	}
	var failures []error
	remove := func(name string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, err)
		}
	}
	plain := make(map[string]bool) // rotated file → whether it is there uncompressed
	for _, entry := range entries {
		name, _ := strings.CutSuffix(entry.Name(), compressedEnd)
		whole, temporary := strings.CutSuffix(strings.TrimPrefix(entry.Name(), temporaryStart), temporaryEnd)
		switch {
		case !entry.Type().IsRegular():
		case isRotated(name, path):
			plain[name] = plain[name] || name == entry.Name()
		case temporary && isRotated(whole, path):
			remove(entry.Name())
		}
	}
	for i, name := range slices.Backward(slices.Sorted(maps.Keys(plain))) {
		switch {
		case len(plain)-i > l.cfg.MaxFiles:
			if plain[name] {
				remove(name)
			}
			remove(name + compressedEnd)
		case plain[name]:
			if err := l.compress(dir, name); err != nil {
				failures = append(failures, err)
			}
		}
	}
	return errors.Join(failures...)
}

// rotatedFiles returns the names of the rotated files of the file at path, from the
// newest on, without the end of compressed ones.
func rotatedFiles(path string) ([]string, error) {
	var rotated []string
	for range 2 { // a listing may lack a file that is replaced by its compressed form at the same time
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			name, _ := strings.CutSuffix(entry.Name(), compressedEnd)
			if entry.Type().IsRegular() && isRotated(name, path) {
				rotated = append(rotated, name)
			}
		}
	}
	slices.Sort(rotated)
	rotated = slices.Compact(rotated)
	slices.Reverse(rotated)
	return rotated, nil
}

// isRotated reports whether name is that of the file at path after a rotation.
func isRotated(name, path string) bool {
	ext := filepath.Ext(path)
	rest, ours := strings.CutPrefix(name, strings.TrimSuffix(filepath.Base(path), ext)+"-")
	rest, ends := strings.CutSuffix(rest, ext)
	reason := strings.LastIndexByte(rest, '-')
	if !ours || !ends || reason < 0 {
		return false
	}
	_, err := time.Parse(timestampLayout, rest[:reason])
	return err == nil
}

// compress replaces a file by a compressed one. A compressed one that is there has come
// from a process that was killed, and is replaced, too.
func (l *Log) compress(dir, name string) error {
	path, temporary := filepath.Join(dir, name), filepath.Join(dir, temporaryStart+name+temporaryEnd)
	from, err := os.Open(path) //nolint:gosec // beside the file that the operator names
	if err != nil {
		return err
	}
	defer from.Close()                                                             //nolint:errcheck // only read
	to, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode) //nolint:gosec // as above
	if err != nil {
		return err
	}
	err = l.zip(to, from)
	if closing := to.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(temporary, path+compressedEnd)
	}
	if err != nil {
		_ = os.Remove(temporary) // or before the next compression
		return err
	}
	return os.Remove(path)
}

// zip compresses a file until Close is called.
func (l *Log) zip(to *os.File, from io.Reader) error {
	// Records are alike: the fastest level takes half the time for an eighth more space.
	zip, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(zip, untilStopped{from, l.stop}); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	return to.Sync() // a machine that crashes must not lose what had long been on the disk
}

// untilStopped reads until a channel is closed.
type untilStopped struct {
	io.Reader

	stop <-chan struct{}
}

func (r untilStopped) Read(p []byte) (int, error) {
	select {
	case <-r.stop:
		return 0, errAbandoned
	default:
		return r.Reader.Read(p)
	}
}
