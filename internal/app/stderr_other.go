//go:build !linux

package app

import "os"

// unblockStandardError changes nothing: only Linux can open a pipe again.
func unblockStandardError() *os.File { return nil }
