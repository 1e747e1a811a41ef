//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// lock keeps a second process out of a directory, until this one ends.
func lock(dir string) error {
	on, err := syscall.Open(dir, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) // never closed: that would unlock it
	if err == nil {
		err = syscall.Flock(on, syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		return fmt.Errorf("%s is in use, or no directory: %w", dir, err)
	}
	return nil
}
