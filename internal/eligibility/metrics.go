package eligibility

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts how fetches are shared. Its counters exist whether or not
// somebody collects them.
type metrics struct {
	led, joined, shared prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, oldest func() time.Duration) (*metrics, error) {
	flights := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "eligibility_flights_total",
		Help: "Fetches by role: led (this replica asked Partner Center), joined (a caller shared one under way here), shared (another replica's answered).",
	}, []string{"role"})
	m := &metrics{
		led:    flights.WithLabelValues("led"),
		joined: flights.WithLabelValues("joined"),
		shared: flights.WithLabelValues("shared"),
	}
	if registerer == nil {
		return m, nil
	}
	err := errors.Join(
		registerer.Register(flights),
		registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "eligibility_oldest_flight_seconds",
			Help: "Age of the oldest fetch under way; 0 without one. No fetch lives longer than ten seconds, and a second one may wait for it: beyond 25 something is stuck.",
		}, func() float64 { return oldest().Seconds() })),
	)
	if err != nil {
		return nil, fmt.Errorf("eligibility: register metrics: %w", err)
	}
	return m, nil
}

// oldestFlight is how long the oldest fetch is under way, or waits for the one
// before it.
func (s *Service) oldestFlight() time.Duration {
	var oldest time.Duration
	now := s.now()
	for i := range s.flights.shards {
		shard := &s.flights.shards[i]
		shard.mu.Lock()
		for _, under := range shard.slots {
			for _, f := range []*flight{under.running, under.next} {
				if f != nil {
					oldest = max(oldest, now.Sub(f.created))
				}
			}
		}
		shard.mu.Unlock()
	}
	return oldest
}
