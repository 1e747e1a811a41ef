package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// MaxWatched is the most customers that one stream may list.
const MaxWatched = 1000

// customersPerRequest is how many customers of a stream count as one request of its
// caller's rate.
const customersPerRequest = 10

// initialToken is the beginning of the tokens of a stream that has not sent all current
// answers: a stream that goes on from one sends all of them again. No token of package
// changes begins so.
const initialToken = "i."

// watchTimes are the times of streams. Tests shorten them.
type watchTimes struct {
	age      time.Duration // of a stream, give or take a tenth
	progress time.Duration // between two messages of progress
	blocked  time.Duration // after which a send makes a stream slow
	abandon  time.Duration // how much longer a slow stream waits for its send
	cut      time.Duration // after which the shutdown closes the connection of a stream that is blocked
}

func defaultWatchTimes() watchTimes {
	return watchTimes{
		age: 30 * time.Minute, progress: 15 * time.Second,
		blocked: 30 * time.Second, abandon: 90 * time.Second, cut: time.Second,
	}
}

// MaxWatchAge is the most time that a stream of changes lasts, an end that its caller
// does not receive included.
const MaxWatchAge = 33*time.Minute + 2*time.Minute

// WatchEligibility streams changes until the caller leaves, the stream is old or slow,
// or the server stops. The last three send an end and are no error.
func (h *handler) WatchEligibility(req *eligibilityv1.WatchEligibilityRequest, stream grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	c.watched = new(watched)
	asked, err := h.watchRequest(c, req)
	if err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil { // before the first message, which may take a while
		return err //nolint:wrapcheck // the interceptor looks at the context
	}
	if conn := connectionOf(ctx); conn != nil {
		defer conn.Streaming()()
	}
	w := newWatcher(ctx, stream, h, asked, c)
	h.watchers.enter(w)
	defer h.watchers.leave(w)
	err = w.run()
	h.metrics.watchEnded(c.watched, err)
	return err
}

// watched is what the record of a stream states.
type watched struct {
	customers            int    // that were listed
	initial, changes     int    // messages sent
	redelivered, unequal int    // of changes; changes that made no difference, or that a current answer showed
	end                  string // why the stream ended, if it ended by itself
}

// watchRequest is a request that was read.
type watchRequest struct {
	of        *partner
	log       *changes.Log
	segment   eligibility.Segment
	start     changes.Start
	initial   bool   // the current answers are sent first
	continues string // the token that was given, for an end before the beginning
}

