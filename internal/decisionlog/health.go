package decisionlog

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/eligibilityd/eligibilityd/internal/health"
)

// The kinds of errors of a Log.
const (
	kindFull       = "no_space"   // of the disk, or of a quota
	kindReadOnly   = "read_only"  // a file system
	kindPermission = "permission" // the user may not write
	kindMissing    = "not_found"  // the directory
	kindReader     = "no_reader"  // of a pipe
	kindForeign    = "foreign"    // the file is none of a decision log
	kindOther      = "other"
	kindDropping   = "dropping" // records, as the queue is full
	kindWaiting    = "waiting"  // answers, as the queue is full
)

// conditions are how writing fares, and whether the queue has room.
type conditions struct{ writing, queue *health.Component }

// Health returns how the log fares: failing if the last write failed, degraded if its
// queue was full since it was last empty. The kind of an error is no_space, read_only,
// permission, not_found, no_reader, foreign, other, dropping or waiting. It does not
// block.
func (l *Log) Health() health.Condition {
	return health.Worst(l.conditions.writing.Read(), l.conditions.queue.Read())
}

// errorKind names a failure to write. Its text may have the path of the file.
func errorKind(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return kindFull
	case errors.Is(err, syscall.EROFS):
		return kindReadOnly
	case errors.Is(err, fs.ErrPermission):
		return kindPermission
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return kindMissing
	case errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.EPIPE), errors.Is(err, os.ErrClosed):
		return kindReader
	case errors.Is(err, errForeign):
		return kindForeign
	default:
		return kindOther
	}
}
