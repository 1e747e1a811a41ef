//go:build unix

package server

import (
	"io"
	"syscall"

	"google.golang.org/grpc/mem"
)

// ReadOnReady reads once, when something has arrived, into a buffer of pool, which
// the caller returns to it. grpc-go calls it in place of Read, so that a connection
// holds no buffer while it is idle.
func (c *connection) ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	if c.raw == nil {
		buffer = pool.Get(size)
		n, err = c.Read(*buffer)
	} else {
		failed := c.raw.Read(func(fd uintptr) bool {
			buffer = pool.Get(size)
			if n, err = readAgain(int(fd), *buffer); err != syscall.EAGAIN { //nolint:errorlint // a bare errno
				return true
			}
			pool.Put(buffer)
			buffer = nil
			return false
		})
		if err == nil && n == 0 {
			err = io.EOF
		}
		if failed != nil {
			err = failed
		}
	}
	if err != nil && buffer != nil {
		pool.Put(buffer)
		return nil, 0, err //nolint:wrapcheck // grpc-go looks at its type
	}
	return buffer, n, err //nolint:wrapcheck // grpc-go looks at its type
}

// readAgain is read(2), repeated while a signal interrupts it.
func readAgain(fd int, into []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, into)
		if err != syscall.EINTR {
			return max(n, 0), err //nolint:wrapcheck // a bare errno
		}
	}
}
