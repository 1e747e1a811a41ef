package cache

import (
	"context"
	"sync"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

const (
	// ledgerLife is how long what was shared is shared again when the
	// connection comes back: a failover may have lost it.
	ledgerLife = time.Minute
	// maxLedger bounds the ledger; beyond, what Redis has taken goes first.
	maxLedger = 4096
)

// ledger holds what this process has fetched lately, until Redis has it for
// sure: a write that failed, or that a failover lost, would leave older
// evidence to the other replicas.
type ledger struct {
	now     func() time.Time
	mu      sync.Mutex
	entries map[eligibility.Key]ledgerEntry // guarded by mu
}

type ledgerEntry struct {
	evidence  *eligibility.Evidence
	keepUntil time.Time
	written   time.Time // when it came into the ledger
	open      bool      // Redis does not have it, as far as is known
	reopened  int       // how often Redis may have lost it since
}

func newLedger(now func() time.Time) *ledger {
	return &ledger{now: now, entries: make(map[eligibility.Key]ledgerEntry)}
}

// note records whether Redis has taken evidence.
func (l *ledger) note(key eligibility.Key, evidence *eligibility.Evidence, keepUntil time.Time, taken bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, held := l.entries[key]
	if held && old.evidence.FetchTime.After(evidence.FetchTime) {
		return
	}
	if !held && len(l.entries) >= maxLedger && !l.makeRoom() {
		return
	}
	l.entries[key] = ledgerEntry{evidence: evidence, keepUntil: keepUntil, written: l.now(), open: !taken}
}

// makeRoom drops an entry that Redis has taken. The lock is held.
func (l *ledger) makeRoom() bool {
	for key, entry := range l.entries {
		if !entry.open {
			delete(l.entries, key)
			return true
		}
	}
	return false
}

// reopen makes settle share everything again.
func (l *ledger) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, entry := range l.entries {
		entry.open = true
		entry.reopened++
		l.entries[key] = entry
	}
}

// settle shares what is open, as far as Redis takes it, and forgets what is old
// enough or need not be kept.
func (l *ledger) settle(ctx context.Context, redis *sharedTier) {
	for key, entry := range l.due() {
		if !redis.share(ctx, key, entry.evidence, entry.keepUntil, nil) {
			return
		}
		l.close(key, entry)
	}
}

// due returns what is open.
func (l *ledger) due() map[eligibility.Key]ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	due, now := make(map[eligibility.Key]ledgerEntry), l.now()
	for key, entry := range l.entries {
		switch {
		case !now.Before(entry.keepUntil), !entry.open && now.Sub(entry.written) >= ledgerLife:
			delete(l.entries, key)
		case entry.open:
			due[key] = entry
		}
	}
	return due
}

// close notes that Redis has taken entry, unless a newer one stands there by
// now or Redis may have lost it meanwhile.
func (l *ledger) close(key eligibility.Key, entry ledgerEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now, held := l.entries[key]; held && now.evidence == entry.evidence && now.reopened == entry.reopened {
		now.open = false
		l.entries[key] = now
	}
}
