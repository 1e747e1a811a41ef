package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// file is a file of JSON lines. What it has written survives the process and the
// machine. It is not safe for concurrent use.
type file[T any] struct {
	path  string
	on    *os.File
	lines int
	err   error // of the first write that failed
}

// openFile opens or creates a file and calls each with its lines. It removes an
// incomplete line at the end, which a crash leaves behind.
func openFile[T any](path string, each func(T)) (*file[T], error) {
	on, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the user names the directory
	if err != nil {
		return nil, err
	}
	f := &file[T]{path: path, on: on}
	var end int64
	for reader := bufio.NewReader(on); ; f.lines++ {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		var value T
		if err == nil {
			err = json.Unmarshal(line, &value)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: line %d: %w", path, f.lines+1, err), on.Close())
		}
		each(value)
		end += int64(len(line))
	}
	if err = on.Truncate(end); err == nil {
		_, err = on.Seek(end, io.SeekStart)
	}
	if err == nil {
		err = syncDir(path)
	}
	return f, err
}

// append writes values, each as a line, and returns when they are on the disk. If it
// fails, nobody knows what is: everything fails from then on, and the process has to
// end.
func (f *file[T]) append(values ...T) error {
	if f.err != nil {
		return f.err
	}
	text, err := encode(values)
	if err != nil {
		return err
	}
	if _, f.err = f.on.Write(text); f.err == nil {
		f.err = f.on.Sync()
	}
	f.lines += len(values)
	return f.err
}

// replace replaces the whole contents, at once.
func (f *file[T]) replace(values []T) error {
	text, err := encode(values)
	if err != nil {
		return err
	}
	fresh, err := os.OpenFile(f.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = fresh.Write(text); err == nil {
		err = fresh.Sync()
	}
	if err == nil {
		err = os.Rename(fresh.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, fresh.Close())
	}
	_ = f.on.Close() // nothing of it is needed
	f.on, f.lines = fresh, len(values)
	return syncDir(f.path)
}

func encode[T any](values []T) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text) // ends each value with a newline
	for _, value := range values {
		if err := encoder.Encode(value); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// syncDir makes the name of a file last.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
