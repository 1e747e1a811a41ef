package pcclient

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"go.uber.org/zap"
)

// maxRefreshTokenBytes bounds what is read from the file.
const maxRefreshTokenBytes = 64 << 10

// refreshToken keeps the refresh token in a file that other processes may
// rewrite: a replica that rotated it, or somebody who consented again. What
// they wrote is the newer. Only one renewal at a time uses it.
type refreshToken struct {
	path    string
	log     *zap.Logger
	metrics *metrics

	held     string // what the file held when it was last read or written; empty where unreadable
	unstored string // a newer token that could not be written
}

// read returns the token to use: the file's, or the unstored one for as long
// as nobody else has written one.
func (r *refreshToken) read() (string, error) {
	held, err := r.readFile()
	if r.unstored != "" && (err != nil || held == r.held) {
		return r.unstored, nil //nolint:nilerr // a file that cannot be read is what the memory is for
	}
	if err != nil {
		return "", err
	}
	r.held, r.unstored = held, ""
	return held, nil
}

func (r *refreshToken) readFile() (string, error) {
	info, err := os.Stat(r.path)
	switch {
	case err == nil && !info.Mode().IsRegular(): // reading a pipe may wait for ever
		return "", errors.New("refresh token file is no regular file")
	case err == nil && info.Size() > maxRefreshTokenBytes:
		return "", errors.New("refresh token file is too large to be one")
	}
	content, err := os.ReadFile(r.path)
	if err != nil {
		return "", fmt.Errorf("read refresh token file: %w", withoutPath(err))
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", errors.New("refresh token file is empty")
	}
	return token, nil
}

// store makes token the one that the next renewal uses, unless somebody else
// has written meanwhile. Where the file cannot be written the token is kept in
// memory, and the failure is an alert: after a restart it would be lost.
func (r *refreshToken) store(token string) {
	held, err := r.readFile()
	switch {
	case err == nil && held == token:
		r.held, r.unstored = held, ""
	case err == nil && held != r.held: // theirs is read before the next renewal
		r.unstored = ""
	default:
		if err := r.writeFile(token); err != nil {
			r.held, r.unstored = held, token
			r.metrics.stored(false)
			r.log.Error("rotated refresh token is kept in memory only: make partner_center.refresh_token_file and its directory writable before a restart",
				zap.Error(withoutPath(err)))
			return
		}
		r.held, r.unstored = token, ""
	}
	r.metrics.stored(true)
}

// writeFile replaces the file at once or not at all, synced to the disk and
// readable by its owner only, whoever could read the old one. A symbolic link
// is kept and its target replaced.
func (r *refreshToken) writeFile(token string) error {
	path := r.target()
	file, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = file.Cleanup() }() // the first error is the one to tell
	if _, err := file.WriteString(token); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}

// target is the file itself, behind symbolic links.
func (r *refreshToken) target() string {
	if target, err := filepath.EvalSymlinks(r.path); err == nil {
		return target
	}
	return r.path
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
