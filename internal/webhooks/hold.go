package webhooks

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// hold is the time in which a process holds the lease of a webhook. Its fields belong
// to the goroutine of run; requests and the reader have goroutines of their own, and
// send what they found through results and reads.
//
// A change goes through these states:
//
//	read ── window ──┬── sent: done
//	                 └── failed ── parked ──┬── sent: removed
//	                                        └── 72 h over ── dead letter
//
// The position passes a change when it is done, or its record is stored.
type hold struct {
	s          *Sender
	state      State // as committed, or about to be
	generation int64
	status     Status
	until      time.Time   // the lease is held until then at least
	expiry     *time.Timer // cancels the attempts then
	queues     *queues
	window     window
	health     failures
	seq        int64
	recent     recentIDs

	pending     map[string]pending // what the store does not know yet, by id
	stateDirty  bool
	urgent      bool // the store should be written to before the next beat
	parked      int  // items that are parked, or about to be
	parkedBytes int

	attempts sync.WaitGroup
	underway int
	results  chan result
	asked    bool // the reader was asked for changes, and has not answered
	askedAt  time.Time
	wanted   chan struct{}
	reads    chan []read
}

// pending is a write that is due.
type pending struct {
	kind pendingKind
	item *item
}

type pendingKind uint8

const (
	pendingPark pendingKind = iota
	pendingBury
	pendingRemove
)

// result is the end of an attempt.
type result struct {
	item  *item
	reply reply
}

func newHold(s *Sender, status Status, state State, records []Record, until time.Time) *hold {
	h := &hold{
		s: s, state: state, generation: status.Generation, status: status, until: until,
		queues: newQueues(), pending: make(map[string]pending),
		results: make(chan result, concurrency), wanted: make(chan struct{}, 1), reads: make(chan []read),
	}
	h.health = failures{inARow: state.Failures, since: fromMillis(state.FailingSince), until: fromMillis(state.PausedUntil)}
	h.adopt(records)
	h.window.position = state.Position
	if state.Position == "" { // none is stored, or it was lost
		h.window.position = s.position
		for _, i := range s.parked {
			if h.addParked(i) {
				h.record(i, pendingPark)
			}
		}
	}
	s.parked = nil
	s.cfg.Metrics.show(s.cfg.Name, status, h.lag(time.Now()), h.isDisabled())
	if h.isDisabled() {
		s.condition.Failed(string(outcomeGone))
	}
	return h
}

// adopt adds the parked items of records.
func (h *hold) adopt(records []Record) {
	for _, record := range records {
		i, ok := itemOf(record)
		if !ok {
			h.s.cfg.Metrics.dropped.WithLabelValues(h.s.cfg.Name).Inc()
			h.record(&item{id: record.ID}, pendingRemove)
			continue
		}
		h.addParked(i)
	}
}

func (h *hold) addParked(i *item) bool {
	i.place = nil
	if !h.queues.add(i) {
		return false
	}
	h.seq = max(h.seq, i.seq)
	h.parked++
	h.parkedBytes += len(i.body)
	return true
}

// run sends changes until ctx ends or the lease is lost.
func (h *hold) run(ctx context.Context) {
	h.s.logger.Info("sending changes")
	reading, endReading := context.WithCancel(ctx)
	sending, endSending := context.WithCancel(context.WithoutCancel(ctx))
	h.expiry = time.AfterFunc(time.Until(h.until), endSending)
	reader := &reader{s: h.s, position: h.window.position}
	var background sync.WaitGroup
	background.Go(func() { reader.run(reading, h.wanted, h.reads) })
	defer func() {
		endReading()
		h.expiry.Stop()
		endSending()
		background.Wait()
		h.attempts.Wait()
		h.remember()
		h.s.cfg.Metrics.forget(h.s.cfg.Name)
		h.s.condition.Forget()
	}()
	beat := time.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		h.pump(sending)
		select {
		case <-ctx.Done():
			h.finish(context.WithoutCancel(ctx), beat.C, endSending)
			return
		case r := <-h.results:
			h.ended(r)
		case reads := <-h.reads:
			h.asked = false
			h.take(reads)
		case <-beat.C:
			if !h.beat(ctx) || sending.Err() != nil {
				h.s.logger.Warn("lease of the webhook lost; another process sends its changes, or this one when it has the lease again")
				return
			}
		}
		if h.urgent {
			h.flush(ctx)
		}
	}
}

// pump starts what may be sent, and asks for more.
func (h *hold) pump(sending context.Context) {
	now := time.Now()
	if h.isDisabled() || !now.Before(h.until) {
		return
	}
	for h.underway < h.health.limit(now) {
		i := h.queues.take(now)
		if i == nil {
			break
		}
		h.underway++
		h.attempts.Go(func() { h.results <- result{item: i, reply: h.s.attemptSafely(sending, i.id, i.body)} })
	}
	if !h.asked && h.window.open.Len()+readAhead <= maxWindow {
		h.asked, h.askedAt = true, now
		h.wanted <- struct{}{}
	}
}

func (h *hold) isDisabled() bool { return h.state.DisabledFor(h.s.cfg.URL, h.generation) }

