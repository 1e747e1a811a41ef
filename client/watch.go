package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

const (
	// silence is how long a stream may send nothing. Progress comes every 15 s.
	silence = 45 * time.Second
	// longestPause is the longest pause between two streams.
	longestPause = 30 * time.Second
	// steady is how long a stream lasts after which the next one follows soon.
	steady = time.Minute
	// remembered is how many changes are recognized at most if they come again.
	remembered = 4096
)

// WatchRequest names the customers whose changes are received.
type WatchRequest struct {
	// CustomerIDs are up to 1,000 customers; none means all of the partner's, which needs
	// a right of its own.
	CustomerIDs []string
	// Segment and Partner are as in [Request].
	Segment eligibilityv1.Segment
	Partner string
	// ResumeToken is the last token that Save was given, with the same customers. If it is
	// empty, the current answers come first.
	ResumeToken string
	// Save stores where to go on after a restart of the program. It is called when all
	// changes before the token have been handled: after the body of the loop has run, from
	// the last of the current answers on. Its error ends the watch. Nil stores nothing.
	Save func(token string) error
	// Restarted is called when the changes after the token are no longer kept: some may be
	// missing, and the current answers, or the oldest changes that are kept, follow.
	Restarted func()
}

// Change is a change of a customer's eligibility, or the current answer. An order still
// needs a check before it is placed, with ObserveTime as MinEvidenceTime.
type Change struct {
	// EventID is the same whenever and wherever the same change is received.
	EventID    string
	CustomerID string
	// Before and After are the answers; undecided if what was known does not decide.
	Before, After Verdict
	// Initial marks the current answers, one for each of CustomerIDs. If nothing is known
	// about a customer, After is undecided, and a check finds out.
	Initial bool
	// Redelivered means that the change may have been received before.
	Redelivered bool
	// ObserveTime is when the evidence of the change was fetched.
	ObserveTime time.Time
}

// Watch receives changes at least once, in order for each customer, from one stream of
// the service after the other, also if something on the way to it ends them. The loop over
// it ends with an error: that of ctx, of Save, or an [*Error] that a new stream would not
// cure.
func (c *Client) Watch(ctx context.Context, request WatchRequest) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		w := &watch{request: request, token: request.ResumeToken, initial: request.ResumeToken == "", seen: make(map[string]bool), yield: yield}
		for pause := shortestPause; ; pause = min(2*pause, longestPause) {
			began := time.Now()
			failure := errorOf(w.stream(c.outgoing(ctx), c.api))
			if time.Since(began) > steady {
				pause = shortestPause
			}
			switch {
			case w.left:
				return
			case ctx.Err() != nil:
				yield(Change{}, ctx.Err())
				return
			case failure == nil: // an orderly end
				failure = new(Error)
			case w.token != "" && (failure.Reason == "RESUME_TOKEN_EXPIRED" || failure.Code == codes.InvalidArgument):
				w.restart()
			case !failure.curable() && !failure.cutOff():
				yield(Change{}, failure)
				return
			}
			sleep(ctx, max(failure.RetryAfter, pause/2)+rand.N(pause/2)) //nolint:gosec // spreads load
		}
	}
}

// watch is the state of a watch between its streams.
type watch struct {
	request WatchRequest
	token   string
	initial bool            // current answers are to come
	oldest  bool            // streams without a token begin with the oldest change
	seen    map[string]bool // the ids of changes that were handled
	yield   func(Change, error) bool
	left    bool // the loop has ended
}

// restart begins anew.
func (w *watch) restart() {
	w.token, w.initial = "", true
	w.oldest = len(w.request.CustomerIDs) == 0 // there are no current answers instead
	clear(w.seen)
	if w.request.Restarted != nil {
		w.request.Restarted()
	}
}

// stream receives one stream to its end.
func (w *watch) stream(ctx context.Context, api eligibilityv1.EligibilityServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(silence, cancel)
	defer silent.Stop()
	request := &eligibilityv1.WatchEligibilityRequest{
		CustomerIds: w.request.CustomerIDs, Segment: w.request.Segment, Partner: w.request.Partner, ResumeToken: w.token,
	}
	if w.oldest {
		request.StartTime = new(timestamppb.Timestamp)
	}
	stream, err := api.WatchEligibility(ctx, request)
	if err != nil {
		return err
	}
	answered := make(map[string]bool)
	for {
		silent.Reset(silence)
		message, err := stream.Recv()
		silent.Stop() // the loop may take its time
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if change := message.GetChange(); change != nil {
			answered[canonical(change.GetCustomerId())] = true
			w.change(change)
		} else if w.initial && message.GetProgress().GetInitialComplete() {
			w.complete(answered)
		}
		w.save(message.GetResumeToken())
		if w.left || message.GetEnd() != nil {
			return nil
		}
	}
}

// change hands a change on, unless it was handled before. A current answer is always
// handed on: it may be another one than that of the stream before.
func (w *watch) change(c *eligibilityv1.EligibilityChange) {
	id := c.GetEventId()
	if w.seen[id] && !c.GetInitial() {
		return
	}
	w.hand(Change{
		EventID: id, CustomerID: c.GetCustomerId(),
		Before: verdictOf(c.GetCustomerId(), c.GetBefore(), nil), After: verdictOf(c.GetCustomerId(), c.GetAfter(), nil),
		Initial: c.GetInitial(), Redelivered: c.GetRedelivered(), ObserveTime: timeOf(c.GetObserveTime()),
	})
	if len(w.seen) == remembered {
		clear(w.seen) // a change may come again
	}
	w.seen[id] = true
}

// complete hands on that nothing is known about the customers without a current answer.
func (w *watch) complete(answered map[string]bool) {
	w.initial = false
	for _, id := range w.request.CustomerIDs {
		if !answered[canonical(id)] {
			w.hand(Change{CustomerID: id, Initial: true})
		}
	}
}

func (w *watch) hand(change Change) {
	if !w.left {
		w.left = !w.yield(change, nil)
	}
}

// save stores a token, unless the loop ended before it had handled all that is before it.
// Until all current answers have come, there is nothing to go on from.
func (w *watch) save(token string) {
	if w.left || w.initial || token == "" {
		return
	}
	w.token = token
	if w.request.Save == nil {
		return
	}
	if err := w.request.Save(token); err != nil {
		w.yield(Change{}, err)
		w.left = true
	}
}
