package cache

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// faultsBeforeRest in a row, and Redis is left alone for a restLife: while it
	// hangs, not every caller has to wait to find that out.
	faultsBeforeRest = 5
	restLife         = 500 * time.Millisecond
)

// rest is the pause that Redis is given when it is away or unwell. What is asked
// of it meanwhile counts as absent. Behind it the next operation finds out.
type rest struct {
	faults atomic.Int32 // in a row
	until  atomic.Int64 // Unix ns
}

func (r *rest) worked() {
	if r.faults.Load() != 0 {
		r.faults.Store(0)
	}
}

func (r *rest) failed(now time.Time) {
	if r.faults.Add(1) >= faultsBeforeRest {
		r.until.Store(now.Add(restLife).UnixNano())
	}
}

// lasts is false as well where the clock was set back since.
func (r *rest) lasts(now time.Time) bool {
	left := r.until.Load() - now.UnixNano()
	return left > 0 && left <= int64(restLife)
}

// faultKind names a failure of Redis for the metrics.
func faultKind(err error) string {
	var network net.Error
	var answered redis.Error
	switch {
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return faultPool
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return faultTimeout
	case errors.As(err, &answered):
		return faultRefused
	default:
		return faultConnection
	}
}

// The kinds of fault: no answer in time, no connection, no free connection of
// ours, and an answer that says no, such as that of a replica asked to write.
const (
	faultTimeout    = "timeout"
	faultConnection = "connection"
	faultPool       = "pool"
	faultRefused    = "refused"
)
