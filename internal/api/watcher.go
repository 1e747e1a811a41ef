package api

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

var (
	errNoFeed = errors.New("the partner has no feed of changes")
	// errIncomplete is why a stream fails before it has sent all current answers.
	errIncomplete = errors.New("the current answers cannot be read")

	errSlow = errors.New("the caller of the stream does not receive")
)

// The names of ends, for metrics and records.
const (
	endDraining = "draining"
	endMaxAge   = "max_age"
	endSlow     = "slow"
	endLeft     = "left"
	endFailed   = "failed"
)

var endNames = map[eligibilityv1.WatchEnd_Reason]string{ //nolint:gochecknoglobals // a constant
	eligibilityv1.WatchEnd_REASON_DRAINING: endDraining,
	eligibilityv1.WatchEnd_REASON_MAX_AGE:  endMaxAge,
	eligibilityv1.WatchEnd_REASON_SLOW:     endSlow,
}

// watcher is one stream. Its handler's goroutine runs it; end, and the timer of sends,
// are called by others. It has no queue and no goroutine of its own.
type watcher struct {
	stream      grpc.ServerStream
	asked       *watchRequest
	watched     *watched
	language    eligibility.Language
	times       *watchTimes
	comparisons *comparisons

	// wake ends with the stream, and when the stream is to end.
	wake   context.Context //nolint:containedctx // of one stream
	cancel context.CancelFunc

	token string // of the last message
	// shown is the time of the evidence that the current answers had; nil after the time
	// in which changes from before the stream come.
	shown        map[eligibility.Key]time.Time
	expires      time.Time
	nextProgress time.Time

	mu       sync.Mutex
	ends     eligibilityv1.WatchEnd_Reason // why the stream is to end
	begun    time.Time                     // of the send under way; zero if none is
	slow     bool                          // a send was blocked for too long
	gone     bool                          // the stream was abandoned, or has ended
	sendings *time.Timer                   // calls late while a send is under way
}

// newWatcher returns the watcher of a stream whose context is ctx.
func newWatcher(ctx context.Context, stream grpc.ServerStream, h *handler, asked *watchRequest, c *call) *watcher {
	w := &watcher{
		stream: stream, asked: asked, watched: c.watched, language: c.Language, times: &h.watchTimes, comparisons: &h.comparisons,
		token: asked.continues, expires: time.Now().Add(jittered(h.watchTimes.age)),
	}
	w.wake, w.cancel = context.WithCancel(ctx)
	return w
}

// end makes the stream end soon, for reason unless it is ending for another.
func (w *watcher) end(reason eligibilityv1.WatchEnd_Reason) {
	w.mu.Lock()
	if w.ends == eligibilityv1.WatchEnd_REASON_UNSPECIFIED {
		w.ends = reason
	}
	w.mu.Unlock()
	w.cancel()
}

// ended reports whether the stream is to end, which it is once it is old.
func (w *watcher) ended() bool {
	if !time.Now().Before(w.expires) {
		w.end(eligibilityv1.WatchEnd_REASON_MAX_AGE)
	}
	return w.isToEnd()
}

func (w *watcher) isToEnd() bool { return w.reason() != eligibilityv1.WatchEnd_REASON_UNSPECIFIED }

func (w *watcher) reason() eligibilityv1.WatchEnd_Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ends
}

func (w *watcher) isSlow() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slow
}

// send sends a message with an event. It returns errSlow if that took so long that the stream must
// end.
func (w *watcher) send(event watchEvent) error {
	w.mu.Lock()
	if w.gone {
		w.mu.Unlock()
		return errSlow
	}
	w.begun = time.Now()
	if w.sendings == nil {
		w.sendings = time.AfterFunc(w.times.blocked, w.late)
	} else {
		w.sendings.Reset(w.times.blocked)
	}
	w.mu.Unlock()
	err := w.stream.SendMsg(&WatchReply{Token: w.token, Language: w.language, event: event})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sendings.Stop()
	w.begun = time.Time{}
	if w.slow {
		return errSlow
	}
	return err //nolint:wrapcheck // the interceptor looks at the context
}

