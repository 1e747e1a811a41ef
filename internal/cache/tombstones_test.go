package cache

import (
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A tombstone keeps older evidence out for as long as that could be fresh, by a
// clock that nothing sets; what is from the future counts once its time has come.
func TestTombstones(t *testing.T) {
	t.Parallel()
	const life = time.Minute
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	older := &eligibility.Evidence{Status: eligibility.AccountStatusAllowed, FetchTime: now.Add(-time.Second)}
	for name, row := range map[string]struct {
		announced time.Time
		passed    time.Duration
		clock     time.Time
		keepsOut  bool
	}{
		"at once":                               {announced: now, clock: now, keepsOut: true},
		"until its life ends":                   {announced: now, passed: life - 1, clock: now, keepsOut: true},
		"no longer":                             {announced: now, passed: life, clock: now},
		"although the clock was set ahead":      {announced: now, passed: time.Second, clock: now.Add(time.Hour), keepsOut: true},
		"not once the clock was set back":       {announced: now, passed: time.Second, clock: now.Add(-time.Hour)},
		"not what is from the future":           {announced: now.Add(time.Hour), clock: now},
		"once the clock that was behind is set": {announced: now.Add(time.Hour), passed: time.Second, clock: now.Add(time.Hour), keepsOut: true},
		"not what is as old":                    {announced: older.FetchTime, clock: now},
	} {
		var elapsed time.Duration
		tombs := newTombstones(life)
		tombs.elapsed = func() time.Duration { return elapsed }
		tombs.add(accountKey, row.announced, now)
		elapsed = row.passed
		if newer, _ := tombs.newer(accountKey, older, row.clock); newer != row.keepsOut {
			t.Errorf("%s: keeps out %t, want %t", name, newer, row.keepsOut)
		}
	}
}
