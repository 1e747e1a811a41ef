package cache

// HearNow is a sign of life of the subscription, as a pong is.
func (s *Store) HearNow() { s.hearing.last.Store(s.now().UnixNano()) }
