//go:build acceptance

package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
	"github.com/eligibilityd/eligibilityd/internal/cache/cachetest"
)

// reasonOf is the reason in the details of an error.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(interface{ GetReason() string }); ok {
			return info.GetReason()
		}
	}
	return ""
}

// changesOfSilentCustomers follows customers of whom nothing changes for five minutes,
// five times the retention, while others flip.
func changesOfSilentCustomers(t *testing.T) string { //nolint:thelper // a test of its own
	const silence, away, interval = 5 * time.Minute, 5 * time.Second, 15 * time.Second
	f := startReplicas(t, 2, append(onFleet(cachetest.StartRedis(t)),
		"ELIGIBILITY_FEED__RETENTION=60s", "ELIGIBILITY_SERVER__LIMITS__CONNECTION_AGE=1m", "ELIGIBILITY_SERVER__LIMITS__CONNECTION_GRACE=5s")...)
	silent, others := changingIDs('1', 10), changingIDs('2', 100)
	f.script(silent, accountWords[0], 0)
	f.script(others, accountWords[0], 0)
	f.hammer(silent, func(*eligibilityv1.CheckEligibilityResponse) {})

	asked := time.Now()
	playing, stop := context.WithCancel(t.Context())
	defer stop()
	var play sync.WaitGroup
	play.Go(func() { f.load(playing, others, 20, func(*eligibilityv1.CheckEligibilityResponse) {}) })
	play.Go(func() { f.flip(playing, others, 10*time.Second, 0) })

	w := newWatcher(silent...)
	watching, leave := context.WithTimeout(t.Context(), silence)
	defer leave()
	ended := make(chan error, 1)
	go func() { ended <- w.follow(watching, f.clients[0]) }()
	eventually(t, "the initial answers", func() bool { return view(w, func(w *watcher) bool { return w.complete }) })
	first := view(w, func(w *watcher) string { return w.token })
	if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the stream ended before its caller left: %v", err)
	}
	for _, c := range w.changes {
		if c.evidence > asked.UnixMilli() { // the checks at the start may arrive as changes
			t.Errorf("a change of a silent customer: %+v", c)
		}
	}
	if len(w.initial)+len(w.changes) < len(silent) || len(w.faults) > 0 {
		t.Errorf("%d initial answers, %d changes of the start: %s", len(w.initial), len(w.changes), some(w.faults))
	}
	if w.slowest > 2*interval || w.progress < int(silence/interval)-2 {
		t.Errorf("%d messages of progress in %v, the longest silence was %v", w.progress, silence, w.slowest)
	}
	behind := time.Since(w.through)

	f.script(silent[:1], accountWords[2], 0)
	if _, err := f.now(t.Context(), f.clients[0], silent[0]); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), away)
	again, leaveAgain := context.WithTimeout(t.Context(), patience)
	defer leaveAgain()
	go func() { ended <- w.follow(again, f.clients[1]) }()
	eventually(t, "the change that was made between the streams", func() bool {
		return w.has(silent[0], eligibilityv1.AccountStatus_ACCOUNT_STATUS_NOT_ALLOWED, 0)
	})
	leaveAgain()
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Errorf("the resumed stream: %v", err)
	}

	old := newWatcher(silent...)
	old.token = first
	limit, end := context.WithTimeout(t.Context(), patience)
	defer end()
	err := old.follow(limit, f.clients[1])
	if status.Code(err) != codes.OutOfRange || reasonOf(err) != "RESUME_TOKEN_EXPIRED" {
		t.Errorf("a token of five minutes ago: %v", err)
	}
	stop()
	play.Wait()
	return fmt.Sprintf("one stream of %v with %d messages of progress, on a connection that was asked to close after a minute; its last token, %s behind, resumes at another replica %v later and brings the change made since; "+
		"its first token: `OUT_OF_RANGE`, `RESUME_TOKEN_EXPIRED`", silence, w.progress, seconds(behind), away)
}
