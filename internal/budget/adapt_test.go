package budget

import (
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// A fleet whose budget is twice what Partner Center admits finds the limit: from the
// third window on it gets one 429 a window at most, and uses 85 % of the limit.
func TestTheRateFindsAHiddenLimit(t *testing.T) {
	t.Parallel()
	const (
		limit   = 300
		minute  = 60_000_000
		windows = 30
	)
	// Calls that are in flight when the limit is met get a 429 as well.
	for name, c := range map[string]struct {
		latency float64
		most    int
	}{"fast": {10_000, 1}, "slow": {400_000, 4}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := State{window: window}
			var admitted, throttled [windows]int
			type answer struct {
				at    float64
				pause time.Duration
			}
			var answers []answer // on their way
			for now := float64(0); now < windows*minute; {
				for len(answers) > 0 && answers[0].at <= now {
					if answers[0].pause > 0 {
						s.Do(now, Step{Kind: KindPause, PerMinute: 2 * limit, Pause: answers[0].pause})
					}
					answers = answers[1:]
				}
				if reply := s.Do(now, Step{Kind: KindTake, PerMinute: 2 * limit, Lane: evidence.LaneCheckout}); !reply.Granted {
					now += 20_000 // the next caller
					continue
				}
				i, sent := int(now/minute), answer{at: now + c.latency}
				if admitted[i] < limit {
					admitted[i]++
				} else {
					throttled[i]++
					sent.pause = duration(float64(i+1)*minute - now).Round(time.Second)
				}
				answers = append(answers, sent)
			}
			used := 0
			for i := 2; i < windows; i++ {
				used += admitted[i]
				if throttled[i] > c.most {
					t.Errorf("window %d: %d 429s, want %d at most", i, throttled[i], c.most)
				}
			}
			part := float64(used) / (limit * (windows - 2))
			t.Logf("%.1f %% of the limit used: %v, 429s %v", 100*part, admitted, throttled)
			if part < 0.85 {
				t.Errorf("%.1f %% of the limit used", 100*part)
			}
		})
	}
}
