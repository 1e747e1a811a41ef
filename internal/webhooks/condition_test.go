package webhooks_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/health"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// The health of a webhook follows its requests, and is unknown without the lease.
func TestHealthFollowsTheRequests(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, r *rig) {
		r.stop()
		s := webhooks.New(configOf(r.feed, r.store))
		s.SetTransport(r.receiver)
		r.stop = start(t, s)
		want := func(state health.State, kind string) {
			t.Helper()
			if got := s.Health(); got.State != state || got.Kind != kind {
				t.Errorf("%+v, want %v, %q", got, state, kind)
			}
		}
		pass(5 * time.Second)
		want(health.Unknown, "")
		r.feed.add(1)
		pass(5 * time.Second)
		want(health.OK, "")
		r.receiver.set(always(http.StatusInternalServerError))
		r.feed.add(2)
		pass(time.Second)
		want(health.Degraded, "failed")
		for n := range 100 {
			r.feed.add(3 + n)
		}
		pass(5 * time.Second)
		want(health.Failing, "failed")
		r.receiver.set(always(http.StatusGone))
		pass(time.Hour)
		want(health.Failing, "gone")
		r.stop()
		want(health.Unknown, "gone")
	})
}
