package pcclient

import "time"

// pause is a wait that begins at one reading of the clock. The zero value is
// over. If the clock is set back below the beginning, the pause is over too:
// it would otherwise last longer by as much as the clock was set back.
type pause struct {
	begin  time.Time
	length time.Duration
}

// left returns how much of the pause is left.
func (p pause) left(now time.Time) time.Duration {
	passed := now.Sub(p.begin)
	if passed < 0 {
		return 0
	}
	return max(p.length-passed, 0)
}
