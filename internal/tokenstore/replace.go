//go:build !windows

package tokenstore

import (
	"path/filepath"

	"github.com/google/renameio/v2"
)

// replace replaces the file at path by one that holds text and that only its owner can
// read, and syncs it to the disk.
func replace(path, text string) error {
	file, err := renameio.NewPendingFile(path,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = file.Cleanup() }() // the first error is the one to return
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}
