//go:build acceptance

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// received is a change as a watcher received it for the first time.
type received struct {
	id, customer  string
	first         bool // nothing was known before
	before, after eligibilityv1.AccountStatus
	evidence      int64     // of after: Unix ms
	at            time.Time // when it was received
	late          bool      // at a stream's beginning, by its token
}

// watcher follows customers by tokens, as a consumer should: it leaves out every change
// that it has had.
type watcher struct {
	ids []string // none: all customers

	mu       sync.Mutex
	token    string
	changes  []received             // in the order of receipt, each once
	known    map[string]int         // event id → index in changes
	last     map[string]int64       // customer → evidence of its last change
	initial  map[string]initialSeen // customer → its answer at the beginning
	complete bool                   // initial_complete was received
	streams  int
	again    int // changes that were received before
	progress int
	through  time.Time
	latest   time.Time // of the last message on this stream
	slowest  time.Duration
	ends     []eligibilityv1.WatchEnd_Reason
	faults   []string
}

type initialSeen struct {
	status   eligibilityv1.AccountStatus
	evidence int64
}

func newWatcher(ids ...string) *watcher {
	return &watcher{ids: ids, known: map[string]int{}, last: map[string]int64{}, initial: map[string]initialSeen{}}
}

// fault records what a watcher must not receive. The lock is held.
func (w *watcher) fault(format string, args ...any) {
	if len(w.faults) < 10 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

// follow opens a stream, from the token if there is one, and receives until it ends.
func (w *watcher) follow(ctx context.Context, client eligibilityv1.EligibilityServiceClient, opts ...grpc.CallOption) error {
	w.mu.Lock()
	req := &eligibilityv1.WatchEligibilityRequest{CustomerIds: w.ids, ResumeToken: w.token}
	w.mu.Unlock()
	return w.stream(ctx, client, req, opts...)
}

func (w *watcher) stream(ctx context.Context, client eligibilityv1.EligibilityServiceClient, req *eligibilityv1.WatchEligibilityRequest, opts ...grpc.CallOption) error {
	opened := time.Now()
	stream, err := client.WatchEligibility(ctx, req, opts...)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.streams, w.latest = w.streams+1, opened
	w.mu.Unlock()
	for ended := false; ; {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if !ended {
				return errors.New("the stream ended with OK and without an end")
			}
			return nil
		}
		if err != nil {
			return err
		}
		ended = w.see(message, req.GetResumeToken() != "" && time.Since(opened) < 5*time.Second)
	}
}

// see records a message, and reports whether it is the last one. late is whether it may
// have been due before the stream was opened.
func (w *watcher) see(message *eligibilityv1.WatchEligibilityResponse, late bool) (ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.slowest, w.latest = max(w.slowest, now.Sub(w.latest)), now
	if message.GetResumeToken() == "" {
		w.fault("no token in %v", message)
	}
	w.token = message.GetResumeToken()
	switch event := message.GetEvent().(type) {
	case *eligibilityv1.WatchEligibilityResponse_Progress:
		w.progress++
		w.complete = w.complete || event.Progress.GetInitialComplete()
		w.through = event.Progress.GetThroughTime().AsTime()
	case *eligibilityv1.WatchEligibilityResponse_End:
		w.ends = append(w.ends, event.End.GetReason())
		return true
	case *eligibilityv1.WatchEligibilityResponse_Change:
		w.change(event.Change, now, late)
	default:
		w.fault("neither a change nor a progress nor an end: %v", message)
	}
	return false
}

// change records a change. The lock is held.
func (w *watcher) change(c *eligibilityv1.EligibilityChange, now time.Time, late bool) {
	one := received{
		id: c.GetEventId(), customer: c.GetCustomerId(), first: c.GetBefore() == nil,
		before: c.GetBefore().GetAccountStatus(), after: c.GetAfter().GetAccountStatus(),
		evidence: c.GetAfter().GetEvidenceTime().AsTime().UnixMilli(), at: now, late: late,
	}
	if c.GetAfter() == nil {
		w.fault("a change without an answer: %v", c)
		return
	}
	if c.GetInitial() {
		w.initial[one.customer] = initialSeen{one.after, one.evidence}
		return
	}
	if place, had := w.known[one.id]; had {
		earlier := w.changes[place]
		w.again++
		if earlier.customer != one.customer || earlier.after != one.after || earlier.evidence != one.evidence {
			w.fault("two changes have the id %s: %+v and %+v", one.id, earlier, one)
		}
		if !c.GetRedelivered() {
			w.fault("a change came again and was not marked as redelivered: %v", c)
		}
		return
	}
	if one.evidence <= w.last[one.customer] {
		w.fault("out of order: after %d came %v", w.last[one.customer], c)
	}
	w.known[one.id], w.last[one.customer] = len(w.changes), one.evidence
	w.changes = append(w.changes, one)
}

// reconnect follows with streams that last for about that time, at random replicas,
// until ctx ends. It goes on by its token after every end.
func (w *watcher) reconnect(ctx context.Context, f *replicas, last func() time.Duration) {
	for ctx.Err() == nil {
		spell, leave := context.WithTimeout(ctx, last())
		err := w.follow(spell, f.clients[f.some()])
		leave()
		switch code := status.Code(err); {
		case err == nil, code == codes.Canceled, code == codes.DeadlineExceeded:
		case code == codes.Unavailable:
			pause(ctx, 100*time.Millisecond)
		default:
			w.mu.Lock()
			w.fault("a stream ended with %v", err)
			w.mu.Unlock()
			pause(ctx, time.Second)
		}
	}
}

// view returns what find finds in a watcher that goes on.
func view[T any](w *watcher, find func(w *watcher) T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return find(w)
}

// has reports whether w has received a change of a customer to that status with
// evidence of then or later.
func (w *watcher) has(customer string, after eligibilityv1.AccountStatus, since int64) bool {
	return view(w, func(w *watcher) bool {
		for _, c := range w.changes {
			if c.customer == customer && c.after == after && c.evidence >= since {
				return true
			}
		}
		return false
	})
}
