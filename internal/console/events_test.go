package console

import (
	"net/http"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// A stream that was opened in a session does not outlive it.
func TestStreamsEndWithTheSession(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	left := make(chan time.Duration, 1)
	s.cfg.Stream = func(w http.ResponseWriter, r *http.Request, _ *access.Caller) {
		ends, _ := r.Context().Deadline()
		left <- time.Until(ends)
		w.WriteHeader(http.StatusNoContent)
	}
	b := s.browser(t)
	b.signIn(anna)
	for _, before := range []time.Duration{7 * time.Hour, time.Hour} {
		s.ahead.Store(int64(sessionFor - before))
		if got := b.get("/console/events"); got.status != http.StatusNoContent {
			t.Fatalf("%d %s", got.status, got.body)
		}
		if got := <-left; got > before || got < before-10*time.Minute {
			t.Errorf("%v before the end of the session, the stream lasts for %v", before, got)
		}
	}
}
