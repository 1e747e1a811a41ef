package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

type (
	watchRequest  = eligibilityv1.WatchEligibilityRequest
	watchResponse = eligibilityv1.WatchEligibilityResponse
	watchStream   = grpc.ServerStreamingServer[eligibilityv1.WatchEligibilityResponse]
)

func changed(token, event, id string, initial bool) *watchResponse {
	return &watchResponse{ResumeToken: token, Event: &eligibilityv1.WatchEligibilityResponse_Change{
		Change: &eligibilityv1.EligibilityChange{EventId: event, CustomerId: id, After: allowed(id), Initial: initial},
	}}
}

func progress(token string) *watchResponse {
	return &watchResponse{ResumeToken: token, Event: &eligibilityv1.WatchEligibilityResponse_Progress{Progress: &eligibilityv1.WatchProgress{InitialComplete: true}}}
}

func end(token string) *watchResponse {
	return &watchResponse{ResumeToken: token, Event: &eligibilityv1.WatchEligibilityResponse_End{End: &eligibilityv1.WatchEnd{Reason: eligibilityv1.WatchEnd_REASON_DRAINING}}}
}

// stream is what a service sends, and how it ends.
type stream struct {
	messages []*watchResponse
	err      error
}

// streams serves one stream after the other, and collects the requests. Further ones are
// refused.
func streams(t *testing.T, all ...stream) (c *Client, requests *[]*watchRequest) {
	t.Helper()
	requests = new([]*watchRequest)
	return dial(t, serve(t, far{watch: func(request *watchRequest, to watchStream) error {
		n := len(*requests)
		if *requests = append(*requests, request); n >= len(all) {
			return refusal(codes.PermissionDenied, "PERMISSION_DENIED")
		}
		for _, message := range all[n].messages {
			if err := to.Send(message); err != nil {
				return err
			}
		}
		return all[n].err
	}}).address, Config{}), requests
}

func tokensOf(requests []*watchRequest) (all []string) {
	for _, r := range requests {
		all = append(all, r.GetResumeToken())
	}
	return all
}

// A watch goes on after each kind of end, hands each change on once, and begins anew if
// its token has expired.
func TestAWatchGoesOn(t *testing.T) {
	t.Parallel()
	c, requests := streams(t,
		stream{messages: []*watchResponse{changed("i.0", "current-1", contoso, true)}, err: status.Error(codes.Unavailable, "connection reset")},
		stream{messages: []*watchResponse{changed("i.1", "current-1", contoso, true), progress("1"), changed("2", "a", contoso, false), end("3")}},
		stream{messages: []*watchResponse{changed("4", "a", contoso, false), changed("5", "b", fabrikam, false)}, err: refusal(codes.Unavailable, "FEED_UNAVAILABLE", time.Millisecond)},
		stream{}, // cut off
		stream{err: refusal(codes.OutOfRange, "RESUME_TOKEN_EXPIRED")},
		stream{messages: []*watchResponse{changed("i.6", "current-1", contoso, true), changed("i.6", "current-2", fabrikam, true), progress("6")}},
	)
	var saved, received []string
	restarted := 0
	var last error
	for change, err := range c.Watch(t.Context(), WatchRequest{
		CustomerIDs: []string{contoso, fabrikam},
		Save:        func(token string) error { saved = append(saved, token); return nil },
		Restarted:   func() { restarted++ },
	}) {
		if last = err; err == nil {
			received = append(received, fmt.Sprintf("%s %.1s %v %v", change.EventID, change.CustomerID, change.After.Outcome(), change.Initial))
		}
	}
	if want := []string{
		"current-1 c allowed true", "current-1 c allowed true", " f undecided true", "a c allowed false", "b f allowed false",
		"current-1 c allowed true", "current-2 f allowed true",
	}; !slices.Equal(received, want) {
		t.Errorf("received %q", received)
	}
	if want := []string{"1", "2", "3", "4", "5", "6"}; !slices.Equal(saved, want) {
		t.Errorf("saved %q", saved)
	}
	if got := tokensOf(*requests); !slices.Equal(got, []string{"", "", "3", "5", "5", "", "6"}) || restarted != 1 {
		t.Errorf("streams from %q, %d restarts", got, restarted)
	}
	if failure, _ := errors.AsType[*Error](last); failure == nil || failure.Reason != "PERMISSION_DENIED" {
		t.Errorf("ended with %v", last)
	}
}

