package main

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/status"
)

const (
	// maxAhead bounds how many customers are asked about beyond the first whose
	// answer is not known: their answers are held back to keep the order.
	maxAhead = 10_000
	// maxOpen bounds how many customers are waiting to be asked about again. While
	// there are more, the service is not asked about others.
	maxOpen = checkChunk
	// maxTries is how often Partner Center may fail to answer about a customer while
	// it answers about others. The pauses between the tries double.
	maxTries = 8
)

// checkRun asks about a list of customers, again about those that cannot be answered
// for now, and prints the answers in the order of the list.
type checkRun struct {
	ids      []string
	retryFor time.Duration
	asker    asker
	printer  printer
	progress *progress

	next     int             // the first that was not asked about
	open     []openID        // those to ask about again, oldest first
	finished map[int]outcome // place → an outcome that waits for its turn to be printed
	printed  int             // how many are printed
	settled  time.Time       // when a customer last got a final outcome; at first, when the run began

	total      tally
	failure    error // of the last call that left customers without an answer
	unanswered int   // customers whose calls failed
}

// openID is a customer who could not be answered for now.
type openID struct {
	place int
	last  outcome
	since time.Time // when the customer was first asked about
	tries int       // that Partner Center did not answer
	until time.Time // when the run gives up on the customer
	due   time.Time // when to ask again
}

// run asks until every customer has a final outcome, or ctx ends. It fails only if
// the output does.
func (r *checkRun) run(ctx context.Context) error {
	defer r.progress.end()
	for r.printed < len(r.ids) && r.asker.over == nil && ctx.Err() == nil {
		if err := r.step(ctx); err != nil {
			return err
		}
	}
	r.abandon(ctx)
	if err := r.print(); err != nil {
		return err
	}
	return r.printer.flush()
}

// step makes one call, or waits until there is something to ask.
func (r *checkRun) step(ctx context.Context) error {
	now := time.Now()
	if r.settled.IsZero() {
		r.settled = now
	}
	again := r.due(now)
	places := make([]int, 0, checkChunk)
	for _, open := range again {
		places = append(places, open.place)
	}
	for len(places) < checkChunk && len(r.open) < maxOpen && r.next < len(r.ids) && r.next < r.printed+maxAhead {
		places = append(places, r.next)
		r.next++
	}
	if len(places) == 0 {
		return r.wait(ctx, now)
	}
	ids := make([]string, len(places))
	for i, place := range places {
		ids[i] = r.ids[place]
	}
	outcomes := r.asker.about(ctx, ids)
	now = time.Now()
	if slices.ContainsFunc(outcomes, func(o outcome) bool { return o.again == 0 && o.failure == nil }) {
		r.settled = now
	}
	for i, outcome := range outcomes {
		// While no customer is settled, none gets another retryFor: in an outage, a
		// long list would take that for each chunk.
		open := openID{place: places[i], since: now, until: r.settled.Add(r.retryFor)}
		if i < len(again) {
			open = again[i]
		}
		open.fail(outcome, now)
		if outcome.again == 0 || !open.due.Before(open.until) || open.tries >= maxTries && !r.settled.Before(open.since) {
			r.finished[open.place] = outcome
			if outcome.failure != nil && r.retryFor > 0 && !now.Before(open.until) {
				r.asker.over = outcome.failure
			}
			continue
		}
		r.open = append(r.open, open)
	}
	return r.print()
}

// fail records an outcome that is not final.
func (o *openID) fail(last outcome, now time.Time) {
	o.last, o.due = last, now.Add(last.again)
	if last.GetError().GetReason() == "PARTNER_CENTER_UNAVAILABLE" {
		o.due = now.Add(max(last.again, leastPause<<min(o.tries, maxTries)))
		o.tries++
	}
}

// due removes from the open ones those to ask about now, up to a chunk.
func (r *checkRun) due(now time.Time) []openID {
	var due []openID
	kept := r.open[:0]
	for _, open := range r.open {
		if len(due) < checkChunk && !open.due.After(now) {
			due = append(due, open)
		} else {
			kept = append(kept, open)
		}
	}
	r.open = kept
	return due
}

// wait waits until the first of the open ones is due.
func (r *checkRun) wait(ctx context.Context, now time.Time) error {
	first := r.open[0].due
	for _, open := range r.open {
		if open.due.Before(first) {
			first = open.due
		}
	}
	r.progress.show(r.printed+len(r.finished), len(r.open), r.asker.budget)
	select {
	case <-time.After(min(first.Sub(now), progressEvery)):
	case <-ctx.Done():
	}
	return nil
}

// abandon ends the customers who have no outcome when calls have become hopeless.
func (r *checkRun) abandon(ctx context.Context) {
	for _, open := range r.open {
		r.finished[open.place] = open.last
	}
	r.open = nil
	if r.next == len(r.ids) {
		return
	}
	failure := r.asker.over
	if failure == nil {
		failure = status.FromContextError(ctx.Err()).Err()
	}
	for ; r.next < len(r.ids); r.next++ {
		r.finished[r.next] = outcome{failed(status.Code(failure), "", "The call failed."), failure, 0}
	}
}

// print prints the outcomes that are next in the list.
func (r *checkRun) print() error {
	for {
		outcome, known := r.finished[r.printed]
		if !known {
			break
		}
		delete(r.finished, r.printed)
		if outcome.failure != nil {
			r.failure, r.unanswered = outcome.failure, r.unanswered+1
		}
		r.total.count(outcome.BatchCheckEligibilityResult)
		if err := r.printer.add(r.ids[r.printed], outcome.BatchCheckEligibilityResult); err != nil {
			return err
		}
		r.printed++
	}
	r.progress.show(r.printed+len(r.finished), len(r.open), r.asker.budget)
	return nil
}
