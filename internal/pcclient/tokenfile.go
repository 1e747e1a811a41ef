package pcclient

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// maxRefreshTokenBytes bounds what is read from a store.
const maxRefreshTokenBytes = 64 << 10

// tokenFile is the path of a file with the refresh token.
type tokenFile string

func (f tokenFile) load(context.Context) (storedToken, error) {
	info, err := os.Stat(string(f))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return storedToken{}, fmt.Errorf("%w: refresh token file: %w", ErrNoRefreshToken, withoutPath(err))
	case err != nil:
		return storedToken{}, fmt.Errorf("%w: refresh token file: %w", ErrRefreshTokenStore, withoutPath(err))
	case !info.Mode().IsRegular(): // reading a pipe may wait for ever
		return storedToken{}, fmt.Errorf("%w: refresh token file is no regular file", ErrRefreshTokenStore)
	case info.Size() > maxRefreshTokenBytes:
		return storedToken{}, fmt.Errorf("%w: refresh token file is too large", ErrRefreshTokenStore)
	}
	content, err := os.ReadFile(string(f))
	if err != nil {
		return storedToken{}, fmt.Errorf("%w: refresh token file: %w", ErrRefreshTokenStore, withoutPath(err))
	}
	token := trimToken(string(content))
	switch {
	case token == "":
		return storedToken{}, fmt.Errorf("%w: refresh token file is empty", ErrNoRefreshToken)
	case !storable(token):
		return storedToken{}, fmt.Errorf("%w: refresh token file %w", ErrNoRefreshToken, errNoToken)
	}
	return storedToken{token, info.ModTime()}, nil
}

// save writes a file that is readable by its owner only, whoever could read
// the old one, and synced to the disk. A symbolic link is kept and its target
// replaced.
func (f tokenFile) save(_ context.Context, token string) error {
	path := f.target()
	removeLeftovers(path)
	file, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return withoutPath(err)
	}
	defer func() { _ = file.Cleanup() }() // the first error is the one to tell
	if _, err := file.WriteString(token); err != nil {
		return withoutPath(err)
	}
	return withoutPath(file.CloseAtomicallyReplace())
}

func (f tokenFile) canSave(context.Context) error {
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

// target is the file itself, behind symbolic links.
func (f tokenFile) target() string {
	if target, err := filepath.EvalSymlinks(string(f)); err == nil {
		return target
	}
	return string(f)
}

// withoutPath returns the cause of a file's error: the operator has configured
// the path and knows it.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	if link, ok := errors.AsType[*os.LinkError](err); ok {
		return link.Err
	}
	return err
}
