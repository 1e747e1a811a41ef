//go:build !unix

package app

import "math"

// descriptorLimit returns that there is no limit.
func descriptorLimit() uint64 { return math.MaxUint64 }
