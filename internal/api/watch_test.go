package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/rest"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// transports are the ways to a stream.
var transports = []string{"grpc", "ndjson", "sse"}

// watching is a stream that a real client has opened.
type watching struct {
	t    *testing.T
	recv func() (*eligibilityv1.WatchEligibilityResponse, error)
	last string // the token of the last message
}

// watch opens a stream. The client leaves when ctx ends. Its language is that of the
// metadata of ctx.
func watch(t *testing.T, ctx context.Context, run *servertest.Running, via string, req *eligibilityv1.WatchEligibilityRequest) *watching { //nolint:revive // t first, as everywhere
	t.Helper()
	if via == "grpc" {
		stream, err := run.Client.WatchEligibility(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		return &watching{t: t, recv: stream.Recv}
	}
	query := url.Values{}
	if ids := req.GetCustomerIds(); len(ids) > 0 {
		query.Set("customer_ids", strings.Join(ids, ","))
	}
	if req.GetSegment() != 0 {
		query.Set("segment", strings.ToLower(strings.TrimPrefix(req.GetSegment().String(), "SEGMENT_")))
	}
	if req.GetPartner() != "" {
		query.Set("partner", req.GetPartner())
	}
	if req.GetStartTime() != nil {
		query.Set("startTime", req.GetStartTime().AsTime().Format(time.RFC3339Nano))
	}
	headers := []string{"Accept", "*/*"}
	if via == "sse" {
		headers = []string{"Accept", "text/event-stream"}
		if req.GetResumeToken() != "" {
			headers = append(headers, "Last-Event-ID", req.GetResumeToken())
			query.Set("resumeToken", "not-the-one")
		}
	} else if req.GetResumeToken() != "" {
		query.Set("resume_token", req.GetResumeToken())
	}
	language := "en"
	if sent, ok := metadata.FromOutgoingContext(ctx); ok {
		language = sent.Get("accept-language")[0]
		headers = append(headers, "Accept-Language", language)
	}
	resp := open(t, ctx, run, "/v1/eligibility:watch?"+query.Encode(), headers...) //nolint:bodyclose // open does
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return &watching{t: t, recv: func() (*eligibilityv1.WatchEligibilityResponse, error) { return nil, failureIn(t, body) }}
	}
	for header, want := range map[string]string{"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "", "Content-Language": language, "Content-Type": map[string]string{"sse": "text/event-stream", "ndjson": "application/x-ndjson"}[via]} {
		if got := resp.Header.Get(header); got != want {
			t.Errorf("%s: %q, want %q", header, got, want)
		}
	}
	lines := bufio.NewReaderSize(resp.Body, 1<<20)
	if via == "ndjson" {
		return &watching{t: t, recv: func() (*eligibilityv1.WatchEligibilityResponse, error) {
			line, err := lines.ReadString('\n')
			if err != nil {
				return nil, err
			}
			return readMessage(t, line)
		}}
	}
	if first, err := readEvent(lines); err != nil || len(first) != 1 || first["retry"] != "2000" {
		t.Fatalf("the first event: %q, %v", first, err)
	}
	return &watching{t: t, recv: func() (*eligibilityv1.WatchEligibilityResponse, error) {
		event, err := readEvent(lines)
		if err != nil {
			return nil, err
		}
		message, err := readMessage(t, event["data"])
		if err != nil {
			if event["event"] != "error" {
				t.Errorf("an error as event %q", event)
			}
			return nil, err
		}
		if event["id"] != message.GetResumeToken() || event["event"] != kind(message) {
			t.Errorf("event %q of %v", event, message)
		}
		return message, nil
	}}
}

// open begins a request over REST and returns once its header has arrived.
func open(t *testing.T, ctx context.Context, run *servertest.Running, path string, headers ...string) *http.Response { //nolint:revive // t first, as everywhere
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, run.REST+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: run.HTTP}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

// readEvent reads a server-sent event: its fields by name.
func readEvent(lines *bufio.Reader) (map[string]string, error) {
	event := make(map[string]string)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			return event, nil
		}
		name, value, _ := strings.Cut(line, ": ")
		if event[name] != "" {
			return nil, fmt.Errorf("field %s twice", name)
		}
		event[name] = value
	}
}

