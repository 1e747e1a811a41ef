package reviews

import "context"

// Wait waits for the reviews under way.
func (l *Loop) Wait() { l.running.Wait() }

// Begin begins reviews that were taken.
func (l *Loop) Begin(ctx context.Context, taken []Taken) { l.begin(ctx, taken) }

// Resume ends a pause.
func (l *Loop) Resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused, l.failures = l.paused.AddDate(-1, 0, 0), 0
}
