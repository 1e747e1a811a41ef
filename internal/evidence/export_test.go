package evidence

// RefreshesInFlight returns the number of early refreshes under way.
func (s *Service) RefreshesInFlight() int {
	s.refreshes.mu.Lock()
	defer s.refreshes.mu.Unlock()
	return s.refreshes.inFlight
}

// RefreshesScheduled returns the number of early refreshes that are scheduled.
func (s *Service) RefreshesScheduled() int {
	s.refreshes.mu.Lock()
	defer s.refreshes.mu.Unlock()
	return len(s.refreshes.scheduled)
}

// MaxScheduled bounds RefreshesScheduled, and MaxRefreshes RefreshesInFlight.
const (
	MaxScheduled = maxScheduled
	MaxRefreshes = maxRefreshes
)

// FetchesInFlight returns the number of keys with a fetch under way or waiting.
func (s *Service) FetchesInFlight() (n int) {
	for i := range s.inflight.shards {
		shard := &s.inflight.shards[i]
		shard.mu.Lock()
		n += len(shard.fetches)
		shard.mu.Unlock()
	}
	return n
}
