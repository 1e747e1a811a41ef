package cache

import (
	"context"
	"sync/atomic"

	"github.com/eligibilityd/eligibilityd/internal/breaker"
	"github.com/eligibilityd/eligibilityd/internal/health"
)

// RedisHealth returns how Redis fares, by the last heartbeats and the circuit breakers:
// failing if no server accepts writes, degraded if one does not. The kind of an error
// is timeout, connection, pool or refused. There must be a Redis. It does not block.
func (s *Store) RedisHealth() health.Condition { return s.redis.condition.Read() }

// judge records the result of heartbeats to all servers.
func (r *sharedTier) judge(ctx context.Context) {
	if ctx.Err() != nil {
		return // they were cut off
	}
	now, writable := r.now().UnixNano(), 0
	for i := range r.health.partitions {
		if r.health.partitions[i].writable(now) {
			writable++
		}
	}
	kind := r.fault.take()
	switch {
	case writable == 0:
		r.condition.Failed(kind)
	case writable < partitions, r.reads.State() != breaker.Closed, r.claims.State() != breaker.Closed, r.writes.State() != breaker.Closed:
		r.condition.Degraded(kind)
	default:
		r.condition.OK()
	}
}

// fault is the kind of the latest fault of Redis that was counted.
type fault struct{ kind atomic.Pointer[string] }

// note notes a fault.
func (f *fault) note(kind string) {
	if known := f.kind.Load(); known == nil || *known != kind {
		f.kind.Store(&kind)
	}
}

// take returns the kind of the latest fault, connection if there was none yet.
func (f *fault) take() string {
	if kind := f.kind.Load(); kind != nil {
		return *kind
	}
	return faultConnection
}
