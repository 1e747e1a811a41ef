package pcclient

import (
	"sync"
	"time"
)

const (
	// noticeEvery is how often a failure is logged while it lasts.
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

// notices keeps a failure that lasts from filling the log: each kind is logged
// when it begins, and then once in noticeEvery.
type notices struct {
	now func() time.Time

	mu     sync.Mutex
	logged map[notice]time.Time // guarded by mu
}

// due reports whether n is to be logged now, and records that it is.
func (s *notices) due(n notice) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	last, known := s.logged[n]
	if (pause{last, noticeEvery}).left(now) > 0 {
		return false
	}
	if s.logged == nil || !known && len(s.logged) >= maxNotices {
		s.logged = map[notice]time.Time{}
	}
	s.logged[n] = now
	return true
}

// over forgets the failures of an operation when it succeeds, so that the next
// failure is logged at once. It is for operations too rare to flap.
func (s *notices) over(op Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.logged {
		if n.op == op {
			delete(s.logged, n)
		}
	}
}