// readMessage reads a message in JSON, or the error in place of one.
func readMessage(t *testing.T, text string) (*eligibilityv1.WatchEligibilityResponse, error) {
	t.Helper()
	var late struct{ Error json.RawMessage }
	if err := json.Unmarshal([]byte(text), &late); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if late.Error != nil {
		return nil, failureIn(t, late.Error)
	}
	message := new(eligibilityv1.WatchEligibilityResponse)
	if err := protojson.Unmarshal([]byte(text), message); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return message, nil
}

// failureIn returns a status in JSON as the error that it is.
func failureIn(t *testing.T, body []byte) error {
	t.Helper()
	read := (servertest.Reply{Body: body}).Failure(t)
	return &failureError{codes.Code(read.Code), read.Reason(), strings.Join(read.Fields(), " "), read.Right()} //nolint:gosec // a gRPC code
}

type failureError struct {
	code                  codes.Code
	reason, fields, right string
}

func (e *failureError) Error() string { return fmt.Sprint(*e) }

// failureOf returns how a stream failed, whichever way it came.
func failureOf(err error) failureError {
	if read, ok := errors.AsType[*failureError](err); ok {
		return *read
	}
	failure := failureError{code: status.Code(err)}
	var fields []string
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			failure.reason, failure.right = detail.GetReason(), detail.GetMetadata()["right"]
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				fields = append(fields, violation.GetField())
			}
		}
	}
	failure.fields = strings.Join(fields, " ")
	return failure
}

func kind(message *eligibilityv1.WatchEligibilityResponse) string {
	switch {
	case message.GetChange() != nil:
		return "change"
	case message.GetProgress() != nil:
		return "progress"
	default:
		return "end"
	}
}

// next returns the next message, which is of that kind.
func (w *watching) next(want string) *eligibilityv1.WatchEligibilityResponse {
	w.t.Helper()
	message, err := w.recv()
	if err != nil {
		w.t.Fatalf("in place of %s: %v", want, err)
	}
	if got := kind(message); got != want || message.GetResumeToken() == "" {
		w.t.Fatalf("%v, want %s", message, want)
	}
	w.last = message.GetResumeToken()
	return message
}

// change returns the next change; progress before it is skipped.
func (w *watching) change() *eligibilityv1.EligibilityChange {
	w.t.Helper()
	for {
		message, err := w.recv()
		if err != nil {
			w.t.Fatalf("in place of a change: %v", err)
		}
		w.last = message.GetResumeToken()
		if change := message.GetChange(); change != nil {
			return change
		}
		if message.GetEnd() != nil {
			w.t.Fatalf("in place of a change: %v", message)
		}
	}
}

// changeAfter returns the next change that is not before: a stream from now on may begin
// with what was written shortly before.
func (w *watching) changeAfter(before string) *eligibilityv1.EligibilityChange {
	w.t.Helper()
	change := w.change()
	if change.GetEventId() == before {
		return w.change()
	}
	return change
}

// ends returns how the stream ends, skipping progress.
func (w *watching) ends() eligibilityv1.WatchEnd_Reason {
	w.t.Helper()
	for {
		message, err := w.recv()
		if err != nil {
			w.t.Fatalf("in place of an end: %v", err)
		}
		if end := message.GetEnd(); end != nil {
			if _, err := w.recv(); !errors.Is(err, io.EOF) {
				w.t.Errorf("after the end: %v", err)
			}
			w.last = message.GetResumeToken()
			return end.GetReason()
		}
	}
}

func accountAt(word string, at time.Time) *eligibility.Evidence {
	return &eligibility.Evidence{Status: eligibility.ParseAccountStatus(word), StatusText: word, FetchTime: at.Truncate(time.Millisecond)}
}

func qualifiedAt(vetting string, at time.Time) *eligibility.Evidence {
	q, _ := eligibility.ParseQualification("Education", vetting, "", time.Time{})
	return &eligibility.Evidence{Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{q}, FetchTime: at.Truncate(time.Millisecond)}
}