// late is called when a send has been blocked for a while.
func (w *watcher) late() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.begun.IsZero() || time.Since(w.begun) < w.times.blocked: // of an earlier send
	case !w.slow:
		w.slow = true
		w.sendings.Reset(w.times.abandon)
	default:
		w.gone = true
		w.abandon()
	}
}

// abandon ends a stream over gRPC, and with it the send that it is blocked in. Over
// REST, the deadline of writes does.
func (w *watcher) abandon() {
	if stream, ok := grpc.ServerTransportStreamFromContext(w.wake).(interface{ WriteStatus(st *status.Status) error }); ok {
		_ = stream.WriteStatus(status.New(codes.OK, "")) // it fails only if the stream has ended
	}
}

// cut closes the connection of a stream that is blocked in a send, because the server
// stops.
func (w *watcher) cut() {
	w.mu.Lock()
	blocked := !w.begun.IsZero()
	w.mu.Unlock()
	if !blocked {
		return
	}
	if conn := connectionOf(w.wake); conn != nil {
		_ = conn.Close()
	}
}

// connectionOf returns the connection of an RPC; nil if the server did not name it.
func connectionOf(ctx context.Context) Connection { //nolint:ireturn // of a server
	if conn, ok := ctx.Value(ConnectionKey{}).(Connection); ok {
		return conn
	}
	if from, ok := peer.FromContext(ctx); ok {
		if conn, ok := from.AuthInfo.(Connection); ok {
			return conn
		}
	}
	return nil
}

func (w *watcher) close() {
	w.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	if w.sendings != nil {
		w.sendings.Stop()
	}
}

// watchers are the streams that are open. It is safe for concurrent use.
type watchers struct {
	mu       sync.Mutex
	open     map[*watcher]struct{}
	draining bool      // since drain was called
	until    time.Time // streams of now end until then
}

// enter adds a stream. During a drain, it ends at some time before the drain does.
func (s *watchers) enter(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[*watcher]struct{})
	}
	s.open[w] = struct{}{}
	switch now := time.Now(); {
	case !s.draining:
	case now.Before(s.until):
		w.drains(now.Add(rand.N(s.until.Sub(now)))) //nolint:gosec // spreads load
	default:
		w.end(eligibilityv1.WatchEnd_REASON_DRAINING)
	}
}

// drains makes the stream end at a time for the reason draining, unless it ends before.
func (w *watcher) drains(at time.Time) {
	timer := time.AfterFunc(time.Until(at), func() { w.end(eligibilityv1.WatchEnd_REASON_DRAINING) })
	context.AfterFunc(w.wake, func() { timer.Stop() })
}

func (s *watchers) leave(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, w)
}

// drain ends the streams one after the other, the last of them after pause.
func (s *watchers) drain(pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.draining, s.until = true, now.Add(pause)
	each := pause / time.Duration(len(s.open)+1)
	at := now
	for w := range s.open { // in no particular order
		at = at.Add(each)
		w.drains(at)
	}
}

// stop ends all streams at once. It closes the connections of those that are still
// blocked in a send after a while, so that none delays the shutdown.
func (s *watchers) stop(cutAfter time.Duration) {
	s.mu.Lock()
	s.draining, s.until = true, time.Time{}
	for w := range s.open {
		w.end(eligibilityv1.WatchEnd_REASON_DRAINING)
	}
	left := len(s.open)
	s.mu.Unlock()
	if left == 0 {
		return
	}
	time.AfterFunc(cutAfter, func() {
		s.mu.Lock()
		blocked := make([]*watcher, 0, len(s.open))
		for w := range s.open {
			blocked = append(blocked, w)
		}
		s.mu.Unlock()
		for _, w := range blocked {
			w.cut()
		}
	})
}
