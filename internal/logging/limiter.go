package logging

import (
	"sync/atomic"
	"time"
)

// Limiter admits a number of records of one kind in each interval, and counts
// those between. It is safe for concurrent use and takes no lock; at the turn of
// an interval it may admit a few more.
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

// Admit reports whether a record is written, and if so how many were left out
// since the one before it.
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
