package logging

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Limiter admits a number of records of one kind in each interval, and counts
// the others. It is safe for concurrent use and takes no lock; when an interval
// begins it may admit a few more.
type Limiter struct {
	limit    int64
	interval int64 // ns

	current atomic.Int64 // number of the interval that taken belongs to
	taken   atomic.Int64
	leftOut atomic.Int64 // since the last record that was admitted
}

// NewLimiter returns a Limiter that admits limit records in each interval.
func NewLimiter(limit int, interval time.Duration) *Limiter {
	return &Limiter{limit: int64(limit), interval: int64(interval)}
}

// Admit reports whether to write a record and, if so, how many were suppressed
// since the last one.
func (l *Limiter) Admit(now time.Time) (leftOut int64, ok bool) {
	current := now.UnixNano() / l.interval
	if l.current.Load() != current && l.current.Swap(current) != current {
		l.taken.Store(0)
	}
	if l.taken.Add(1) > l.limit {
		l.leftOut.Add(1)
		return 0, false
	}
	return l.leftOut.Swap(0), true
}

// Limit returns logger with its records counted against limiter. If records
// were suppressed, the next one carries their number in left_out.
func Limit(logger *zap.Logger, limiter *Limiter) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return limited{withoutFailures(core), limiter} }))
}

type limited struct {
	zapcore.Core

	limiter *Limiter
}

// With adds fields to the records that follow.
func (l limited) With(fields []zapcore.Field) zapcore.Core { //nolint:ireturn // zapcore.Core asks for it
	return limited{l.Core.With(fields), l.limiter}
}

// Check adds the core to checked if the record is written.
func (l limited) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !l.Enabled(entry.Level) {
		return checked
	}
	leftOut, ok := l.limiter.Admit(entry.Time)
	switch {
	case !ok:
		return checked
	case leftOut > 0:
		return l.Core.With([]zapcore.Field{zap.Int64("left_out", leftOut)}).Check(entry, checked)
	default:
		return l.Core.Check(entry, checked)
	}
}
