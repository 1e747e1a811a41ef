package logging

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Limiter admits a number of records of one kind in each interval, and counts
// the others. It is safe for concurrent use and takes no lock.
type Limiter struct {
	limit    int64
	interval int64 // ns

	window  atomic.Pointer[window]
	leftOut atomic.Int64 // since the last record that was admitted
}

// window is an interval and how many records were counted in it.
type window struct {
	number int64
	taken  atomic.Int64
}

// NewLimiter returns a Limiter that admits limit records in each interval.
func NewLimiter(limit int, interval time.Duration) *Limiter {
	l := &Limiter{limit: int64(limit), interval: int64(interval)}
	l.window.Store(new(window))
	return l
}

// Admit reports whether to write a record and, if so, how many were suppressed
// since the last one.
func (l *Limiter) Admit(now time.Time) (leftOut int64, ok bool) {
	if l.windowOf(now).taken.Add(1) > l.limit {
		l.leftOut.Add(1)
		return 0, false
	}
	return l.leftOut.Swap(0), true
}

// windowOf returns the window to count a record in. One that comes late, with a time
// before the latest window, counts in that: it must not begin the older one anew. A
// clock that was set back by more begins a new one.
func (l *Limiter) windowOf(now time.Time) *window {
	number, latest := now.UnixNano()/l.interval, l.window.Load()
	if number == latest.number || number == latest.number-1 {
		return latest
	}
	next := &window{number: number}
	if l.window.CompareAndSwap(latest, next) {
		return next
	}
	return l.window.Load()
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
