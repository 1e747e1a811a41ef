package changes

// HoldEntries bounds the ring of a log that does not run yet.
func HoldEntries(l *Log, entries int) { l.ring.entries = entries }