// startWatching starts a server with a feed, whose progress is seldom.
func startWatching(t *testing.T, with servertest.Setup) (*servertest.Running, *apitest.Feed) {
	t.Helper()
	feed := apitest.NewFeed(1)
	if with.Feeds == nil {
		with.Feeds = map[string]changes.Feed{api.DefaultPartner: feed}
	}
	if with.Source == nil {
		with.Source = func(_ context.Context, id eligibility.CustomerID, facet eligibility.Facet) (eligibility.Evidence, eligibility.Call, error) {
			t.Errorf("Partner Center was asked about %v, %v", id, facet)
			return eligibility.Evidence{}, eligibility.Call{}, &eligibility.Error{Kind: eligibility.KindUnavailable}
		}
	}
	run := servertest.Start(t, with)
	run.Server.SetReady()
	return run, feed
}

func ask(customers ...string) *eligibilityv1.WatchEligibilityRequest {
	return &eligibilityv1.WatchEligibilityRequest{CustomerIds: customers}
}

// eachTransport runs a test over each transport.
func eachTransport(t *testing.T, test func(t *testing.T, via string)) {
	t.Helper()
	for _, via := range transports {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			test(t, via)
		})
	}
}

func TestWatchSendsCurrentAnswersThenChanges(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		now := time.Now().Add(-time.Second)
		run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, *accountAt("UnderReview", now), now)
		// What the current answers show, or what came before, is not news.
		feed.Write(apitest.CustomerA, accountAt("Allowed", now.Add(-time.Second)))
		feed.Write(apitest.CustomerA, accountAt("UnderReview", now))
		w := watch(t, t.Context(), run, via, ask(apitest.CustomerA, apitest.CustomerB, strings.ToUpper(apitest.CustomerA)))
		initial := w.next("change").GetChange()
		if !initial.GetInitial() || initial.GetCustomerId() != apitest.CustomerA || initial.GetBefore() != nil ||
			initial.GetAfter().GetDecision() != eligibilityv1.Decision_DECISION_BLOCKED || initial.GetEventId() == "" {
			t.Errorf("initial %v", initial)
		}
		unfinished := w.last
		progress := w.next("progress").GetProgress()
		if !progress.GetInitialComplete() || progress.GetThroughTime() == nil {
			t.Errorf("progress %v", progress)
		}
		// Not of these customers, and of no difference.
		feed.Write("33333333-3333-4333-8333-333333333333", accountAt("Allowed", now))
		feed.Write(apitest.CustomerA, qualifiedAt("Approved", now))
		written := feed.Write(apitest.CustomerA, accountAt("Allowed", now.Add(500*time.Millisecond)))
		change := w.change()
		if change.GetInitial() || change.GetRedelivered() || change.GetEventId() != written.ID() ||
			change.GetBefore().GetDecision() != eligibilityv1.Decision_DECISION_BLOCKED ||
			change.GetAfter().GetDecision() != eligibilityv1.Decision_DECISION_ALLOWED ||
			!change.GetObserveTime().AsTime().Equal(written.After.FetchTime) || change.GetAfter().GetStale() {
			t.Errorf("change %v", change)
		}
		first := feed.Write(apitest.CustomerB, accountAt("NotAllowed", now))
		seen := w.next("change").GetChange()
		if seen.GetEventId() != first.ID() || seen.GetBefore() != nil || seen.GetAfter().GetDecision() != eligibilityv1.Decision_DECISION_BLOCKED {
			t.Errorf("first seen %v", seen)
		}

		// From the token of the last message: the last changes once more, marked.
		again := watch(t, t.Context(), run, via, &eligibilityv1.WatchEligibilityRequest{CustomerIds: ask(apitest.CustomerA, apitest.CustomerB).GetCustomerIds(), ResumeToken: w.last})
		later := feed.Write(apitest.CustomerB, accountAt("Allowed", now.Add(700*time.Millisecond)))
		for seen := ""; seen != later.ID(); {
			change := again.change()
			if seen = change.GetEventId(); change.GetInitial() || change.GetRedelivered() != (seen != later.ID()) {
				t.Errorf("after resumption: %v", change)
			}
		}
		// From a token before all current answers were sent: all of them once more.
		anew := watch(t, t.Context(), run, via, &eligibilityv1.WatchEligibilityRequest{CustomerIds: []string{apitest.CustomerA}, ResumeToken: unfinished})
		if change := anew.next("change").GetChange(); !change.GetInitial() {
			t.Errorf("from %s: %v", unfinished, change)
		}
		anew.next("progress")
		if change := anew.change(); change.GetInitial() {
			t.Errorf("after the current answers: %v", change)
		}
	})
}

