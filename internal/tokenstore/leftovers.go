package tokenstore

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// leftoverAge is the age from which a temporary file is abandoned: a write
	// takes milliseconds.
	leftoverAge = time.Hour
	// leftoverDigits is the least number of random digits in the name of a
	// temporary file; files that a person named have fewer.
	leftoverDigits = 16
)

// removeLeftovers removes the temporary files of writers of path that were
// killed: the refresh tokens in them still work. If a file cannot be removed, it
// stays.
func removeLeftovers(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, entry := range entries {
		number, isOurs := strings.CutPrefix(entry.Name(), "."+filepath.Base(path)) // as renameio names them
		if _, err := strconv.ParseInt(number, 10, 64); err != nil || !isOurs || len(number) < leftoverDigits {
			continue
		}
		info, err := entry.Info()
		if err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > leftoverAge {
			_ = os.Remove(filepath.Join(filepath.Dir(path), entry.Name())) // the next Save retries
		}
	}
}
