package pcclient_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/evidence"
	"github.com/eligibilityd/eligibilityd/internal/pcclient"
)

//
// If a 429 comes right after a pause, waiting was not enough.
func TestASecond429InARowPausesLonger(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusTooManyRequests, "", "Retry-After: 2")})
	first := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled).RetryAfter
	if first != 2*time.Second {
		t.Fatalf("first pause %v, want what was asked for", first)
	}
	// Full jitter can add next to nothing once, but not every time.
	longest := time.Duration(0)
	for range 8 {
		r.clock.advance(10 * time.Minute)
		longest = max(longest, r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled).RetryAfter)
	}
	if longest < 20*time.Second || longest > 10*time.Minute {
		t.Errorf("longest of eight further pauses %v, want it to have grown and to stay within 10m", longest)
	}
}

func TestAnAnswerEndsTheRowOf429s(t *testing.T) {
	t.Parallel()
	throttled := responds(http.StatusTooManyRequests, "", "Retry-After: 2")
	var script inTurn
	for range 20 {
		script = append(script, throttled, responds(http.StatusOK, allowed))
	}
	r := start(t, setup{api: script.play})
	for range 20 {
		if got := r.askInVain(pcclient.ClassThrottled, pcclient.ReasonThrottled).RetryAfter; got != 2*time.Second {
			t.Fatalf("pause %v, want 2s: the 429 before it was answered since", got)
		}
		r.clock.advance(10 * time.Minute)
		r.ask()
	}
}

func TestBreakerOpensOnInfrastructureAndLetsOneProbeThrough(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	probing, goOn := make(chan struct{}, 1), make(chan struct{})
	r := start(t, setup{api: func(w http.ResponseWriter, q *http.Request, n int) {
		if n > 10 {
			probing <- struct{}{}
			<-goOn
		}
		if broken.Load() {
			responds(http.StatusBadGateway, `{"isRetryable":false}`)(w, q, n)
			return
		}
		responds(http.StatusOK, allowed)(w, q, n)
	}})
	for range 10 {
		r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	}
	fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	if fail.RetryAfter <= 0 || fail.Attempts != 0 {
		t.Errorf("open: retry after %v, %d attempts", fail.RetryAfter, fail.Attempts)
	}
	if !r.shows("breaker_open 1") {
		t.Error("the metric does not show it")
	}

	// The probe is under way: nobody else goes.
	r.clock.advance(time.Second)
	probe := make(chan error, 1)
	go func() {
		_, _, err := r.Client.ValidationStatus(context.Background(), customerID)
		probe <- err
	}()
	<-probing
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	goOn <- struct{}{}
	failure(t, <-probe, pcclient.ClassUnavailable, pcclient.ReasonServerError)

	// It failed: open again, for twice as long. The next one succeeds.
	r.clock.advance(time.Second)
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
	r.clock.advance(time.Second)
	broken.Store(false)
	close(goOn)
	r.ask()
	<-probing
	r.ask()
	if !r.shows("breaker_open 0") {
		t.Error("the metric still shows it open")
	}
}

func TestProbesAreAtMostFiveSecondsApart(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusBadGateway, `{"isRetryable":false}`)})
	for range 10 {
		r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	}
	for range 20 {
		if fail := r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker); fail.RetryAfter > 5*time.Second {
			t.Fatalf("retry after %v", fail.RetryAfter)
		}
		r.clock.advance(5 * time.Second)
		r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonServerError)
	}
}

// In an outage the replays spend the budget, so that hardly a question gets to
// its last attempt.
func TestBreakerOpensWhereTheBudgetEndsTheReplays(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusBadGateway, ""), config: withBudget(20)})
	for range 10 {
		r.clock.advance(3300 * time.Millisecond) // for one attempt, and not for another
		r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
	}
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonBreaker)
}

func TestBreakerStaysClosedWhileThereAreAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]answerer{
		"not found":        responds(http.StatusNotFound, `{"code":60003}`),
		"forbidden":        responds(http.StatusForbidden, `{"code":900308}`),
		"unreadable":       responds(http.StatusOK, "<html>"),
		"not implemented":  responds(http.StatusNotImplemented, ""),
		"every ninth well": inTurn{}.play,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "every ninth well" {
				answer = func(w http.ResponseWriter, q *http.Request, n int) {
					if n%10 == 0 {
						responds(http.StatusOK, allowed)(w, q, n)
						return
					}
					responds(http.StatusBadGateway, `{"isRetryable":false}`)(w, q, n)
				}
			}
			r := start(t, setup{api: answer, config: withBudget(100_000)})
			for range 50 {
				_, _, err := r.Client.ValidationStatus(t.Context(), customerID)
				var fail *pcclient.APIError
				if errors.As(err, &fail) && fail.Reason == pcclient.ReasonBreaker {
					t.Fatal("open")
				}
			}
		})
	}
}

