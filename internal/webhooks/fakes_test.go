package webhooks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

const name = "orders"

// customer returns the id of the n-th customer.
func customer(n int) eligibility.CustomerID {
	return eligibility.CustomerID{0: byte(n >> 8 & 0xff), 1: byte(n & 0xff), 15: 1}
}

// feed is a feed of changes in memory, whose tokens are the number of changes before
// them.
type feed struct {
	mu      sync.Mutex
	events  []changes.Event // guarded by mu, as are the others
	oldest  int             // the first that is kept
	err     error           // of every read
	follows []changes.Start
	grown   chan struct{}
}

func newFeed() *feed { return &feed{grown: make(chan struct{})} }

// add writes a change of the n-th customer, and returns its id.
func (f *feed) add(n int) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := fmt.Sprintf("%d-%d", n, len(f.events)+1)
	f.events = append(f.events, changes.Event{
		Change: &changes.Change{
			Key:   eligibility.Key{CustomerID: customer(n)},
			After: &eligibility.Evidence{CorrelationID: id},
		},
		Position: changes.Position{Millis: time.Now().UnixMilli(), Seq: uint64(len(f.events))},
		Token:    strconv.Itoa(len(f.events) + 1),
	})
	close(f.grown)
	f.grown = make(chan struct{})
	return id
}

// trim forgets all but the last n changes.
func (f *feed) trim(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.oldest = len(f.events) - n
}

func (f *feed) follow(_ context.Context, start changes.Start) (webhooks.Cursor, error) { //nolint:ireturn // the port's
	f.mu.Lock()
	defer f.mu.Unlock()
	f.follows = append(f.follows, start)
	if f.err != nil {
		return nil, f.err
	}
	c := &cursor{feed: f, at: len(f.events)}
	switch {
	case start.Token != "":
		at, err := strconv.Atoi(start.Token)
		if err != nil {
			return nil, &eligibility.Error{Kind: eligibility.KindInvalidArgument}
		}
		if at < f.oldest {
			return nil, &eligibility.Error{Kind: eligibility.KindResumeTokenExpired}
		}
		c.at = at
	case !start.Time.IsZero():
		c.at = f.oldest
	}
	return c, nil
}

type cursor struct {
	feed *feed
	at   int
}

func (c *cursor) Next(ctx context.Context) ([]changes.Event, error) {
	for {
		c.feed.mu.Lock()
		events, grown, err := c.feed.events[c.at:], c.feed.grown, c.feed.err
		c.feed.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if len(events) > 0 {
			c.at += len(events)
			return events, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-grown:
		}
	}
}

func (c *cursor) Progress() changes.Progress {
	return changes.Progress{Token: strconv.Itoa(c.at)}
}

// received is a request that reached the receiver.
type received struct {
	at       time.Time
	id       string
	customer string
	header   http.Header
	body     []byte
	status   int
}

// receiver is the far side of a sender, without a network. answer decides about each
// request; nil answers 200.
type receiver struct {
	mu       sync.Mutex
	requests []received // guarded by mu
	underway map[string]int
	most     int // requests that were under way at once
	overlaps int // requests of a customer that were under way together
	answer   func(r received) (status int, header http.Header, err error)
	delay    time.Duration
}

func (r *receiver) RoundTrip(request *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(request.Body)
	var event struct {
		ID      string `json:"id"`
		Subject string `json:"subject"`
	}
	_ = json.Unmarshal(body, &event)
	got := received{at: time.Now(), id: event.ID, customer: event.Subject, header: request.Header.Clone(), body: body}
	r.mu.Lock()
	if r.underway == nil {
		r.underway = make(map[string]int)
	}
	r.underway[got.customer]++
	all := 0
	for _, n := range r.underway {
		all += n
	}
	r.most = max(r.most, all)
	if r.underway[got.customer] > 1 {
		r.overlaps++
	}
	answer, delay := r.answer, r.delay
	r.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-request.Context().Done():
			r.mu.Lock()
			defer r.mu.Unlock()
			r.underway[got.customer]--
			return nil, request.Context().Err()
		}
	}
	status, header, err := http.StatusOK, http.Header{}, error(nil)
	if answer != nil {
		status, header, err = answer(got)
	}
	got.status = status
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underway[got.customer]--
	r.requests = append(r.requests, got)
	if err != nil {
		return nil, err
	}
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(bytes.NewReader(nil)), Request: request}, nil
}

// set replaces the answer.
func (r *receiver) set(answer func(r received) (int, http.Header, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]received(nil), r.requests...)
}

// accepted returns the ids that were answered with 200, in order.
func (r *receiver) accepted() []string {
	var ids []string
	for _, got := range r.all() {
		if got.status == http.StatusOK {
			ids = append(ids, got.id)
		}
	}
	return ids
}

// always answers every request with a status.
func always(status int) func(received) (int, http.Header, error) {
	return func(received) (int, http.Header, error) { return status, nil, nil }
}

var errBroken = errors.New("connection broke")

// event is the CloudEvent of a change, as package app makes it.
func event(b []byte, change *changes.Change) []byte {
	return fmt.Appendf(b, `{"specversion":"1.0","id":%q,"source":"/eligibilityd/test","type":"eligibility.evidence.changed.v1",`+
		`"subject":%q,"data":{"customerId":%q}}`, change.After.CorrelationID, change.Key.CustomerID, change.Key.CustomerID)
}

func configOf(f *feed, store webhooks.Store) webhooks.Config {
	metrics, err := webhooks.NewMetrics(nil)
	if err != nil {
		panic(err)
	}
	return webhooks.Config{
		Name:    name,
		URL:     "https://orders.shop.example/eligibility",
		Secrets: func() [][]byte { return [][]byte{bytes.Repeat([]byte("k"), 24)} },
		Follow:  f.follow,
		Compare: func(context.Context, *changes.Change, eligibility.Segment) evidence.Comparison {
			return evidence.Comparison{Differs: true}
		},
		AppendEvent: event,
		AppendAnswer: func(b []byte, _ eligibility.CustomerID, a *eligibility.Answer) []byte {
			return fmt.Appendf(b, `{"decision":%d}`, a.Decision)
		},
		Store:   store,
		Host:    "test",
		Grace:   time.Second,
		Metrics: metrics,
		Logger:  zap.NewNop(),
	}
}

// start runs a sender until stop is called or the test ends.
func start(t *testing.T, s *webhooks.Sender) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// followed is how many cursors were opened.
func (f *feed) followed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.follows)
}
