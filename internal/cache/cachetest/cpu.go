package cachetest

import (
	"syscall"
	"testing"
	"time"
)

// MeasureCPU adds the CPU time of this process to the results of a benchmark of Redis,
// whose own time and waits are in the others. Call it when the benchmark starts, and
// what it returns at the end.
func MeasureCPU(b *testing.B) (report func()) {
	b.Helper()
	before := cpuTime(b)
	return func() {
		b.Helper()
		b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
