package pcsim

import "time"

// playback is a list of steps and the progress in it. The lock of its owner
// guards it.
type playback struct {
	steps []Step
	at    int       // the current step
	given int       // how often it was played
	began time.Time // when it began; zero until then
}

// next returns the step for the given time and counts it as played. start is
// when the first step began. There must be a step.
func (p *playback) next(now, start time.Time) Step {
	if p.began.IsZero() {
		p.began = now
		if p.at == 0 {
			p.began = start
		}
	}
	for p.at < len(p.steps)-1 {
		step := p.steps[p.at]
		if step.For > 0 {
			if now.Before(p.began.Add(step.For)) {
				break
			}
			p.at, p.given, p.began = p.at+1, 0, p.began.Add(step.For)
			continue
		}
		if p.given < step.Times {
			break
		}
		p.at, p.given, p.began = p.at+1, 0, now
	}
	p.given++
	return p.steps[p.at]
}

// meter limits calls to a number in any 60 seconds. Rejected calls count too,
// so if a client keeps retrying it remains throttled.
type meter struct {
	times  []time.Time // the latest calls, in a ring as long as the limit
	oldest int

	window time.Time // the minute of the clock that count belongs to
	count  int
}

const limitWindow = time.Minute

// takeFixed counts a call in the current minute of the clock and returns how long to
// wait; if zero, the call passes.
func (m *meter) takeFixed(now time.Time, limit int) time.Duration {
	if window := now.Truncate(limitWindow); !window.Equal(m.window) {
		m.window, m.count = window, 0
	}
	m.count++
	if limit <= 0 || m.count <= limit {
		return 0
	}
	return max(m.window.Add(limitWindow).Sub(now), time.Second)
}

// take counts a call and returns how long to wait; if zero, the call passes.
func (m *meter) take(now time.Time, limit int) time.Duration {
	if limit <= 0 {
		return 0
	}
	if len(m.times) < limit {
		m.times = append(m.times, now)
		return 0
	}
	passes := now.Sub(m.times[m.oldest]) >= limitWindow
	m.times[m.oldest] = now
	m.oldest = (m.oldest + 1) % limit
	if passes {
		return 0
	}
	return max(m.times[m.oldest].Add(limitWindow).Sub(now), time.Second)
}
