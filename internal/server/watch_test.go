package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/eligibilityd/eligibilityd/internal/access/accesstest"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/changes"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// message is what tests read of a message of a stream.
type message struct {
	Change *struct{ CustomerID string }
	End    *struct{ Reason string }
}

// watchStream opens a stream of changes and returns what receives its messages.
func watchStream(t *testing.T, ctx context.Context, run *servertest.Running, via string) func() (message, error) { //nolint:revive // t first, as everywhere
	t.Helper()
	const query = "segment=education"
	if via == "grpc" {
		stream, err := run.Client.WatchEligibility(ctx, &eligibilityv1.WatchEligibilityRequest{Segment: eligibilityv1.Segment_SEGMENT_EDUCATION})
		if err != nil {
			t.Fatal(err)
		}
		return func() (message, error) {
			got, err := stream.Recv()
			var read message
			if change := got.GetChange(); change != nil {
				read.Change = &struct{ CustomerID string }{change.GetCustomerId()}
			}
			if end := got.GetEnd(); end != nil {
				read.End = &struct{ Reason string }{end.GetReason().String()}
			}
			return read, err
		}
	}
	resp := run.Open(t, ctx, "/v1/eligibility:watch?"+query) //nolint:bodyclose // open does
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	lines := bufio.NewReader(resp.Body)
	return func() (read message, err error) {
		line, err := lines.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &read)
		}
		return read, err
	}
}

// large is evidence that makes a change of so many bytes, twice.
func large(i, size int) *eligibility.Evidence {
	reason := strings.Repeat("x", size) + fmt.Sprint(i)
	q, _ := eligibility.ParseQualification("Education", "Denied", reason, time.Time{})
	return &eligibility.Evidence{
		Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{q},
		FetchTime: time.Now().Truncate(time.Millisecond),
	}
}

func startWatched(t *testing.T, with servertest.Setup) (*servertest.Running, *apitest.Feed) {
	t.Helper()
	feed := apitest.NewFeed(1)
	with.Feeds = map[string]changes.Feed{api.DefaultPartner: feed}
	run := servertest.Start(t, with)
	run.Server.SetReady()
	return run, feed
}

// Streams outlive the age of their connection and every timeout, and the connection of a
// client that has none is closed all the same.
func TestStreamsOutliveTheirConnectionsAge(t *testing.T) {
	t.Parallel()
	authority := accesstest.NewAuthority(t)
	limits := server.Limits{ConnectionAge: time.Second, ConnectionGrace: 500 * time.Millisecond, FirstRequest: time.Second, Idle: time.Second}
	for name, with := range map[string]servertest.Setup{
		"plain": {Server: server.Config{Limits: limits}},
		"tls":   {Server: server.Config{Limits: limits, TLS: serverTLS(t, authority)}, ClientTLS: authority.ClientTLS(nil)},
	} {
		for _, via := range []string{"grpc", "rest"} {
			t.Run(name+" "+via, func(t *testing.T) {
				t.Parallel()
				with.API.MaxTimeout = 100 * time.Millisecond // and with it the timeout of writes over REST
				run, feed := startWatched(t, with)
				receive := watchStream(t, t.Context(), run, via)
				if _, err := receive(); err != nil { // progress
					t.Fatal(err)
				}
				<-time.After(4 * time.Second) // not to wait for anything: to be older than all limits
				feed.Write(apitest.CustomerA, large(1, 10))
				for {
					got, err := receive()
					if err != nil {
						t.Fatalf("the stream was cut: %v", err)
					}
					if got.Change != nil {
						break
					}
				}
			})
		}
	}
}

// Streams end one after the other during the drain, all with an end and OK.
func TestTheDrainEndsStreams(t *testing.T) {
	t.Parallel()
	const streams, drain = 40, 3 * time.Second
	run, _ := startWatched(t, servertest.Setup{Server: server.Config{DrainPause: drain}})
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		ends []time.Time
	)
	for i := range streams {
		receive := watchStream(t, t.Context(), run, []string{"grpc", "rest"}[i%2])
		if _, err := receive(); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for {
				got, err := receive()
				if err != nil {
					t.Errorf("in place of an end: %v", err)
					return
				}
				if got.End == nil {
					continue
				}
				if _, err := receive(); got.End.Reason != "REASON_DRAINING" || !errors.Is(err, io.EOF) {
					t.Errorf("%v, %v", got.End, err)
				}
				mu.Lock()
				ends = append(ends, time.Now())
				mu.Unlock()
				return
			}
		})
	}
	begun := time.Now()
	run.Stop()
	// One that begins during the drain ends with it.
	late := watchStream(t, t.Context(), run, "grpc")
	for {
		got, err := late()
		if err != nil {
			t.Fatalf("a late stream: %v", err)
		}
		if got.End != nil {
			break
		}
	}
	all.Wait()
	if err := <-run.Ended; err != nil || time.Since(begun) > drain+2*time.Second {
		t.Errorf("ended after %v with %v", time.Since(begun), err)
	}
	early := 0
	for _, at := range ends {
		if at.Sub(begun) < drain/2 {
			early++
		}
	}
	if len(ends) != streams || early < streams/4 || early > streams*3/4 {
		t.Errorf("%d of %d streams ended in the first half of the drain", early, len(ends))
	}
}

// Without a drain, streams end at once, those that begin then, too.
func TestTheShutdownEndsStreamsWithoutADrain(t *testing.T) {
	t.Parallel()
	run, _ := startWatched(t, servertest.Setup{})
	var receives []func() (message, error)
	for _, via := range []string{"grpc", "rest"} {
		receive := watchStream(t, t.Context(), run, via)
		if _, err := receive(); err != nil {
			t.Fatal(err)
		}
		receives = append(receives, receive)
	}
	run.Stop()
	for _, receive := range receives {
		if got, err := receive(); err != nil || got.End == nil || got.End.Reason != "REASON_DRAINING" {
			t.Errorf("%v, %v", got, err)
		}
	}
	if err := <-run.Ended; err != nil {
		t.Error(err)
	}
}

// A caller who does not receive does not delay the shutdown.
func TestBlockedStreamsDoNotDelayTheShutdown(t *testing.T) {
	t.Parallel()
	for via, size := range map[string]int{"grpc": 300_000, "rest": 500_000} {
		t.Run(via, func(t *testing.T) {
			t.Parallel()
			run, feed := startWatched(t, servertest.Setup{Server: server.Config{ShutdownTimeout: time.Minute}})
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "blocked")
			receive := watchStream(t, ctx, run, via)
			if _, err := receive(); err != nil {
				t.Fatal(err)
			}
			for i := range 60 {
				feed.Write(apitest.CustomerA, large(i, size))
			}
			other := watchStream(t, t.Context(), run, "grpc") // on another stream, which is read
			if _, err := other(); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Second) // not to wait for anything: for the buffers to be full
			begun := time.Now()
			run.Stop()
			if err := <-run.Ended; err != nil || time.Since(begun) > 10*time.Second {
				t.Errorf("ended after %v with %v", time.Since(begun), err)
			}
		})
	}
}
