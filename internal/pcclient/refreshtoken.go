package pcclient

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"go.uber.org/zap"
)

// maxRefreshTokenBytes bounds what is read from the file.
const maxRefreshTokenBytes = 64 << 10

// refreshToken keeps the refresh token in a file. It is read before every use,
// as another process may have stored a newer one.
type refreshToken struct {
	path    string
	log     *zap.Logger
	metrics *metrics

	mu sync.Mutex
	// unstored is a token that could not be written, and replaced the one that
	// the file still holds. Guarded by mu.
	unstored, replaced string
}

// read returns the token: the file's, unless the file still holds the one that
// a newer, unstored token has replaced.
func (r *refreshToken) read() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held, err := r.readFile()
	switch {
	case r.unstored != "" && (err != nil || held == r.replaced):
		return r.unstored, nil
	case err != nil:
		return "", err
	}
	r.unstored, r.replaced = "", ""
	return held, nil
}

func (r *refreshToken) readFile() (string, error) {
	info, err := os.Stat(r.path)
	if err == nil && info.Size() > maxRefreshTokenBytes {
		return "", errors.New("refresh token file is too large to be one")
	}
	content, err := os.ReadFile(r.path)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err // the operator knows the path, and it may say more than it should
		}
		return "", fmt.Errorf("read refresh token file: %w", err)
	}
	token := strings.TrimSpace(string(content))
	if token == "" {
		return "", errors.New("refresh token file is empty")
	}
	return token, nil
}

// store replaces the file by one with the new token: atomically, synced to the
// disk, readable by its owner only. Where that fails the token is kept in
// memory, and the failure is an alert: after a restart it would be lost.
func (r *refreshToken) store(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held, _ := r.readFile()
	if held == token {
		return
	}
	if err := renameio.WriteFile(r.path, []byte(token), 0o600, renameio.IgnoreUmask()); err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		r.unstored, r.replaced = token, held
		r.metrics.stored(false)
		r.log.Error("rotated refresh token could not be stored and is kept in memory only: make the directory of partner_center.refresh_token_file writable before a restart",
			zap.Error(err))
		return
	}
	r.unstored, r.replaced = "", ""
	r.metrics.stored(true)
}
