package decisionlog

// Reopened reports whether Run has taken the last Reopen.
func (l *Log) Reopened() bool { return len(l.reopen) == 0 }
