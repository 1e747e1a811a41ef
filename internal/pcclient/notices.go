package pcclient

import (
	"sync"
	"time"
)

const (
	// noticeEvery is how often a failure that lasts is told.
	noticeEvery = 5 * time.Minute
	// maxNotices bounds the failures that are kept apart: their codes come from
	// the far side.
	maxNotices = 64
)

// notice is a kind of failure.
type notice struct {
	op     Op
	reason Reason
	detail string // of a limited set, or bounded by maxNotices
}

// notices keeps a failure that lasts from filling the log: each kind is told
// when it begins, and once in noticeEvery.
type notices struct {
	now func() time.Time

	mu   sync.Mutex
	told map[notice]time.Time // guarded by mu
}

// due reports whether it is time to tell of n, and notes that it is told.
func (s *notices) due(n notice) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	last, known := s.told[n]
	if (pause{last, noticeEvery}).left(now) > 0 {
		return false
	}
	if s.told == nil || !known && len(s.told) >= maxNotices {
		s.told = map[notice]time.Time{}
	}
	s.told[n] = now
	return true
}

// over forgets the failures of an operation that has succeeded, so that the
// next one is told at once. It is for operations too rare to flap.
func (s *notices) over(op Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.told {
		if n.op == op {
			delete(s.told, n)
		}
	}
}