// watchRequest reads and checks a request.
func (h *handler) watchRequest(c *call, req *eligibilityv1.WatchEligibilityRequest) (*watchRequest, error) {
	faults := c.in.Violations
	asked := &watchRequest{continues: req.GetResumeToken()}
	asked.start.Customers = customers(req.GetCustomerIds(), MaxWatched, &faults)
	asked.segment = askedSegment(req.GetSegment(), &faults)
	asked.of = h.partners.find(req.GetPartner(), c.caller, &faults)
	if at := req.GetStartTime(); at != nil {
		if asked.start.Time = at.AsTime(); asked.start.Time.IsZero() { // which would mean none
			asked.start.Time = time.Unix(0, 0)
		}
		switch {
		case !at.IsValid():
			faults.Add(fieldStartTime, "must be a valid timestamp")
		case asked.start.Time.After(h.now().Add(maxClockLead)):
			faults.Add(fieldStartTime, "must not lie more than one second in the future")
		}
	}
	var unfinished bool
	asked.start.Token, unfinished = strings.CutPrefix(req.GetResumeToken(), initialToken)
	if unfinished && asked.start.Token == "" {
		faults.Add(fieldResumeToken, "must be the token of a message")
	}
	if asked.of != nil {
		asked.log = h.logs[asked.of.name]
	}
	if asked.log != nil && asked.start.Token != "" && !asked.log.Knows(asked.start.Token) {
		faults.Add(fieldResumeToken, "is not a resume token of this partner's feed")
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	c.partner, c.partners = asked.of, 1
	c.watched.customers = len(asked.start.Customers)
	if len(asked.start.Customers) == 0 && !c.caller.Rights.Has(access.WatchAll) {
		return nil, &eligibility.Error{Kind: eligibility.KindPermissionDenied, Right: access.WatchAll.String()}
	}
	if asked.log == nil {
		return nil, &eligibility.Error{Kind: eligibility.KindFeedUnavailable, Err: errNoFeed}
	}
	asked.initial = len(asked.start.Customers) > 0 && (unfinished || asked.start.Token == "" && req.GetStartTime() == nil)
	asked.start.Early = asked.initial // a current answer may be older than the newest changes
	if limited := c.takeCustomers(len(asked.start.Customers)); limited != nil {
		return nil, limited
	}
	return asked, nil
}

// takeCustomers takes the requests of a stream of n customers, of which one was taken
// when it began, but no more than the caller may ever make at once.
func (c *call) takeCustomers(n int) *eligibility.Error {
	if c.allowed == nil {
		return nil
	}
	requests := (n + customersPerRequest - 1) / customersPerRequest
	if burst, bounded := c.allowed.Burst(); bounded {
		requests = min(requests, burst)
	}
	_, limited := c.take(time.Now(), requests-1)
	return limited
}

// customers parses the customers of a request, each of them once, in the order given.
func customers(given []string, most int, faults *Violations) []eligibility.CustomerID {
	if len(given) > most {
		faults.Add(fieldCustomerIDs, fmt.Sprintf("must hold up to %d customers", most))
		return nil
	}
	ids := make([]eligibility.CustomerID, 0, len(given))
	seen := make(map[eligibility.CustomerID]bool, len(given))
	for i, text := range given {
		id, err := eligibility.ParseCustomerID(text)
		if err != nil {
			faults.Add(fieldCustomerIDs+"["+strconv.Itoa(i)+"]", "must be a GUID")
			continue
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// The fields of a stream that name its beginning.
const (
	fieldStartTime   = "start_time"
	fieldResumeToken = "resume_token"
)

// run sends what the stream consists of, until it ends. A stream that ends by itself
// returns nil.
func (w *watcher) run() error {
	defer w.close()
	err := w.follow()
	switch {
	case w.isSlow():
		w.watched.end = endSlow
		_ = w.send(watchEnd(eligibilityv1.WatchEnd_REASON_SLOW))
		return nil
	case err == nil || w.isToEnd():
		reason := w.reason()
		w.watched.end = endNames[reason]
		_ = w.send(watchEnd(reason))
		return nil
	default:
		return err
	}
}

// follow sends the current answers, then changes and progress. It returns nil when the
// stream is to end.
func (w *watcher) follow() error {
	if w.isToEnd() {
		return nil
	}
	cursor, err := w.asked.log.Follow(w.wake, w.asked.start)
	if err != nil {
		return w.failure(err)
	}
	progress := cursor.Progress()
	w.token = progress.Token
	if w.asked.initial {
		w.token = initialToken + progress.Token
		if err := w.sendInitial(); err != nil || w.isToEnd() {
			return err
		}
		w.token = progress.Token
	}
	for {
		// All that the cursor has returned was sent.
		if err := w.sendProgress(cursor.Progress); err != nil {
			return err
		}
		if w.ended() {
			return nil
		}
		wait, cancel := context.WithDeadline(w.wake, earlier(w.nextProgress, w.expires))
		events, err := cursor.Next(wait)
		expired := wait.Err() != nil
		cancel()
		if err != nil && (!expired || w.wake.Err() != nil) {
			return w.failure(err)
		}
		for i := range events {
			if err := w.sendChange(&events[i]); err != nil {
				return err
			}
		}
	}
}

// failure is nil if an error only shows that the stream is to end.
func (w *watcher) failure(err error) error {
	if w.isToEnd() {
		return nil
	}
	return err
}

// sendInitial sends the current answers. If some could not be read, it fails after the
// others: the caller's next stream sends all of them again.
func (w *watcher) sendInitial() error {
	all, complete := w.asked.of.service.Known(w.wake, w.asked.start.Customers, w.asked.segment)
	w.shown = make(map[eligibility.Key]time.Time, 2*len(all))
	for _, known := range all {
		reply := CheckReply{CustomerID: known.CustomerID, Answer: known.Answer}
		id := append(known.CustomerID.Append(nil), ":current"...)
		for _, evidence := range []*eligibility.Evidence{known.Answer.Account, known.Answer.Qualifications} {
			if evidence != nil {
				w.shown[eligibility.Key{CustomerID: known.CustomerID, Facet: evidence.Facet}] = evidence.FetchTime
				id = strconv.AppendInt(append(id, ':'), evidence.FetchTime.UnixNano(), 10) // another id for each pair of evidence
			}
		}
		initial := &changeEvent{
			id:       string(id),
			customer: known.CustomerID, after: &reply, initial: true, observed: known.Answer.EvidenceTime,
		}
		if w.isToEnd() {
			return nil
		}
		if err := w.send(initial); err != nil {
			return err
		}
		w.watched.initial++
	}
	if !complete && !w.isToEnd() {
		return &eligibility.Error{Kind: eligibility.KindFeedUnavailable, Err: errIncomplete}
	}
	return nil
}

// sendProgress sends how far the stream has come, if it is time.
func (w *watcher) sendProgress(progress func() changes.Progress) error {
	now := time.Now()
	if now.Before(w.nextProgress) {
		return nil
	}
	if !w.nextProgress.IsZero() {
		w.shown = nil // changes from before the stream have come by now
	}
	come := progress()
	w.token, w.nextProgress = come.Token, now.Add(w.times.progress)
	return w.send(watchProgress(come))
}

// sendChange sends a change, if it makes a difference to the segment and is later than
// the current answer that was sent. In any case, the stream goes on after it.
func (w *watcher) sendChange(event *changes.Event) error {
	w.token = event.Token
	if event.Change == nil || event.Change.Type != changes.TypeChanged {
		return nil
	}
	if !event.Change.After.FetchTime.After(w.shown[event.Change.Key]) {
		w.watched.unequal++
		return nil
	}
	compared := w.comparisons.of(event.Change, w.asked.segment, w.asked.of.service)
	if !compared.differs {
		w.watched.unequal++
		return nil
	}
	sent := compared.first
	if event.Redelivered {
		sent = compared.again
		w.watched.redelivered++
	}
	w.watched.changes++
	return w.send(sent)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// jittered returns d, give or take a tenth.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1) //nolint:gosec // spreads load
}