// lag is the age of the oldest change that is not delivered. If the feed cannot be
// read, it is the time since it last could: there may be one.
func (h *hold) lag(now time.Time) (lag time.Duration) {
	if oldest := h.queues.oldest(); !oldest.IsZero() {
		lag = max(now.Sub(oldest), 0)
	}
	if silent := now.Sub(h.askedAt); h.asked && silent > 2*idleProgress {
		lag = max(lag, silent)
	}
	return lag
}

// take adds changes that were read.
func (h *hold) take(reads []read) {
	now := time.Now()
	for _, r := range reads {
		i := r.item
		if i == nil || r.redelivered && h.recent.has(i.id) {
			h.window.skip(r.token)
			continue
		}
		h.seq = max(h.seq+1, now.UnixMicro())
		i.seq, i.next = h.seq, now
		if !h.queues.add(i) { // it waits already
			h.window.skip(r.token)
			continue
		}
		i.place = h.window.read(r.token)
		if h.queues.isBehind(i) {
			h.park(i)
		}
	}
	h.stateDirty = true
	h.urgent = h.urgent || h.state.Position == ""
}

// park records an item, so that the position can pass it. If there are too many, the
// position waits.
func (h *hold) park(i *item) {
	if !i.parked {
		if h.parked >= MaxParked || h.parkedBytes+len(i.body) > maxParkedBytes {
			return
		}
		i.parked = true
		h.parked++
		h.parkedBytes += len(i.body)
	}
	h.record(i, pendingPark)
}

// ended evaluates the end of an attempt.
func (h *hold) ended(r result) {
	h.underway--
	now, i := time.Now(), r.item
	h.queues.free(i)
	h.s.cfg.Metrics.deliveries.WithLabelValues(h.s.cfg.Name, string(r.reply.outcome)).Inc()
	switch r.reply.outcome {
	case outcomeDelivered:
		h.s.condition.OK()
		h.recent.add(i.id)
		h.leave(i, pendingRemove)
		if h.health.delivered() {
			h.queues.hasten(now)
			h.s.logger.Info("the webhook accepts changes again")
		}
	case outcomeCanceled: // the process stops, or has lost the lease
	case outcomeGone:
		h.state.Disabled, h.state.DisabledIn = hashURL(h.s.cfg.URL), h.generation
		h.urgent = true
		h.s.condition.Failed(string(outcomeGone))
		h.s.logger.Error("the webhook answered 410 and is disabled; eligibilityd webhooks replay, or another URL, enables it")
	default:
		h.failed(i, r.reply, now)
	}
	h.stateDirty = true
}

// failed decides about an item after a failed attempt.
func (h *hold) failed(i *item, r reply, now time.Time) {
	h.health.failed(now, r.retryAfter)
	if h.health.failing() {
		h.s.condition.Failed(string(r.outcome))
	} else {
		h.s.condition.Degraded(string(r.outcome))
	}
	if i.since.IsZero() {
		i.since = now
	}
	i.attempts++
	i.next = now.Add(max(retryDelay(i.attempts), r.retryAfter))
	h.queues.schedule(h.queues.customers[i.customer])
	h.s.failures.Warn("change not delivered",
		zap.String("event", i.id), zap.String("outcome", string(r.outcome)), zap.Int("status", r.status), zap.Error(r.err),
		zap.Int("attempts", i.attempts), zap.Time("next", i.next))
	if now.Sub(i.since) >= giveUpAfter {
		h.bury(i, now)
		return
	}
	h.park(i)
	for _, behind := range h.queues.customers[i.customer].items[1:] {
		if behind.place != nil {
			h.park(behind)
		}
	}
}

// bury makes an item a dead letter.
func (h *hold) bury(i *item, now time.Time) {
	i.buried = now
	h.s.cfg.Metrics.deliveries.WithLabelValues(h.s.cfg.Name, "dead").Inc()
	h.s.failures.Error("change not delivered in 72 h; it is a dead letter now", zap.String("event", i.id))
	h.leave(i, pendingBury)
}

// buryOverdue buries changes that a webhook which has failed as a whole for so long
// could not be offered: the feed does not keep them forever.
func (h *hold) buryOverdue(now time.Time) {
	if !h.health.failing() || h.isDisabled() || now.Sub(h.health.since) < giveUpAfter {
		return
	}
	for _, i := range h.queues.waiting() {
		if now.Sub(i.written) >= giveUpAfter {
			h.bury(i, now)
		}
	}
}

// leave takes an item out of its queue. A record of it is removed or becomes a dead
// letter; if there is none to write, the position passes it at once.
func (h *hold) leave(i *item, kind pendingKind) {
	h.queues.remove(i)
	if i.parked {
		h.parked--
		h.parkedBytes -= len(i.body)
	}
	if kind == pendingRemove && !i.parked {
		h.pass(i)
		return
	}
	h.record(i, kind)
}

// record makes a write due. It replaces one for the same item.
func (h *hold) record(i *item, kind pendingKind) {
	h.pending[i.id] = pending{kind: kind, item: i}
	h.urgent = true
}

// pass lets the position pass an item.
func (h *hold) pass(i *item) {
	if i.place != nil {
		h.window.done(i.place)
		i.place = nil
	}
}
