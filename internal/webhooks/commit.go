package webhooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"
)

const (
	// commitRecords and commitBytes bound one commit.
	commitRecords = 64
	commitBytes   = 1 << 20
	// maxRecent is how many changes that were delivered are known by their ids, to
	// leave out what the feed returns again.
	maxRecent = 4096
)

// beat renews the lease, writes what is due and shows the metrics. It reports false
// if the lease is lost.
func (h *hold) beat(ctx context.Context) (held bool) {
	asked, oldest := time.Now(), h.queues.oldest()
	status, err := h.s.cfg.Store.Acquire(ctx, h.s.cfg.Name, h.s.holder, leaseLife, oldest)
	if err != nil {
		return time.Now().Before(h.until)
	}
	if !status.Held {
		return false
	}
	h.until = asked.Add(leaseLife)
	h.expiry.Reset(time.Until(h.until))
	if h.isSetBack(status) {
		h.recordAll()
	}
	h.status = status
	if status.Generation != h.generation {
		h.replayed(ctx)
	}
	h.buryOverdue(time.Now())
	h.flush(ctx)
	h.s.cfg.Metrics.show(h.s.cfg.Name, h.status, h.lag(time.Now()), h.isDisabled())
	return true
}

// isSetBack reports whether the store has lost what was committed: it was emptied, or
// a failover has gone back to an earlier commit, which the next one may hide.
func (h *hold) isSetBack(status Status) bool {
	if len(h.status.State) > 0 && !bytes.Equal(status.State, h.status.State) {
		return true
	}
	return len(h.pending) == 0 && status.Generation == h.generation && status.Parked < int64(h.parked)
}

// recordAll makes everything due that the store should hold.
func (h *hold) recordAll() {
	h.stateDirty = true
	for _, i := range h.queues.items {
		if i.parked {
			h.record(i, pendingPark)
		}
	}
}

// replayed reads the letters that an operator has moved back, and enables the webhook.
func (h *hold) replayed(ctx context.Context) {
	h.flush(ctx)
	records, err := h.s.cfg.Store.Parked(ctx, h.s.cfg.Name)
	if err != nil {
		return // at the next beat
	}
	h.adopt(records)
	h.generation = h.status.Generation
	h.state.Disabled, h.state.DisabledIn = "", 0
	h.health = failures{}
	h.s.condition.Forget()
	h.queues.hasten(time.Now())
	h.stateDirty = true
	h.s.logger.Info("replayed by an operator")
}

// flush writes what is due, and lets the position pass what is stored then.
func (h *hold) flush(ctx context.Context) {
	h.urgent = false
	for len(h.pending) > 0 || h.stateDirty {
		commit, written := h.commit()
		err := h.s.cfg.Store.Commit(ctx, h.s.cfg.Name, h.s.holder, commit)
		if errors.Is(err, ErrNotHeld) {
			h.until = time.Time{} // the next beat finds out whether it is lost
			h.expiry.Reset(0)
		}
		if err != nil {
			return
		}
		h.status.State = commit.State
		h.stateDirty = false
		for _, p := range written {
			delete(h.pending, p.item.id)
			h.pass(p.item)
		}
		if len(h.pending) == 0 {
			h.stateDirty = h.window.position != h.state.Position // with the next beat
			return
		}
	}
}

// commit returns the next commit, and which of the writes that are due it has.
func (h *hold) commit() (Commit, []pending) {
	h.state.Position = h.window.position
	h.state.FailingSince, h.state.Failures, h.state.PausedUntil = millis(h.health.since), h.health.inARow, millis(h.health.until)
	var commit Commit
	commit.State, _ = json.Marshal(h.state) //nolint:errchkjson // texts and numbers
	var written []pending
	size := 0
	for id, p := range h.pending {
		if len(written) == commitRecords || size > commitBytes {
			break
		}
		written = append(written, p)
		size += len(p.item.body)
		switch p.kind {
		case pendingPark:
			commit.Park = append(commit.Park, p.item.record())
		case pendingBury:
			commit.Bury = append(commit.Bury, p.item.record())
		case pendingRemove:
			commit.Remove = append(commit.Remove, id)
		}
	}
	return commit, written
}

// finish lets requests under way end, writes what is due and releases the lease.
func (h *hold) finish(ctx context.Context, beat <-chan time.Time, endSending func()) {
	grace := time.NewTimer(h.s.cfg.Grace)
	defer grace.Stop()
	for h.underway > 0 {
		select {
		case r := <-h.results:
			h.ended(r)
		case <-grace.C:
			endSending()
		case <-beat:
			if !h.beat(ctx) {
				return
			}
		}
	}
	h.flush(ctx)
	h.flush(ctx) // the position, past what the first has stored
	_ = h.s.cfg.Store.Release(ctx, h.s.cfg.Name, h.s.holder)
}

// remember keeps what the store may lose before the process has the lease again.
func (h *hold) remember() {
	if h.window.position != "" {
		h.s.position = h.window.position
	}
	for _, i := range h.queues.items {
		if i.parked {
			h.s.parked = append(h.s.parked, i)
		}
	}
}

// recentIDs are the ids of the changes delivered last. Its zero value is empty.
type recentIDs struct {
	known map[string]struct{}
	order []string
}

func (r *recentIDs) has(id string) bool {
	_, known := r.known[id]
	return known
}

func (r *recentIDs) add(id string) {
	if r.known == nil {
		r.known = make(map[string]struct{})
	}
	if r.has(id) {
		return
	}
	if len(r.order) == maxRecent {
		delete(r.known, r.order[0])
		r.order = r.order[1:]
	}
	r.known[id] = struct{}{}
	r.order = append(r.order, id)
}
