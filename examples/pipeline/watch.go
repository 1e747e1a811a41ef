package main

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// silence is how long a stream may send nothing. Progress comes every 15 s.
const silence = 45 * time.Second

// follow receives what happens to the customers of a watch, from one stream after the
// other, until ctx ends.
func (p *pipeline) follow(ctx context.Context, w watch) {
	for wait := shortestWait; ; wait = min(2*wait, longestWait) {
		received, err := p.stream(ctx, &w)
		if ctx.Err() != nil {
			return
		}
		if received {
			wait = shortestWait
		}
		why, again := reasonOf(err)
		if w.token != "" && (why == "RESUME_TOKEN_EXPIRED" || why == "INVALID_ARGUMENT") {
			// The service no longer has all changes since the token, or is another one.
			// The current answers are as good.
			p.advance(&w, "")
			continue
		}
		sleep(max(wait, again)) // also after a WatchEnd: the next one comes from another replica
	}
}

// stream receives one stream to its end. It returns nil if the service has ended it in
// an orderly way, and whether there was a message.
func (p *pipeline) stream(ctx context.Context, w *watch) (received bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive := time.AfterFunc(silence, cancel)
	defer alive.Stop()
	segment, _ := segmentOf(w.segment)
	stream, err := p.client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{
		CustomerIds: w.ids, Segment: segment, ResumeToken: w.token,
	})
	if err != nil {
		return false, err
	}
	initial := w.token == "" // the current answers come first
	answered := make(map[string]bool)
	for {
		message, err := stream.Recv()
		if err != nil {
			return received, err
		}
		received = true
		alive.Reset(silence)
		switch {
		case message.GetChange() != nil:
			answered[message.GetChange().GetCustomerId()] = true
			p.change(w, message.GetChange())
			continue // its token is not stored: redelivered changes do no harm
		case initial && message.GetProgress().GetInitialComplete():
			initial = false
			for _, id := range w.ids {
				if !answered[id] { // nothing is known: a check fetches it
					p.release(customer{id, w.segment}, nil)
				}
			}
		}
		// All that the stream has reported so far is on the disk. Before all current
		// answers have come, there is nothing that could be resumed.
		if !initial {
			p.advance(w, message.GetResumeToken())
		}
		if message.GetEnd() != nil {
			return received, nil
		}
	}
}

// change releases the parked orders of a customer whose review has ended, however it
// did. A change that comes twice, or late, costs a check: nothing is placed by it.
func (p *pipeline) change(w *watch, change *eligibilityv1.EligibilityChange) {
	if !temporary(change.GetAfter()) {
		// evidence_time would do for commercial orders. Of other answers, which have
		// evidence of two facets, it is the time of the older one.
		p.release(customer{change.GetCustomerId(), w.segment}, change.GetObserveTime())
	}
}

func (p *pipeline) release(c customer, evidence *timestamppb.Timestamp) {
	var notBefore time.Time
	if evidence != nil {
		notBefore = evidence.AsTime()
	}
	released, err := p.book.release(c, notBefore)
	if err != nil {
		p.fail(err)
	}
	for _, o := range released {
		p.report(o, "the customer has changed")
		go p.work(o)
	}
}

func (p *pipeline) advance(w *watch, token string) {
	if err := p.book.advance(w.number, token); err != nil {
		p.fail(err)
	}
	w.token = token
}

// streams starts and ends streams as customers come and go, until no order is open and
// no more come.
func (p *pipeline) streams(ctx context.Context) {
	running := make(map[int]context.CancelFunc)
	for ; ; time.Sleep(time.Second) {
		wanted, err := p.book.watches()
		if err != nil {
			p.fail(err)
			return
		}
		for number, stop := range running {
			if _, goes := wanted[number]; !goes {
				stop()
				delete(running, number)
			}
		}
		for number, w := range wanted {
			if running[number] == nil {
				ctx, stop := context.WithCancel(ctx)
				running[number] = stop
				go p.follow(ctx, w)
			}
		}
		if p.read.Load() && len(p.book.orders()) == 0 {
			p.fail(nil)
			return
		}
	}
}
