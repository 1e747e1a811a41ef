package cache

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// faultInterval is how often a sick Redis is worth a line in the log.
const faultInterval = 10 * time.Second

// faultLog warns of Redis faults at most once an interval; the metrics count
// all of them.
type faultLog struct {
	logger *zap.Logger
	now    func() time.Time
	last   atomic.Int64 // Unix ns of the last line
}

func (f *faultLog) warn(op string, err error) {
	now, last := f.now().UnixNano(), f.last.Load()
	if now-last < int64(faultInterval) || !f.last.CompareAndSwap(last, now) {
		return
	}
	f.logger.Warn("redis is away or unwell; going on without it",
		zap.String("op", op), zap.Duration("next_report_in", faultInterval), zap.Error(err))
}
