package load

import (
	"syscall"
	"time"
)

// sleep sleeps for about d, to some 60 µs: if the process is idle, the
// runtime's own timers may be a millisecond late, which would count as latency.
// It may return early.
func sleep(d time.Duration) {
	span := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&span, nil)
}
