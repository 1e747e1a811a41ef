package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// fill writes more changes than the buffers between a service and a client hold.
func fill(feed *apitest.Feed) {
	for i := range 60 {
		q, _ := eligibility.ParseQualification("Education", "Denied", fmt.Sprint(i)+strings.Repeat("x", 300_000), time.Time{})
		feed.Write(apitest.CustomerA, &eligibility.Evidence{
			Facet: eligibility.FacetQualifications, Qualifications: []eligibility.Qualification{q}, FetchTime: time.Now().Truncate(time.Millisecond),
		})
	}
}

var educationOfAll = &eligibilityv1.WatchEligibilityRequest{Segment: eligibilityv1.Segment_SEGMENT_EDUCATION}

const blocked = 300 * time.Millisecond

// A caller who receives again after a while gets all that was sent, and why the stream
// ends.
func TestASlowStreamEnds(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, feed := startWatching(t, servertest.Setup{})
		run.Chain.SetWatchTimes(api.WatchTimes{Blocked: blocked})
		w := watch(t, t.Context(), run, via, educationOfAll)
		w.next("progress")
		fill(feed)
		<-time.After(10 * blocked) // not to wait for anything: not to receive for so long
		if reason := w.ends(); reason != eligibilityv1.WatchEnd_REASON_SLOW {
			t.Errorf("%v", reason)
		}
		if record := run.Record(t); record["code"] != "OK" || record["end"] != "slow" {
			t.Errorf("%v", record)
		}
		again := watch(t, t.Context(), run, via, &eligibilityv1.WatchEligibilityRequest{Segment: educationOfAll.GetSegment(), ResumeToken: w.last})
		if change := again.change(); change.GetCustomerId() != apitest.CustomerA {
			t.Errorf("%v", change)
		}
	})
}

// A stream over gRPC whose caller never receives ends all the same, with OK.
func TestAStreamThatNobodyReceivesEnds(t *testing.T) {
	t.Parallel()
	run, feed := startWatching(t, servertest.Setup{})
	run.Chain.SetWatchTimes(api.WatchTimes{Blocked: blocked, Abandon: blocked})
	w := watch(t, t.Context(), run, "grpc", educationOfAll)
	w.next("progress")
	fill(feed)
	if record := run.Record(t); record["code"] != "OK" || record["end"] != "slow" {
		t.Errorf("%v", record)
	}
	for {
		if _, err := w.recv(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("%v", err)
			}
			break
		}
	}
}

// A caller over REST who has stopped to receive and then leaves costs nothing more.
func TestABlockedCallerOverRESTLeaves(t *testing.T) {
	t.Parallel()
	run, feed := startWatching(t, servertest.Setup{})
	run.Chain.SetWatchTimes(api.WatchTimes{Blocked: blocked})
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(run.REST, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /v1/eligibility:watch?segment=education HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusOK { //nolint:bodyclose // conn is closed
		t.Fatal(resp, err)
	}
	fill(feed)
	<-time.After(5 * blocked) // not to wait for anything: not to receive for so long
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if record := run.Record(t); record["end"] != "slow" {
		t.Errorf("%v", record)
	}
}
