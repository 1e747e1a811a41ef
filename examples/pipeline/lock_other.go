//go:build !unix

package main

import (
	"errors"
)

// lock fails, because a second process would place the same orders.
func lock(string) error { return errors.ErrUnsupported }