// A watch goes on after what ended its stream on the way to the service, and ends with the
// same codes if they are the service's.
func TestAWatchGoesOnAfterAProxy(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		err     error
		streams int
	}{
		"a reset":               {status.Error(codes.Internal, "stream terminated by RST_STREAM"), 2},
		"no trailers":           {status.Error(codes.Unknown, "server closed the stream"), 2},
		"flow control":          {status.Error(codes.ResourceExhausted, "ENHANCE_YOUR_CALM"), 2},
		"a limit on requests":   {status.Error(codes.DeadlineExceeded, "stream timeout"), 2},
		"another server":        {status.Error(codes.Unimplemented, "no such method"), 1},
		"the service's fault":   {refusal(codes.Internal, "INTERNAL"), 1},
		"the service's limit":   {refusal(codes.ResourceExhausted, "TOO_MANY_STREAMS"), 1},
		"the service's refusal": {refusal(codes.Unauthenticated, "UNAUTHENTICATED"), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, requests := streams(t, stream{messages: []*watchResponse{progress("1")}, err: row.err})
			var last error
			for _, err := range c.Watch(t.Context(), WatchRequest{ResumeToken: "0"}) {
				last = err
			}
			if got := tokensOf(*requests); len(got) != row.streams || got[len(got)-1] != []string{"0", "1"}[row.streams-1] {
				t.Errorf("streams from %q", got)
			}
			want := status.Code(row.err)
			if row.streams > 1 {
				want = codes.PermissionDenied // of the second one
			}
			if failure, _ := errors.AsType[*Error](last); failure == nil || failure.Code != want {
				t.Errorf("ended with %v", last)
			}
		})
	}
}

// It goes on after a real reset, and does not spin if each stream is reset.
func TestAWatchPausesBetweenResets(t *testing.T) {
	t.Parallel()
	var resets atomic.Int64
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		if !strings.HasSuffix(r.URL.Path, "/WatchEligibility") {
			w.Header().Set("Grpc-Status", "12") // no health checks
			return
		}
		resets.Add(1)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // RST_STREAM with INTERNAL_ERROR
	}))
	proxy.Config.Protocols = protocols
	proxy.Start()
	t.Cleanup(proxy.Close)
	c := dial(t, proxy.Listener.Addr().String(), Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var last error
	for _, err := range c.Watch(ctx, WatchRequest{}) {
		last = err
	}
	if n := resets.Load(); !errors.Is(last, context.DeadlineExceeded) || n < 2 || n > 6 {
		t.Errorf("%d streams, ended with %v", n, last)
	}
}

// Without customers, a watch that begins anew begins with the oldest change.
func TestAWatchOfAllCustomersBeginsAnewWithTheOldestChange(t *testing.T) {
	t.Parallel()
	c, requests := streams(t,
		stream{err: refusal(codes.InvalidArgument, "INVALID_ARGUMENT")}, // the token is of another service
		stream{messages: []*watchResponse{progress("1"), end("2")}},
	)
	for _, err := range c.Watch(t.Context(), WatchRequest{ResumeToken: "0"}) { // until it is refused
		if failure, _ := errors.AsType[*Error](err); failure == nil || failure.Reason != "PERMISSION_DENIED" {
			t.Error(err)
		}
	}
	if got := tokensOf(*requests); !slices.Equal(got, []string{"0", "", "2"}) {
		t.Fatalf("streams from %q", got)
	}
	if (*requests)[0].GetStartTime() != nil || (*requests)[1].GetStartTime() == nil || (*requests)[1].GetStartTime().AsTime().Unix() != 0 {
		t.Errorf("%v", *requests)
	}
}

// A change that the loop leaves at is not behind the token.
func TestALoopThatEnds(t *testing.T) {
	t.Parallel()
	c, _ := streams(t, stream{messages: []*watchResponse{progress("1"), changed("2", "a", contoso, false), changed("3", "b", contoso, false), changed("4", "c", contoso, false)}})
	saved := ""
	for change, err := range c.Watch(t.Context(), WatchRequest{CustomerIDs: []string{contoso}, Save: func(token string) error { saved = token; return nil }}) {
		if err != nil {
			t.Fatal(err)
		}
		if change.EventID == "b" {
			break
		}
	}
	if saved != "2" {
		t.Errorf("saved %q", saved)
	}
}

func TestAWatchEndsWithTheErrorOfSave(t *testing.T) {
	t.Parallel()
	c, _ := streams(t, stream{messages: []*watchResponse{progress("1"), changed("2", "a", contoso, false)}})
	full := errors.New("the disk is full")
	var last error
	for change, err := range c.Watch(t.Context(), WatchRequest{Save: func(string) error { return full }}) {
		if last = err; err == nil {
			t.Errorf("received %+v", change)
		}
	}
	if !errors.Is(last, full) {
		t.Error(last)
	}
}

func TestAWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	c := dial(t, serve(t, far{watch: func(_ *watchRequest, to watchStream) error {
		leave()
		<-to.Context().Done()
		return nil
	}}).address, Config{})
	var last error
	for _, err := range c.Watch(ctx, WatchRequest{}) {
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Error(last)
	}
}