func TestWatchOfAll(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		now := time.Now().Add(-time.Second)
		old := feed.Write(apitest.CustomerA, accountAt("UnderReview", now))
		w := watch(t, t.Context(), run, via, ask())
		w.next("progress")
		written := feed.Write(apitest.CustomerB, qualifiedAt("InReview", now))
		later := feed.Write(apitest.CustomerB, accountAt("Allowed", now))
		if change := w.changeAfter(old.ID()); change.GetEventId() != later.ID() {
			t.Errorf("%v", change)
		}
		for _, start := range []time.Time{now.Add(-time.Hour), {}} { // the latter is the least time of .NET
			education := watch(t, t.Context(), run, via, &eligibilityv1.WatchEligibilityRequest{
				Segment: eligibilityv1.Segment_SEGMENT_EDUCATION, StartTime: timestamppb.New(start),
			})
			var ids []string
			for range 3 {
				ids = append(ids, education.change().GetEventId())
			}
			if ids[0] != old.ID() || ids[1] != written.ID() || ids[2] != later.ID() {
				t.Errorf("since %v: %q", start, ids)
			}
			if message := education.last; message == "" {
				t.Error("no token")
			}
		}
	})
}

func TestWatchRefuses(t *testing.T) {
	t.Parallel()
	callers := apitest.EachRight()
	callers["both"] = &access.Caller{Name: "both", Rights: access.Watch | access.WatchAll}
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		token := func() string {
			w := watch(t, t.Context(), run, via, ask(apitest.CustomerA))
			w.next("progress")
			return w.last
		}()
		foreign, _ := startWatching(t, servertest.Setup{Feeds: map[string]changes.Feed{api.DefaultPartner: apitest.NewFeed(2)}})
		many := make([]string, api.MaxWatched+1)
		for i := range many {
			many[i] = apitest.CustomerA
		}
		invalid := func(fields string) failureError {
			return failureError{code: codes.InvalidArgument, reason: "INVALID_ARGUMENT", fields: fields}
		}
		for name, c := range map[string]struct {
			run  *servertest.Running
			req  *eligibilityv1.WatchEligibilityRequest
			want failureError
		}{
			"no GUID":            {run, ask(apitest.CustomerA, "x", apitest.CustomerB, ""), invalid("customer_ids[1] customer_ids[3]")},
			"no partner of ours": {run, &eligibilityv1.WatchEligibilityRequest{Partner: "other"}, invalid("partner")},
			"a later start":      {run, &eligibilityv1.WatchEligibilityRequest{StartTime: timestamppb.New(time.Now().Add(time.Hour))}, invalid("start_time")},
			"a malformed token":  {run, &eligibilityv1.WatchEligibilityRequest{ResumeToken: "x"}, invalid("resume_token")},
			"half a token":       {run, &eligibilityv1.WatchEligibilityRequest{ResumeToken: token[:len(token)/2]}, invalid("resume_token")},
			"no token at all":    {run, &eligibilityv1.WatchEligibilityRequest{ResumeToken: "i."}, invalid("resume_token")},
			"a foreign token":    {foreign, &eligibilityv1.WatchEligibilityRequest{ResumeToken: token}, invalid("resume_token")},
		} {
			if _, err := watch(t, t.Context(), c.run, via, c.req).recv(); failureOf(err) != c.want {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
		if via == "grpc" { // too large for a URL
			if _, err := watch(t, t.Context(), run, via, ask(many...)).recv(); failureOf(err) != invalid("customer_ids") {
				t.Errorf("too many: %v", err)
			}
			if w := watch(t, t.Context(), run, via, ask(many[1:]...)); kind(w.next("progress")) == "" {
				t.Error("as many as may be")
			}
		}
		feed.Write(apitest.CustomerA, accountAt("Allowed", time.Now()))
		without := servertest.Start(t, servertest.Setup{})
		if _, err := watch(t, t.Context(), without, via, ask()).recv(); failureOf(err).reason != "FEED_UNAVAILABLE" {
			t.Errorf("without a feed: %v", err)
		}
	})
	run, _ := startWatching(t, servertest.Setup{API: api.Config{Access: callers}})
	for token, c := range map[string]struct{ one, all string }{
		"check": {"watch", "watch"}, "watch": {"", "watch_all"}, "watch_all": {"watch", "watch"}, "both": {"", ""},
	} {
		for req, right := range map[*eligibilityv1.WatchEligibilityRequest]string{ask(apitest.CustomerA): c.one, ask(): c.all} {
			stream, err := run.Client.WatchEligibility(apitest.With(t.Context(), token), req)
			if err == nil {
				_, err = stream.Recv()
			}
			if got := failureOf(err); err != nil && got.code != codes.PermissionDenied || got.right != right {
				t.Errorf("%s, %d customers: %v, want %q", token, len(req.GetCustomerIds()), err, right)
			}
		}
	}
}

