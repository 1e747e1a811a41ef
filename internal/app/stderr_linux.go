package app

import (
	"os"
	"syscall"
)

// unblockStandardError makes the standard error of this process one that never
// blocks, if it is a pipe, and returns the pipe's new end for the log. The Go
// runtime prints a crash to standard error before it exits: a pipe that nothing
// reads would keep the process forever, neither serving nor restarted. Other
// processes that share the pipe are not affected. It returns nil if nothing was
// changed.
func unblockStandardError() *os.File {
	var stat syscall.Stat_t
	if syscall.Fstat(syscall.Stderr, &stat) != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFIFO {
		return nil
	}
	end, err := syscall.Open("/proc/self/fd/2", syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	if syscall.Dup3(end, syscall.Stderr, 0) != nil {
		_ = syscall.Close(end)
		return nil
	}
	return os.NewFile(uintptr(end), os.Stderr.Name())
}
