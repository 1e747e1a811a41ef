package api_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/eligibilityd/eligibilityd/internal/access"
	"github.com/eligibilityd/eligibilityd/internal/allowance"
	"github.com/eligibilityd/eligibilityd/internal/api"
	"github.com/eligibilityd/eligibilityd/internal/api/apitest"
	"github.com/eligibilityd/eligibilityd/internal/eligibility"
	"github.com/eligibilityd/eligibilityd/internal/server/servertest"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

// If the shared tier cannot be read, a stream does not state that it has sent all
// current answers.
func TestWatchWithoutAllCurrentAnswers(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, via string) {
		run, _ := startWatching(t, servertest.Setup{})
		now := time.Now().Add(-time.Second)
		run.Store.Hold(apitest.CustomerA, eligibility.FacetAccount, *accountAt("UnderReview", now), now)
		run.Store.Unread.Store(true)
		w := watch(t, t.Context(), run, via, ask(apitest.CustomerA, apitest.CustomerB))
		w.next("change")
		if _, err := w.recv(); failureOf(err).reason != "FEED_UNAVAILABLE" {
			t.Errorf("%v", err)
		}
		run.Store.Unread.Store(false)
		again := watch(t, t.Context(), run, via, &eligibilityv1.WatchEligibilityRequest{CustomerIds: []string{apitest.CustomerA, apitest.CustomerB}, ResumeToken: w.last})
		again.next("change")
		again.next("progress")
	})
}

// A comparison without the shared tier is not kept for the streams that come later.
func TestWatchComparesAnewOnceTheSharedTierCanBeRead(t *testing.T) {
	t.Parallel()
	run, feed := startWatching(t, servertest.Setup{})
	run.Store.Unread.Store(true)
	req := ask()
	req.Segment = eligibilityv1.Segment_SEGMENT_EDUCATION
	w := watch(t, t.Context(), run, "grpc", req)
	w.next("progress")
	now := time.Now()
	feed.Write(apitest.CustomerA, accountAt("NotAllowed", now.Add(-2*time.Second)))
	feed.Write(apitest.CustomerA, accountAt("Allowed", now.Add(-time.Second)))
	w.change()
	if change := w.change(); change.GetAfter() != nil {
		t.Errorf("%v", change)
	}
	run.Store.Unread.Store(false)
	run.Store.Hold(apitest.CustomerA, eligibility.FacetQualifications, *qualifiedAt("Approved", now.Add(-3*time.Second)), now.Add(-3*time.Second))
	req.ResumeToken = w.last
	again := watch(t, t.Context(), run, "grpc", req)
	again.change()
	if change := again.change(); change.GetAfter() == nil {
		t.Errorf("%v", change)
	}
}

// Each ten customers count as one request, but no stream as more than its caller may
// ever make at once.
func TestWatchTakesRequestsForItsCustomers(t *testing.T) {
	t.Parallel()
	for burst, listed := range map[int]struct{ first, second int }{20: {101, 191}, 5: {api.MaxWatched, api.MaxWatched}} {
		limits, err := allowance.New(allowance.Config{Default: allowance.Limit{RequestsPerSecond: 1, Burst: burst}})
		if err != nil {
			t.Fatal(err)
		}
		run, _ := startWatching(t, servertest.Setup{API: api.Config{
			Access: apitest.Callers{"watch": &access.Caller{Name: "watch", Rights: access.Watch}}, Limits: limits,
		}})
		open := func(n int) error {
			ids := make([]string, n)
			for i := range ids {
				ids[i] = fmt.Sprintf("%08d-0000-4000-8000-000000000000", i)
			}
			stream, err := run.Client.WatchEligibility(apitest.With(t.Context(), "watch"), ask(ids...))
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
		if err := open(listed.first); err != nil {
			t.Errorf("burst %d: %v", burst, err)
		}
		if err := open(listed.second); failureOf(err).code != codes.ResourceExhausted {
			t.Errorf("burst %d, once more: %v", burst, err)
		}
	}
}
