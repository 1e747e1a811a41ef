package tokenstore

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// leftoverAge is when a temporary file is no writer's any more: one takes
	// milliseconds.
	leftoverAge = time.Hour
	// leftoverDigits is how many digits of the random number in its name tell
	// it from a file that somebody has named by hand.
	leftoverDigits = 16
)

// removeLeftovers removes the temporary files that writers of path have left
// beside it because they were killed: the refresh tokens in them work on. What
// cannot be removed stays.
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
			_ = os.Remove(filepath.Join(filepath.Dir(path), entry.Name())) // the next writer tries again
		}
	}
}
