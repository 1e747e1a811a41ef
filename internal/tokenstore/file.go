package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is the path of a file that holds the refresh token and nothing else.
type File string

// Load implements Store.
func (f File) Load(context.Context) (Token, error) {
	info, err := os.Stat(string(f))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Token{}, fmt.Errorf("%w: refresh token file: %w", ErrNone, withoutPath(err))
	case err != nil:
		return Token{}, fmt.Errorf("%w: refresh token file: %w", ErrUnreadable, withoutPath(err))
	case !info.Mode().IsRegular(): // a read from a pipe may block forever
		return Token{}, fmt.Errorf("%w: refresh token file is no regular file", ErrUnreadable)
	case info.Size() > maxTokenBytes:
		return Token{}, fmt.Errorf("%w: refresh token file is too large", ErrUnreadable)
	}
	content, err := os.ReadFile(string(f))
	if err != nil {
		return Token{}, fmt.Errorf("%w: refresh token file: %w", ErrUnreadable, withoutPath(err))
	}
	token := Trim(string(content))
	switch {
	case token == "":
		return Token{}, fmt.Errorf("%w: refresh token file is empty", ErrNone)
	case !plain(token):
		return Token{}, fmt.Errorf("%w: refresh token file %w", ErrNone, errNotPlain)
	}
	return Token{token, info.ModTime()}, nil
}

// Save replaces the file with one that only its owner can read, and syncs it to
// the disk. If the path is a symbolic link, its target is replaced.
func (f File) Save(_ context.Context, token string) error {
	path := f.target()
	removeLeftovers(path)
	return withoutPath(replace(path, token))
}

// CheckSave implements Store: it creates and removes a file in the directory.
func (f File) CheckSave(context.Context) error {
	path := f.target()
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		return errors.New("refresh token file is no regular file")
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".writable-*")
	if err != nil {
		return fmt.Errorf("directory of the refresh token file: %w", withoutPath(err))
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// target resolves symbolic links.
func (f File) target() string {
	if target, err := filepath.EvalSymlinks(string(f)); err == nil {
		return target
	}
	return string(f)
}

// withoutPath removes the path from a file's error: the operator configured it.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return link.Err
	}
	return err
}
