package budget

import (
	"context"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
)

// Standing is how a check that needs a call would fare now.
type Standing struct {
	// Paused is what is left of the pause.
	Paused time.Duration
	// Wait is how long until a call may be made; 0 if it may be made at once. Refuses
	// reports that a check does not wait for so long.
	Wait    time.Duration
	Refuses bool
	// Alone reports that the shared budget is out of reach, so that this process has
	// its part of it only.
	Alone bool
}

// Standing looks at the budget, within ctx, and takes nothing from it.
func (b *Budget) Standing(ctx context.Context) Standing {
	reply := b.do(ctx, Step{Kind: KindLook})
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.limits(reply)
	wait := duration(max(micros(reply.Debt)+l.interval-l.depth, 0))
	return Standing{
		Paused: max(reply.Paused, duration(b.share.pause-b.time())),
		Wait:   wait, Refuses: wait > maxBooking, Alone: b.alone,
	}
}

// Report is the state of the budget, as far as this replica knows.
type Report struct {
	// PerMinute is the configured budget, and Limit how many calls a minute there may be
	// now. If Alone, Limit is this replica's part.
	PerMinute, Limit float64
	// Level is how many calls could be made at once.
	Level  float64
	Paused time.Duration
	Alone  bool
	// Waiting is how many calls wait, by lane.
	Waiting [evidence.Lanes]int
	// Fleet is the replicas at the time Announced, which is zero if there is no shared
	// budget, or it was never reached: Fleet then is this replica.
	Fleet     Fleet
	Announced time.Time
}

// Report returns the state of the budget. It does not block.
func (b *Budget) Report() Report {
	limit, level := b.limitAndLevel()
	report := Report{PerMinute: b.perMinute, Limit: limit, Level: level, Paused: b.Paused()}
	for lane := range b.lanes {
		report.Waiting[lane] = int(b.lanes[lane].waiting.Load())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	report.Alone, report.Fleet, report.Announced = b.alone, b.fleet, b.announced
	return report
}