// Requests of a batch leave a quarter of the burst alone, so an urgent one never
// queues behind them; and they get all that is left.
func TestUrgentRequestsNeverQueueBehindTheBackground(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusOK, allowed), config: withBudget(40)}) // a burst of 4
	background := r.Client.WithPriority(evidence.NewPriority(evidence.LaneBatch))
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	went := 0
	for range 8 {
		if _, _, err := background.ValidationStatus(short(), customerID); err == nil {
			went++
		} else {
			failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget)
		}
	}
	if went != 3 {
		t.Errorf("%d background requests went, want three quarters of the burst", went)
	}
	r.ask()
	r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
}

func TestABackgroundRequestGoesOnceItIsUrgent(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusOK, allowed), config: withBudget(20)}) // a burst of 2
	priority := evidence.NewPriority(evidence.LaneBatch)
	if _, _, err := r.Client.WithPriority(priority).ValidationStatus(t.Context(), customerID); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	waiting.Go(func() {
		if _, _, err := r.Client.WithPriority(priority).ValidationStatus(t.Context(), customerID); err != nil {
			t.Error(err)
		}
	})
	priority.Raise(evidence.LaneCheckout)
	waiting.Wait() // the clock stands still: only the reserve could serve it
	r.counts(1, 2)
}

// With one request left, an account gets it, whoever comes first. The
// qualifications of a commercial question need more of the burst than there is.
func TestSpareRequestsTakeNoneThatAnAccountCouldUse(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: responds(http.StatusOK, allowed), config: withBudget(6)}) // one at once, then one in 10 s
	spare := r.Client.WithPriority(nil)
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, _, err := spare.Qualifications(ctx, customerID)
		cancel()
		failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget)
		r.ask()
		r.clock.advance(11 * time.Second)
	}
	r.counts(1, 20)
}

func TestEachLaneLeavesItsReserveToThoseAbove(t *testing.T) {
	t.Parallel()
	for perMinute, want := range map[int]struct{ spare, background, checkout int }{
		10:  {0, 1, 0}, // a burst of 1: batches have to come to an end
		30:  {0, 2, 1},
		40:  {1, 2, 1},
		400: {10, 20, 10},
	} {
		t.Run(strconv.Itoa(perMinute), func(t *testing.T) {
			t.Parallel()
			r := start(t, setup{api: responds(http.StatusOK, allowed), config: withBudget(perMinute)})
			for _, step := range []struct {
				level evidence.Lane
				want  int
			}{
				{evidence.LaneSpare, want.spare},
				{evidence.LaneBatch, want.background},
				{evidence.LaneCheckout, want.checkout},
			} {
				client := r.Client.WithPriority(evidence.NewPriority(step.level))
				for n := range step.want {
					if _, _, err := client.ValidationStatus(t.Context(), customerID); err != nil {
						t.Fatalf("level %d: after %d requests: %v", step.level, n, err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // too short to wait
				_, _, err := client.ValidationStatus(ctx, customerID)
				cancel()
				if fail := failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget); fail.Attempts != 0 {
					t.Errorf("level %d: more than %d requests", step.level, step.want)
				}
			}
		})
	}
}

func TestReplaysOfASpareRequestLeaveTheReserve(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: inTurn{responds(http.StatusBadGateway, ""), responds(http.StatusOK, allowed)}.play, config: withBudget(40)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, _, err := r.Client.WithPriority(nil).Qualifications(ctx, customerID)
	failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget)
	for range 3 {
		r.ask()
	}
	r.counts(1, 4)
}

// A probe that waited for the budget would keep the breaker half-open.
func TestAProbeDoesNotWaitForTheBudget(t *testing.T) {
	t.Parallel()
	r := start(t, setup{api: inTurn{}.play, config: withBudget(20)}) // a burst of 2
	r.api.Close()
	for range 10 {
		r.clock.advance(7 * time.Second)
		r.askInVain(pcclient.ClassThrottled, pcclient.ReasonBudget)
	}
	r.clock.advance(time.Second)
	began := time.Now()
	_, _, err := r.Client.WithPriority(evidence.NewPriority(evidence.LaneBatch)).ValidationStatus(t.Context(), customerID)
	failure(t, err, pcclient.ClassThrottled, pcclient.ReasonBudget)
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
	r.clock.advance(3 * time.Second)
	r.askInVain(pcclient.ClassUnavailable, pcclient.ReasonConnection) // the probe
}