// The times of streams, shortened.
func TestWatchSendsProgressAndEnds(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		run.Chain.SetWatchTimes(api.WatchTimes{Age: time.Second, Progress: 100 * time.Millisecond})
		begun := time.Now()
		w := watch(t, t.Context(), run, via, ask(apitest.CustomerA))
		first := w.next("progress")
		second := w.next("progress")
		if !second.GetProgress().GetThroughTime().AsTime().After(first.GetProgress().GetThroughTime().AsTime().Add(-time.Millisecond)) || !second.GetProgress().GetInitialComplete() {
			t.Errorf("%v after %v", second, first)
		}
		if reason := w.ends(); reason != eligibilityv1.WatchEnd_REASON_MAX_AGE {
			t.Errorf("%v", reason)
		}
		if took := time.Since(begun); took < 850*time.Millisecond || took > 20*time.Second {
			t.Errorf("it lasted %v", took)
		}
		if record := run.Record(t); record["code"] != "OK" || record["end"] != "max_age" || record["customers"] != int64(1) || record["rpc"] != "WatchEligibility" {
			t.Errorf("%v", record)
		}
		// It goes on from the token of its end.
		change := feed.Write(apitest.CustomerA, accountAt("Allowed", time.Now()))
		again := watch(t, t.Context(), run, via, &eligibilityv1.WatchEligibilityRequest{CustomerIds: []string{apitest.CustomerA}, ResumeToken: w.last})
		if got := again.change(); got.GetEventId() != change.ID() || got.GetRedelivered() {
			t.Errorf("%v", got)
		}
		if got := run.Scrape(t, `eligibility_watch_ended_total{reason="max_age"}`); len(got) != 1 || !strings.HasSuffix(got[0], " 1") {
			t.Errorf("%q", got)
		}
	})
}

func TestWatchRecordsACallerThatLeaves(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, _ := startWatching(t, servertest.Setup{})
		ctx, leave := context.WithCancel(t.Context())
		w := watch(t, ctx, run, via, ask())
		w.next("progress")
		if got := run.Scrape(t, "eligibility_watch_streams"); got[0] != "eligibility_watch_streams 1" {
			t.Errorf("%q", got)
		}
		leave()
		if record := run.Record(t); record["code"] != "CANCELLED" || record["end"] != "left" {
			t.Errorf("%v", record)
		}
		if got := run.Scrape(t, "eligibility_watch_streams"); got[0] != "eligibility_watch_streams 0" {
			t.Errorf("%q", got)
		}
	})
}

func TestWatchesAreBounded(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, _ := startWatching(t, servertest.Setup{API: api.Config{MaxWatches: 1, MaxConcurrent: 1}, Source: apitest.Approved()})
		watch(t, t.Context(), run, via, ask()).next("progress")
		if _, err := watch(t, t.Context(), run, via, ask()).recv(); failureOf(err).reason != "OVERLOADED" || failureOf(err).code != codes.ResourceExhausted {
			t.Errorf("%v", err)
		}
		// They are no calls in progress.
		if _, err := run.Client.CheckEligibility(t.Context(), apitest.Ask(apitest.CustomerA)); err != nil {
			t.Error(err)
		}
	})
}

// A panic ends one stream, over each transport, and nothing else.
func TestWatchSurvivesAPanic(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		run.Store.Broken = true
		w := watch(t, t.Context(), run, via, ask())
		w.next("progress")
		feed.Write(apitest.CustomerA, accountAt("Allowed", time.Now()))
		if _, err := w.recv(); failureOf(err).reason != "INTERNAL" {
			t.Errorf("%v", err)
		}
		watch(t, t.Context(), run, via, ask()).next("progress")
	})
}

