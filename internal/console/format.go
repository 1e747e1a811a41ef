package console

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/decisionlog"
)

// isoTime formats a time for machines.
func isoTime(t time.Time) string { return t.UTC().Format(isoMillis) }

// utcTime formats a time for people, to the second, and utcMillis to the millisecond.
func utcTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func utcMillis(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }

// span formats a duration for people. Its blanks do not break.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + span(-d)
	case d < time.Second:
		return fmt.Sprintf("%d\u00a0ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f\u00a0s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d\u00a0s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d\u00a0min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d\u00a0h\u00a0%d\u00a0min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d\u00a0days", int(d.Hours()/24))
	}
}

// shown returns a name or an ID as a page shows it.
func shown(s string) string { return visible(s, shortRunes) }

// outcomeClass is the class of an outcome's badge.
func outcomeClass(outcome decisionlog.Outcome) string {
	switch outcome {
	case decisionlog.OutcomeAllowed:
		return "allowed"
	case decisionlog.OutcomeBlocked:
		return "blocked"
	default:
		return "undecided"
	}
}

// errorReason is why a record has no decision; empty if it has one.
func errorReason(record decisionlog.Record) string {
	if record.Outcome != decisionlog.OutcomeError {
		return ""
	}
	return record.Kind.Reason()
}

// whole formats a count.
func whole(n float64) string { return strconv.FormatFloat(math.Floor(n), 'f', 0, 64) }

// percent is the part that n is of all, for the width of a bar.
func percent(n, all float64) string {
	if all <= 0 {
		return "0"
	}
	return strconv.FormatFloat(min(max(100*n/all, 0), 100), 'f', 1, 64)
}

// ending is the end of a life, as a page shows it.
type ending struct {
	At         time.Time
	Left       time.Duration
	Over, Soon bool
}

// ends describes an end, which is soon if it is less than some hours ahead.
func ends(at, now time.Time, soonHours int) ending {
	left := at.Sub(now)
	return ending{At: at, Left: left, Over: left <= 0, Soon: left < time.Duration(soonHours)*time.Hour}
}