// What only HTTP has.
func TestWatchOverHTTP(t *testing.T) {
	t.Parallel()
	run, feed := startWatching(t, servertest.Setup{REST: rest.Config{Origins: []string{"https://shop.example"}}})
	// A HEAD gets the header and ends.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, run.REST+"/v1/eligibility:watch", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	head, err := (&http.Client{Transport: run.HTTP}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = head.Body.Close()
	if head.StatusCode != http.StatusOK || head.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("HEAD: %s, %v", head.Status, head.Header)
	}
	if record := run.Record(t); record["end"] != "left" {
		t.Errorf("%v", record)
	}
	// Compression is asked for, and the first message arrives at once all the same.
	resp := open(t, t.Context(), run, "/v1/eligibility:watch?customer_ids="+apitest.CustomerA+"&customerIds="+apitest.CustomerB, "Accept-Encoding", "gzip") //nolint:bodyclose // open does
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a list given by two names: %s %s", resp.Status, body)
	}
	resp = open(t, t.Context(), run, "/v1/eligibility:watch?customer_ids="+apitest.CustomerA+"&customer_ids="+apitest.CustomerB, "Accept-Encoding", "gzip", "Origin", "https://shop.example") //nolint:bodyclose // open does
	lines := bufio.NewReader(resp.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"resumeToken":"`) || resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("%q, %v, %v", line, err, resp.Header)
	}
	if resp.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("%v", resp.Header)
	}
	// Texts of Partner Center do not leave their line.
	hostile := "\r\n\r\ndata: x\n\nid: y</script>\u2028"
	feed.Write(apitest.CustomerA, &eligibility.Evidence{Status: eligibility.AccountStatusUnrecognized, StatusText: hostile, FetchTime: time.Now().Truncate(time.Millisecond)})
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if message, err := readMessage(t, line); err != nil || message.GetChange().GetAfter().GetAccountStatusText() != hostile {
		t.Errorf("%q, %v", line, err)
	}
	events := watch(t, t.Context(), run, "sse", &eligibilityv1.WatchEligibilityRequest{StartTime: timestamppb.New(time.Now().Add(-time.Minute))})
	if change := events.change(); change.GetAfter().GetAccountStatusText() != hostile {
		t.Errorf("%v", change)
	}
	// An Accept of events has no effect on what is no stream.
	if got := run.Do(t, http.MethodPost, run.REST+"/v1/customers:prefetchEligibility", `{}`, "Accept", "text/event-stream"); got.Header.Get("Content-Type") != "application/json" || got.StatusCode != http.StatusBadRequest {
		t.Errorf("%s %v", got.Status, got.Header)
	}
}

// The feed cannot be read: a stream fails as unavailable.
func TestWatchWithoutItsFeed(t *testing.T) {
	t.Parallel()
	run := servertest.Start(t, servertest.Setup{})
	got := run.Do(t, http.MethodGet, run.REST+"/v1/eligibility:watch", "", "Accept", "text/event-stream")
	if got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" || got.Failure(t).Reason() != "FEED_UNAVAILABLE" {
		t.Errorf("%s %s", got.Status, got.Body)
	}
}

// A consumer may leave out each event id that it has had: other evidence has another one,
// even if the older of two facets is the same.
func TestCurrentAnswersByOtherEvidenceHaveOtherIDs(t *testing.T) {
	t.Parallel()
	run, _ := startWatching(t, servertest.Setup{})
	now := time.Now().Add(-time.Minute)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, *accountAt("Allowed", now), now)
	education := ask(apitest.CustomerA)
	education.Segment = eligibilityv1.Segment_SEGMENT_EDUCATION
	ids := map[string]eligibilityv1.Decision{}
	for i, vetting := range []string{"Approved", "Denied"} {
		at := now.Add(time.Duration(i+1) * time.Second)
		run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, *qualifiedAt(vetting, at), at)
		current := watch(t, t.Context(), run, "grpc", education).change()
		ids[current.GetEventId()] = current.GetAfter().GetDecision()
	}
	if len(ids) != 2 {
		t.Errorf("%v", ids)
	}
}
